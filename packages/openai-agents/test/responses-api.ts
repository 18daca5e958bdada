/**
 * A Responses API that refuses what the real one refuses, and answers by a script: enough to see what a runner sends after a
 * restart. Rules, as the API's own errors state them: an input item of type `function_call` needs its
 * `function_call_output` and the other way round; a `reasoning` item needs the item that followed it.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";

type Item = Readonly<Record<string, unknown>> & { readonly type?: string };

interface Body {
  readonly model: string;
  readonly input: readonly Item[] | string;
  readonly stream?: boolean;
  readonly instructions?: string;
}

export interface ResponsesApi {
  readonly baseURL: string;
  /** The inputs that were accepted, oldest first. */
  readonly inputs: (readonly Item[])[];
  /** What was refused, and why. */
  readonly refusals: string[];
  close(): Promise<void>;
}

export async function startResponsesApi(): Promise<ResponsesApi> {
  const inputs: (readonly Item[])[] = [];
  const refusals: string[] = [];
  let number = 0;

  const respond = async (request: IncomingMessage, response: ServerResponse) => {
    const body = JSON.parse(await text(request)) as Body;
    const input = typeof body.input === "string" ? [user(body.input)] : body.input;
    const reason = wrong(input);
    if (reason !== undefined) {
      refusals.push(reason);
      const error = { message: reason, type: "invalid_request_error", param: "input", code: null };
      response.writeHead(400, { "content-type": "application/json" });
      response.end(JSON.stringify({ error }));
      return;
    }
    inputs.push(input);
    number++;
    const isCompaction = request.url?.endsWith("/compact");
    const output = isCompaction ? compacted(input) : answer(input, number);
    const made = {
      id: `resp_${number}`,
      object: isCompaction ? "response.compaction" : "response",
      created_at: 1,
      status: "completed",
      model: body.model,
      output,
      parallel_tool_calls: true,
      tools: [],
      usage: {
        input_tokens: 1,
        output_tokens: 1,
        total_tokens: 2,
        input_tokens_details: { cached_tokens: 0 },
        output_tokens_details: { reasoning_tokens: 0 },
      },
    };
    if (body.stream) stream(response, made);
    else {
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify(made));
    }
  };
  const server = createServer((request, response) => {
    respond(request, response).catch((error: unknown) => {
      response.writeHead(500);
      response.end(String(error));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    baseURL: `http://127.0.0.1:${port}/v1`,
    inputs,
    refusals,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function stream(response: ServerResponse, made: { readonly output: readonly Item[] }): void {
  response.writeHead(200, { "content-type": "text/event-stream" });
  let sequence = 0;
  const send = (event: { readonly type: string }) => {
    const data = JSON.stringify({ ...event, sequence_number: sequence++ });
    response.write(`event: ${event.type}\ndata: ${data}\n\n`);
  };
  send({ type: "response.created", response: { ...made, output: [], status: "in_progress" } } as {
    type: string;
  });
  for (const [index, item] of made.output.entries()) {
    const event = { output_index: index, item };
    send({ type: "response.output_item.added", ...event } as { type: string });
    for (const part of (item["content"] as Item[] | undefined) ?? []) {
      const delta = { item_id: item["id"], output_index: index, content_index: 0 };
      send({ type: "response.output_text.delta", ...delta, delta: part["text"] } as {
        type: string;
      });
    }
    send({ type: "response.output_item.done", ...event } as { type: string });
  }
  send({ type: "response.completed", response: made } as { type: string });
  response.end();
}

/** Why the API refuses an input. */
function wrong(input: readonly Item[]): string | undefined {
  const calls = input.filter(({ type }) => type === "function_call");
  const outputs = input.filter(({ type }) => type === "function_call_output");
  for (const { call_id: id } of calls) {
    if (!outputs.some((one) => one["call_id"] === id)) {
      return `No tool output found for function call ${id}.`;
    }
  }
  for (const { call_id: id } of outputs) {
    const before = input.slice(0, input.findIndex((one) => one["call_id"] === id) + 1);
    if (!before.some((one) => one.type === "function_call" && one["call_id"] === id)) {
      return `No tool call found for function call output with call_id ${id}.`;
    }
  }
  const ids = input.flatMap(({ id }) => (typeof id === "string" ? [id] : []));
  const twice = ids.find((id, index) => ids.indexOf(id) < index);
  if (twice !== undefined) return `Duplicate item found with id ${twice}.`;
  const alone = input.findIndex(
    ({ type }, index) =>
      type === "reasoning" &&
      !["message", "function_call", "reasoning"].includes(String(input[index + 1]?.type)),
  );
  return alone < 0
    ? undefined
    : `Item '${input[alone]?.["id"]}' of type 'reasoning' was provided without its required following item.`;
}

function answer(input: readonly Item[], number: number): Item[] {
  const last = input.at(-1) as Item;
  if (last.type === "function_call_output")
    return [said(`The tool says ${last["output"]}`, number)];
  const asked = textOf(last);
  const call = (name: string, args: object, id = "a"): Item => ({
    type: "function_call",
    id: `fc_${number}${id}`,
    call_id: `call_${number}${id}`,
    name,
    arguments: JSON.stringify(args),
    status: "completed",
  });
  if (asked.startsWith("weather in ")) {
    const cities = asked.slice("weather in ".length).split(" and ");
    return cities.map((city, index) => call("get_weather", { city }, "abc"[index]));
  }
  if (asked.startsWith("delete ")) return [call("delete_file", { name: asked.slice(7) })];
  if (asked.startsWith("refund")) return [call("transfer_to_Billing", {})];
  const thought: Item = {
    type: "reasoning",
    id: `rs_${number}`,
    summary: [{ type: "summary_text", text: "Hm." }],
    encrypted_content: "c2VjcmV0",
  };
  const questions = input.filter(({ role }) => role === "user").map(textOf);
  const reply = said(`You said: ${questions.join(" | ")}`, number);
  return asked.startsWith("think") ? [thought, reply] : [reply];
}

function compacted(input: readonly Item[]): Item[] {
  const kept = input.filter(({ role }) => role === "user").slice(-1);
  return [{ type: "compaction", id: "cmp_1", encrypted_content: "c21hbGw=" }, ...kept];
}

function said(content: string, number: number): Item {
  return {
    type: "message",
    id: `msg_${number}`,
    role: "assistant",
    status: "completed",
    content: [{ type: "output_text", text: content, annotations: [] }],
  };
}

function user(content: string): Item {
  return { type: "message", role: "user", content };
}

/** What a message of an input says. */
export function textOf({ content }: Item): string {
  if (typeof content === "string") return content;
  return ((content as Item[] | undefined) ?? []).map((part) => String(part["text"])).join("");
}
