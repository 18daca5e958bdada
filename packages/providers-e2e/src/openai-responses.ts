/** OpenAI's responses, and its compaction of a history. */
import { newId, type Seen } from "./model.js";
import type { Rule } from "./rules.js";
import type { Api } from "./server.js";

interface Item {
  readonly type?: string;
  readonly role?: string;
  readonly id?: string;
  readonly call_id?: string;
  readonly content?: string | readonly { readonly type: string; readonly text?: string }[];
  readonly output?: unknown;
  readonly [name: string]: unknown;
}

export interface ResponsesBody {
  readonly model: string;
  readonly input: readonly Item[] | string;
  readonly tools?: readonly unknown[];
  readonly stream?: boolean;
}

const guide = "https://platform.openai.com/docs/guides/conversation-state";
const community = "https://community.openai.com/t/1136765 and its like";

/** What an item of the API itself may hold, beside its type and id. */
const fields: Readonly<Record<string, readonly string[]>> = {
  message: ["role", "content", "status", "phase"],
  function_call: ["call_id", "name", "arguments", "status", "namespace", "caller"],
  function_call_output: ["call_id", "output", "status", "caller"],
  reasoning: ["summary", "content", "encrypted_content", "status"],
  compaction: ["encrypted_content", "created_by"],
};
const prefixes: Readonly<Record<string, string>> = {
  message: "msg",
  function_call: "fc",
  function_call_output: "fc",
  reasoning: "rs",
  compaction: "cmp",
};

export const responsesRules: readonly Rule<ResponsesBody>[] = [
  {
    known: "https://platform.openai.com/docs/api-reference/responses/create",
    *broken(body) {
      for (const [index, item] of itemsOf(body).entries()) {
        const known = fields[typeOf(item)];
        if (known === undefined) yield `Invalid value: '${item.type}'.`;
        for (const name of Object.keys(item)) {
          if (!["type", "id", ...(known ?? [])].includes(name)) {
            yield `Unknown parameter: 'input[${index}].${name}'.`;
          }
        }
        const { id } = item;
        const prefix = prefixes[typeOf(item)];
        if (typeof id === "string" && !id.startsWith(`${prefix}_`)) {
          yield `Invalid 'input[${index}].id': '${id}'. Expected an ID that begins with '${prefix}'.`;
        }
      }
    },
  },
  {
    known: guide,
    *broken(body) {
      const items = itemsOf(body);
      for (const { type, call_id: id } of items) {
        if (type === "function_call" && !answers(items).includes(id)) {
          yield `No tool output found for function call ${id}.`;
        }
      }
      for (const [index, { type, call_id: id }] of items.entries()) {
        if (type !== "function_call_output") continue;
        const called = items
          .slice(0, index)
          .some((one) => one.type === "function_call" && one.call_id === id);
        if (!called) yield `No tool call found for function call output with call_id ${id}.`;
      }
    },
  },
  {
    known: community,
    *broken(body) {
      const items = itemsOf(body);
      const ids = items.flatMap(({ id }) => id ?? []);
      const twice = ids.find((id, index) => ids.indexOf(id) < index);
      if (twice !== undefined) yield `Duplicate item found with id ${twice}.`;
      for (const [index, { type, id }] of items.entries()) {
        const next = items[index + 1];
        const follows = next !== undefined && followers.includes(typeOf(next));
        if (type === "reasoning" && !(follows && next?.role !== "user")) {
          yield `Item '${id}' of type 'reasoning' was provided without its required following item.`;
        }
      }
    },
  },
];

const followers = ["message", "function_call", "reasoning"];

function itemsOf({ input }: ResponsesBody): readonly Item[] {
  return typeof input === "string" ? [{ role: "user", content: input }] : input;
}

function typeOf({ type = "message" }: Item): string {
  return type;
}

function answers(items: readonly Item[]) {
  return items.flatMap(({ type, call_id }) => (type === "function_call_output" ? [call_id] : []));
}

function textOf({ content = "" }: Item): string {
  return typeof content === "string" ? content : content.map(({ text = "" }) => text).join("");
}

export const openaiResponses: Api<ResponsesBody> = {
  rules: responsesRules,
  see: (body) =>
    itemsOf(body).flatMap((item): Seen[] => {
      if (item.type === "function_call_output") {
        return [{ who: "tool", text: String(item.output) }];
      }
      if (item.role === undefined) return [];
      const who = item.role === "developer" ? "system" : (item.role as "user");
      return [{ who, text: textOf(item) }];
    }),
  hasTools: ({ tools = [] }) => tools.length > 0,
  isStream: ({ stream = false }) => stream,
  streamType: "text/event-stream",
  answer(answer, stream, { body, path }) {
    const isCompaction = path.endsWith("/compact");
    const made = {
      id: `resp_${newId(24)}`,
      object: isCompaction ? "response.compaction" : "response",
      created_at: 1,
      status: "completed",
      model: body.model,
      output: isCompaction ? compacted(itemsOf(body)) : outputOf(answer),
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
    return stream ? eventsOf(made) : [JSON.stringify(made)];
  },
  refuse: (message) => ({
    status: 400,
    body: { error: { message, type: "invalid_request_error", param: "input", code: null } },
  }),
};

function outputOf(answer: Parameters<Api<unknown>["answer"]>[0]): Item[] {
  if ("calls" in answer) {
    return answer.calls.map(({ name, input }) => ({
      type: "function_call",
      id: `fc_${newId(24)}`,
      call_id: `call_${newId(24)}`,
      name,
      arguments: JSON.stringify(input),
      status: "completed",
    }));
  }
  const thought: Item = {
    type: "reasoning",
    id: `rs_${newId(24)}`,
    summary: [{ type: "summary_text", text: "Hm." }],
    encrypted_content: "c2VjcmV0",
  };
  const said: Item = {
    type: "message",
    id: `msg_${newId(24)}`,
    role: "assistant",
    status: "completed",
    content: [{ type: "output_text", text: answer.text, annotations: [] } as { type: string }],
  };
  return answer.thinks ? [thought, said] : [said];
}

function compacted(input: readonly Item[]): Item[] {
  const kept = input.filter(({ role }) => role === "user").slice(-1);
  const blob = { type: "compaction", id: `cmp_${newId(24)}`, encrypted_content: "c21hbGw=" };
  return [blob, ...kept];
}

function eventsOf(made: { readonly output: readonly Item[] }): string[] {
  const events: { readonly type: string }[] = [];
  const add = (type: string, fields: object) => events.push({ type, ...fields });
  add("response.created", { response: { ...made, output: [], status: "in_progress" } });
  for (const [index, item] of made.output.entries()) {
    const event = { output_index: index, item };
    add("response.output_item.added", event);
    if (item.type === "message") {
      const delta = { item_id: item.id, output_index: index, content_index: 0 };
      add("response.output_text.delta", { ...delta, delta: textOf(item) });
    }
    add("response.output_item.done", event);
  }
  add("response.completed", { response: made });
  return events.map(
    (event, index) =>
      `event: ${event.type}\ndata: ${JSON.stringify({ ...event, sequence_number: index })}\n\n`,
  );
}
