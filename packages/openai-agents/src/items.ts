/** Items of the OpenAI Agents SDK in both layers of a stored message (docs/contract.md), and other frameworks' messages as items. */
import type { MessageContentPart, NewMessage, StoredMessage } from "@chatstore/core";
import {
  type CanonicalMessage,
  type CanonicalToolCall,
  type CanonicalToolResult,
  nativeOf,
  unfold,
  withNative,
} from "@chatstore/core/bridge";
import type { AgentInputItem } from "@openai/agents-core";

/** The SDK has no stable version yet: its items, as they have been since 0.1. */
const itemFormat = "openai-agents/0";

/** An item as it is stored: exactly, and beside it what other frameworks read. */
export function toMessage(item: AgentInputItem): NewMessage {
  return withNative(toCanonical(item), itemFormat, item);
}

/**
 * The items of stored messages: the bridge's own exactly as they were given, others by what their canonical layer says. A
 * message gives at least one.
 *
 * @param messages Oldest first: the answer of a tool is named after the call before it.
 * @throws UnsupportedFormatError for items of another major version of the SDK.
 */
export function toItems(messages: readonly StoredMessage[]): AgentInputItem[][] {
  const names = new Map<string, string>();
  return messages.map((message) => {
    const native = nativeOf<AgentInputItem>(message, itemFormat);
    const parts = unfold(message as CanonicalMessage);
    for (const { options } of parts) {
      for (const { id, name } of options?.toolCall ?? []) names.set(id, name);
    }
    return native === undefined ? parts.flatMap((part) => fromCanonical(part, names)) : [native];
  });
}

function toCanonical(item: AgentInputItem): CanonicalMessage {
  const { type } = item;
  if (type === undefined || type === "message") {
    return { role: item.role, content: contentOf(item.content) };
  }
  if (type === "reasoning") {
    const text = [...item.content, ...(item.rawContent ?? [])].map((part) => part.text).join("\n");
    return { role: "assistant", content: "", options: { reasoning: text } as object };
  }
  if (type === "compaction" || type === "unknown") return { role: "assistant", content: "" };
  if (type === "hosted_tool_call") {
    // The provider ran it: call and answer are one item.
    const { id = "", name, arguments: input = "", output = "", status } = item;
    const result = { id, result: output, isError: status === "failed" };
    return assistant({ id, name, input: inputOf(input) }, result);
  }
  const { callId: id = item.id ?? "" } = item as { callId?: string };
  if (isAnswer(item)) {
    const { output = "", tools } = item as { output?: unknown; tools?: unknown };
    const { status } = item as { status?: string };
    const content = textOf(tools ?? output);
    const toolResult = { id, result: content, isError: status === "incomplete" };
    return { role: "user", content, options: { toolResult } };
  }
  if (type === "function_call") {
    return assistant({ id, name: item.name, input: inputOf(item.arguments) });
  }
  // Calls of the SDK's own tools: a shell, a patch, a computer, a search of tools, a program.
  const {
    type: _,
    id: __,
    callId,
    providerData,
    status,
    ...input
  } = item as Record<string, unknown>;
  return assistant({ id, name: type.replace(/_call$/, ""), input });
}

function assistant(call: CanonicalToolCall, result?: CanonicalToolResult): CanonicalMessage {
  const options = { toolCall: [call], ...(result && { toolResult: [result] }) };
  return { role: "assistant", content: "", options };
}

function isAnswer({ type }: AgentInputItem): boolean {
  return type !== undefined && /_(result|output)$/.test(type);
}

/** Arguments are the text that a model gave: an object where that is the JSON of one. */
function inputOf(text: string): object | string {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? value : text;
  } catch {
    return text;
  }
}

type Part = { readonly type: string } & Readonly<Record<string, unknown>>;

function contentOf(content: string | readonly Part[]): string | MessageContentPart[] {
  if (typeof content === "string") return content;
  const parts = content.map(toPart);
  const texts = parts.map((part) => (part.type === "text" ? part.text : undefined));
  return texts.every((text) => text !== undefined) ? texts.join("\n") : parts;
}

function toPart(part: Part): MessageContentPart {
  const { type } = part;
  const text = part["text"] ?? part["refusal"];
  if (typeof text === "string") return { type: "text", text };
  if (type === "audio") {
    const { audio, format, transcript } = part;
    if (typeof audio === "string") {
      return { type: "audio", data: audio, mimeType: `audio/${format ?? "wav"}` };
    }
    return { type: "text", text: typeof transcript === "string" ? transcript : describe(part) };
  }
  const source = part["image"] ?? part["file"];
  const url = typeof source === "string" ? source : (source as { url?: unknown } | null)?.url;
  if (typeof url !== "string") return { type: "text", text: describe(part) };
  const isImage = type.includes("image");
  const data = /^data:([^;,]*);base64,(.*)$/s.exec(url);
  if (isImage && /^(https?|data):/.test(url)) return { type: "image_url", image_url: { url } };
  if (isImage) return { type: "image", data: url, mimeType: "image/png" };
  if (data) {
    return { type: "file", data: data[2] as string, mimeType: data[1] || octets };
  }
  return /^https?:/.test(url)
    ? { type: "text", text: describe(part) }
    : { type: "file", data: url, mimeType: octets };
}

const octets = "application/octet-stream";

/** What stands for media that are kept elsewhere. */
function describe({ type, providerData, ...rest }: Part): string {
  return `[${type.replace(/^input_/, "")}: ${JSON.stringify(rest)}]`;
}

/** An answer as a model is shown it. */
function textOf(output: unknown): string {
  if (typeof output === "string") return output;
  const parts = Array.isArray(output) ? output : [output];
  const texts = parts.map((part: unknown) => (part as { text?: unknown } | null)?.text);
  return texts.every((text) => typeof text === "string")
    ? texts.join("\n")
    : JSON.stringify(output, binaryAsText);
}

function binaryAsText(_: string, value: unknown): unknown {
  return value instanceof Uint8Array ? Buffer.from(value).toString("base64") : value;
}

function fromCanonical(
  { role, content, options }: CanonicalMessage,
  names: ReadonlyMap<string, string>,
): AgentInputItem[] {
  const results = [options?.toolResult ?? []].flat() as CanonicalToolResult[];
  if (results.length > 0) {
    return results.map(({ id, result, isError }) => ({
      type: "function_call_result",
      callId: id,
      name: names.get(id) ?? "tool",
      status: isError ? "incomplete" : "completed",
      output: typeof result === "string" ? result : textOf(result),
    }));
  }
  const calls = (options?.toolCall ?? []).map(
    ({ id, name, input }): AgentInputItem => ({
      type: "function_call",
      callId: id,
      name,
      status: "completed",
      arguments: typeof input === "string" ? input : JSON.stringify(input),
    }),
  );
  const text = typeof content === "string" ? content : "";
  if (calls.length > 0 && content.length === 0) return calls;
  if (role === "assistant") {
    const parts = typeof content === "string" ? [content] : content.map(asText);
    const said = parts.map((part) => ({ type: "output_text" as const, text: part }));
    return [{ type: "message", role, status: "completed", content: said }, ...calls];
  }
  if (role === "system" || role === "developer" || role === "memory") {
    const said = typeof content === "string" ? text : content.map(asText).join("\n");
    return [{ type: "message", role: "system", content: said }];
  }
  const said = typeof content === "string" ? text : content.map(toInput);
  return [{ type: "message", role: "user", content: said }];
}

function asText(part: MessageContentPart): string {
  return part.type === "text" ? part.text : `[${part.type}]`;
}

type Input = Extract<
  Exclude<Extract<AgentInputItem, { role: "user" }>["content"], string>[number],
  { type: string }
>;

function toInput(part: MessageContentPart): Input {
  switch (part.type) {
    case "text":
      return { type: "input_text", text: part.text };
    case "image_url":
      return { type: "input_image", image: part.image_url.url };
    case "image":
      return { type: "input_image", image: `data:${part.mimeType};base64,${part.data}` };
    case "audio":
      return { type: "audio", audio: part.data, format: part.mimeType.replace(/^audio\//, "") };
    default:
      return { type: "input_file", file: `data:${part.mimeType};base64,${part.data}` };
  }
}
