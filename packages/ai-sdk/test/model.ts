/** A language model that refuses what providers refuses, and answers by a script: enough to see what it is shown after a restart. */
import { setTimeout as pause } from "node:timers/promises";
import type { LanguageModel } from "ai";

interface Content {
  readonly type: string;
  readonly text?: string;
  readonly toolCallId?: string;
  readonly output?: { readonly value: unknown };
}
interface Said {
  readonly role: string;
  readonly content: string | readonly Content[];
}
type Chunk = { readonly type: string } & Readonly<Record<string, unknown>>;

/** @param slowness Milliseconds between words of what is asked for "slowly". */
export function scriptedModel(slowness = 20): LanguageModel {
  const doStream = async ({
    prompt,
    abortSignal,
  }: {
    prompt: Said[];
    abortSignal?: AbortSignal;
  }) => {
    const reason = wrong(prompt);
    if (reason !== undefined) throw new Error(`The provider refuses: ${reason}`);
    const chunks = answer(prompt);
    const isSlow = lastUser(prompt).includes("slowly");
    let index = 0;
    const stream = new ReadableStream<Chunk>({
      async pull(controller) {
        if (abortSignal?.aborted) return controller.error(abortSignal.reason);
        const chunk = chunks[index++];
        if (chunk === undefined) return controller.close();
        if (isSlow && chunk.type === "text-delta") await pause(slowness);
        controller.enqueue(chunk);
      },
    });
    return { stream };
  };
  const model = {
    specificationVersion: "v3",
    provider: "script",
    modelId: "script",
    supportedUrls: {},
    doStream,
    doGenerate: () => Promise.reject(new Error("It streams")),
  };
  return model as unknown as LanguageModel;
}

/** Why a provider refuses a prompt. */
function wrong(prompt: readonly Said[]): string | undefined {
  const parts = prompt.flatMap(({ content }) => (typeof content === "string" ? [] : content));
  const calls = parts.filter(({ type }) => type === "tool-call");
  const results = parts.filter(({ type }) => type === "tool-result");
  for (const { toolCallId: id } of calls) {
    if (!results.some((one) => one.toolCallId === id)) return `no result for tool call ${id}`;
  }
  for (const { toolCallId: id } of results) {
    if (!calls.some((one) => one.toolCallId === id)) return `no tool call for result ${id}`;
  }
  return prompt.some(({ content }) => content.length === 0) ? "an empty message" : undefined;
}

function answer(prompt: readonly Said[]): Chunk[] {
  const last = prompt.at(-1) as Said;
  const asked = lastUser(prompt);
  if (last.role === "tool") {
    if (asked.startsWith("walk") && !JSON.stringify(prompt).includes("get_news")) {
      return [call("get_news", {}), finish("tool-calls")];
    }
    const results = (last.content as Content[]).filter(({ type }) => type === "tool-result");
    return said(
      `The tool says ${results.map(({ output }) => String(output?.value ?? output?.["reason" as never] ?? "no")).join(", ")}`,
    );
  }
  const [, verb, rest] = /^(weather in|walk|delete|where) ?(.*)$/.exec(asked) ?? [];
  if (verb === "weather in" || verb === "walk") {
    const calls = (rest as string).split(" and ").map((city) => call("get_weather", { city }));
    return [...text("Let me see."), ...calls, finish("tool-calls")];
  }
  if (verb === "delete") return [call("delete_file", { name: rest }), finish("tool-calls")];
  if (verb === "where") return [call("get_location", {}), finish("tool-calls")];
  if (asked === "fail") throw new Error("The provider is down");
  const questions = prompt.filter(({ role }) => role === "user").map(textOf);
  return said(`You said: ${questions.join(" | ")}`);
}

let number = 0;

function call(toolName: string, input: object): Chunk {
  const toolCallId = `call_${process.pid}_${++number}`;
  return { type: "tool-call", toolCallId, toolName, input: JSON.stringify(input) };
}

function text(content: string): Chunk[] {
  const id = `text_${++number}`;
  const words = content.split(/(?<= )/);
  return [
    { type: "text-start", id },
    ...words.map((delta) => ({ type: "text-delta", id, delta })),
    { type: "text-end", id },
  ];
}

function said(content: string): Chunk[] {
  return [{ type: "stream-start", warnings: [] }, ...text(content), finish("stop")];
}

function finish(unified: string): Chunk {
  const usage = {
    inputTokens: { total: 1, noCache: 1, cacheRead: 0, cacheWrite: 0 },
    outputTokens: { total: 1, text: 1, reasoning: 0 },
  };
  return { type: "finish", finishReason: { unified, raw: unified }, usage };
}

function lastUser(prompt: readonly Said[]): string {
  return textOf(prompt.findLast(({ role }) => role === "user") as Said);
}

function textOf({ content }: Said): string {
  if (typeof content === "string") return content;
  return content.map((part) => part.text ?? `[${part.type}]`).join("");
}
