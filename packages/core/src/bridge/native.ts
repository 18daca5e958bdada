/**
 * The two layers of a message that a bridge stores (docs/contract.md): the canonical one, which every reader understands,
 * and beside it, under `native`, exactly what the framework gave, with a stamp of its format.
 */
import { UnsupportedFormatError } from "../errors.js";
import type { ChatMessage, Native, NativeFormat, NewMessage } from "../messages.js";

/** A call of a tool, as LlamaIndex has it. */
export interface CanonicalToolCall {
  readonly id: string;
  readonly name: string;
  /** The arguments: an object, or the text that a model gave as one. */
  readonly input: object | string;
}

/** What a tool answered, as LlamaIndex has it. */
export interface CanonicalToolResult {
  /** Of the call. */
  readonly id: string;
  /** As the model is shown it. */
  readonly result: string;
  readonly isError: boolean;
}

/** What the options of a canonical message say of tools. A bridge may add the options of its framework. */
export interface CanonicalOptions {
  /** The tools that an `assistant` message calls. */
  readonly toolCall?: readonly CanonicalToolCall[];
  /**
   * What a tool answered: one, in a `user` message of its own; or, where a framework keeps call and answer in one message,
   * a list of them beside `toolCall`. {@link unfold} makes the first form of the second.
   */
  readonly toolResult?: CanonicalToolResult | readonly CanonicalToolResult[];
}

/** The canonical layer of a message. */
export type CanonicalMessage = NewMessage<ChatMessage<CanonicalOptions>>;

/**
 * A canonical message with its native form beside it: what a bridge stores.
 *
 * @param format Framework and major version of the form, for example `ai-sdk/5`.
 */
export function withNative<Message extends object, Value>(
  message: Message,
  format: NativeFormat,
  value: Value,
): Message & { native: Native<Value> } {
  return { ...message, native: { format, value } };
}

/**
 * The native form of a stored message. `undefined` when it has none, or another framework's: then the canonical layer is
 * what there is to read.
 *
 * @param format The form that the caller reads.
 * @throws UnsupportedFormatError for another version of the same framework's form, and for a stamp that is none.
 * @example const stored = nativeOf<UIMessage>(message, "ai-sdk/5") ?? toUIMessage(message);
 */
export function nativeOf<Value = unknown>(
  message: { readonly id?: unknown; readonly native?: unknown },
  format: NativeFormat,
): Value | undefined {
  const { id, native } = message;
  if (native === undefined) return undefined;
  const stamp = parse((native as Partial<Native> | null)?.format);
  if (stamp === undefined) {
    throw new UnsupportedFormatError(
      `The native form of message ${String(id)} has no stamp such as "${format}"`,
    );
  }
  const wanted = parse(format);
  if (stamp.framework !== wanted?.framework) return undefined;
  if (stamp.version === wanted.version) return (native as Native<Value>).value;
  throw new UnsupportedFormatError(
    `The native form of message ${String(id)} is ${stamp.framework}/${stamp.version}, this bridge reads ${format}: ` +
      (stamp.version > wanted.version ? "upgrade it" : "read it with the bridge that wrote it"),
  );
}

/**
 * A message that holds calls together with their answers as the messages that other frameworks have for it: the calls, one
 * answer each, and what was said. Every other message as it is. What comes last keeps the id
 * and the annotations.
 */
export function unfold(message: CanonicalMessage): CanonicalMessage[] {
  const { toolCall, toolResult, ...others } = message.options ?? {};
  if (toolResult === undefined || (toolCall === undefined && !Array.isArray(toolResult))) {
    return [message];
  }
  const { id, native, annotations, options, ...said } = message;
  const results = [toolResult].flat() as CanonicalToolResult[];
  const parts: CanonicalMessage[] = results.map((one) => ({
    ...said,
    role: "user",
    content: one.result,
    options: { toolResult: one },
  }));
  if (toolCall !== undefined) parts.unshift({ ...said, content: "", options: { toolCall } });
  if (message.content.length > 0 || parts.length === 0) {
    parts.push(Object.keys(others).length > 0 ? { ...said, options: others } : said);
  }
  const last = parts.pop() as CanonicalMessage;
  parts.push({ ...last, ...(id !== undefined && { id }), ...(annotations && { annotations }) });
  return parts;
}

function parse(format: unknown): { framework: string; version: number } | undefined {
  const parts = typeof format === "string" ? /^([a-z][a-z0-9-]*)\/(\d{1,9})$/.exec(format) : null;
  return parts === null ? undefined : { framework: parts[1] as string, version: Number(parts[2]) };
}
