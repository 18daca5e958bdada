/** A stand-in that needs no key: it repeats what you said. Put your model in its place, for example `openai("gpt-5")`. */
import { setTimeout as pause } from "node:timers/promises";
import type { LanguageModel } from "ai";

interface Said {
  readonly role: string;
  readonly content:
    | string
    | readonly {
        readonly type: string;
        readonly text?: string;
        readonly output?: { readonly value?: unknown };
      }[];
}
type Chunk = Readonly<Record<string, unknown>> & { readonly type: string };

async function doStream({ prompt, abortSignal }: { prompt: Said[]; abortSignal?: AbortSignal }) {
  const chunks = answer(prompt);
  const delay = textOf(prompt.findLast(({ role }) => role === "user")).includes("slowly") ? 150 : 0;
  const stream = new ReadableStream<Chunk>({
    async pull(controller) {
      const chunk = chunks.shift();
      if (chunk?.type === "text-delta") await pause(delay);
      if (abortSignal?.aborted) controller.error(abortSignal.reason);
      else if (chunk === undefined) controller.close();
      else controller.enqueue(chunk);
    },
  });
  return { stream };
}

function answer(prompt: readonly Said[]): Chunk[] {
  const last = prompt.at(-1);
  if (last?.role === "tool") {
    const parts = typeof last.content === "string" ? [] : last.content;
    return said(`The tool says ${parts.map(({ output }) => output?.value ?? "").join("")}.`);
  }
  const asked = textOf(last);
  const [, verb, rest] = /^(weather in|delete) (.+)$/.exec(asked) ?? [];
  if (verb === "delete") return call("delete_file", { name: rest });
  if (verb !== undefined) return call("get_weather", { city: rest });
  const questions = prompt.filter(({ role }) => role === "user").map(textOf);
  return said(`You said ${questions.join(", ")}.`);
}

function said(text: string): Chunk[] {
  const id = crypto.randomUUID();
  const words = text.split(/(?<= )/).map((delta) => ({ type: "text-delta", id, delta }));
  return [{ type: "text-start", id }, ...words, { type: "text-end", id }, finish("stop")];
}

function call(toolName: string, input: object): Chunk[] {
  const toolCallId = crypto.randomUUID();
  const chunk = { type: "tool-call", toolCallId, toolName, input: JSON.stringify(input) };
  return [chunk, finish("tool-calls")];
}

function finish(unified: string): Chunk {
  const usage = { inputTokens: { total: 1 }, outputTokens: { total: 1 } };
  return { type: "finish", finishReason: { unified }, usage };
}

function textOf(said: Said | undefined): string {
  if (typeof said?.content === "string") return said.content;
  return (said?.content ?? []).map(({ text = "" }) => text).join("");
}

export const model = {
  specificationVersion: "v3",
  provider: "offline",
  modelId: "offline",
  supportedUrls: {},
  doStream,
} as unknown as LanguageModel;
