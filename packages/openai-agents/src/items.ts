/** Items of the OpenAI Agents SDK in both layers of a stored message (docs/contract.md), and other frameworks' messages as items. */
import type { MessageContentPart, NewMessage, StoredMessage } from "@chatstore/core";
import {
  type CanonicalMessage,
  type CanonicalToolCall,
  type CanonicalToolResult,
  toCanonical as coreCanonical,
  inputOf,
  type Part,
  readMessages,
  textOf,
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
 * The items of stored messages: the bridge's own exactly as they were given, others by what their canonical layer says, as many as each
 * amounts to.
 *
 * @param messages Oldest first: the answer of a tool is named after the call before it.
 * @throws UnsupportedFormatError for items of another major version of the SDK.
 */
export function toItems(messages: readonly StoredMessage[]): AgentInputItem[][] {
  return readMessages<AgentInputItem, AgentInputItem>(messages, {
    format: itemFormat,
    own: (item) => [item],
    others: fromCanonical,
  });
}

function toCanonical(item: AgentInputItem): CanonicalMessage {
  const { type } = item;
  if (type === undefined || type === "message") {
    return said(item) ?? { role: item.role, content: "" };
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
  if (type === "function_call" || type === "function_call_result") {
    const canonical = said(item);
    if (canonical !== undefined) return canonical;
  }
  if (isAnswer(item)) {
    const { output = "", tools } = item as { output?: unknown; tools?: unknown };
    const { status } = item as { status?: string };
    const content = textOf(tools ?? output);
    const toolResult = { id, result: content, isError: status === "incomplete" };
    return { role: "user", content, options: { toolResult } };
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

/** As core reads it, without what the store has a place of its own for. */
function said(item: AgentInputItem): CanonicalMessage | undefined {
  const { id: _, ...fields } = item;
  return coreCanonical(fields);
}

function fromCanonical({ role, content, options, answer }: Part): AgentInputItem[] {
  if (answer !== undefined) {
    const { id, name = "tool", result, isError } = answer;
    const status = isError ? "incomplete" : "completed";
    return [{ type: "function_call_result", callId: id, name, status, output: textOf(result) }];
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
