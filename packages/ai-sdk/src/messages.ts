/** Messages of the AI SDK in both layers of a stored message (docs/contract.md), and other frameworks' messages as such. */
import { createHash } from "node:crypto";
import {
  InvalidMessageError,
  type MessageContentPart,
  type NewMessage,
  type StoredMessage,
} from "@chatstore/core";
import {
  type CanonicalMessage,
  type CanonicalToolResult,
  nativeOf,
  toCanonical,
  withNative,
} from "@chatstore/core/bridge";
import type { UIMessage } from "ai";
import { isOldFormat, upgraded } from "./old-format.js";

/** Messages with `parts`, as versions 5 to 7 have them. */
const format = "ai-sdk/5";

type Part = UIMessage["parts"][number];
type ToolPart = Extract<Part, { type: "dynamic-tool" }>;

/** A message as it is stored: exactly, and beside it what other frameworks read. */
export function toStored(message: UIMessage, createdAt: NewMessage["createdAt"]): NewMessage {
  const { role, content, options } = toCanonical(message) ?? { role: message.role, content: "" };
  const canonical = { id: message.id, createdAt, role, content, ...(options && { options }) };
  return withNative(canonical, format, message);
}

/**
 * The message that a stored one is: the bridge's own exactly as it was given, others by what they say.
 *
 * @returns `undefined` for what has nothing to show; a string for why it cannot be read.
 * @throws UnsupportedFormatError for a message of another major format.
 */
export function fromStored(
  stored: StoredMessage,
): UIMessage | CanonicalToolResult[] | string | undefined {
  const { native, id } = stored;
  const isOld = (native?.format as string | undefined) === "ai-sdk/4";
  const own = isOld ? native?.value : nativeOf<unknown>(stored, format);
  if (own !== undefined) {
    const message = isOldFormat(own) ? upgraded(own) : own;
    return wrongWith(message) ?? (message as UIMessage);
  }
  const given = native === undefined ? asGiven(stored) : undefined;
  if (given !== undefined) return given;
  const canonical = toCanonical(stored);
  return canonical === undefined
    ? "it holds nothing that a message of the AI SDK can say"
    : fromCanonical(canonical, id);
}

/** A message of the AI SDK that was stored as it is, without a bridge. */
function asGiven(stored: StoredMessage): UIMessage | undefined {
  if (!("parts" in stored) && !("toolInvocations" in stored)) return undefined;
  const { createdAt, ...fields } = stored;
  const message = isOldFormat(fields) ? upgraded(fields) : (fields as Partial<UIMessage>);
  if (wrongWith(message) !== undefined) return undefined; // others have parts, too
  const { id, role, parts, metadata } = message as UIMessage;
  return { id, role, ...(metadata !== undefined && { metadata }), parts };
}

/** What is wrong with the form of a message. */
function wrongWith(message: unknown): string | undefined {
  if (typeof message !== "object" || message === null) return "it is no object";
  const { id, role, parts } = message as Partial<UIMessage>;
  if (typeof id !== "string" || id === "") {
    return 'it has no id: give the stream "originalMessages" and "generateMessageId", as streamOptions() does';
  }
  if (role !== "user" && role !== "assistant" && role !== "system") {
    return `its role is ${JSON.stringify(role)}, not "user", "assistant" or "system"`;
  }
  if (!Array.isArray(parts)) return 'it has no "parts"';
  if (parts.length === 0) return 'its "parts" are empty';
  const wrong = parts.findIndex((part: unknown) => typeof (part as Part | null)?.type !== "string");
  return wrong < 0 ? undefined : `parts[${wrong}] has no "type"`;
}

/**
 * Messages that are given, in the format of today.
 *
 * @throws InvalidMessageError for one that is none, and for an id that comes twice.
 */
export function checked<Message extends UIMessage>(messages: readonly Message[]): Message[] {
  if (!Array.isArray(messages)) throw new InvalidMessageError("messages is not an array");
  const ids = new Set<string>();
  return (messages as readonly Message[]).map((given, index) => {
    const message = (isOldFormat(given) ? upgraded(given) : given) as Message;
    const wrong = wrongWith(message);
    if (wrong !== undefined) throw new InvalidMessageError(`messages[${index}]: ${wrong}`);
    if (ids.size === ids.add(message.id).size) {
      throw new InvalidMessageError(
        `messages[${index}] has the id ${JSON.stringify(message.id)} of a message before it: make each id with generateId()`,
      );
    }
    return message;
  });
}

/** What two messages have in common that say the same: an absent field is an undefined one, and what has travelled by JSON equals what has not. */
export function digestOf(value: unknown): string {
  return createHash("sha256").update(normalised(value)).digest("base64url");
}

function normalised(value: unknown): string {
  const text = JSON.stringify(value, (_, item: unknown) => {
    if (typeof item === "bigint") return `${item}n`;
    if (item instanceof Map || item instanceof Set) return [...item];
    if (typeof item !== "object" || item === null || Array.isArray(item)) return item;
    return Object.fromEntries(
      Object.entries(item).sort(([one], [other]) => (one < other ? -1 : 1)),
    );
  });
  return text ?? "";
}

function fromCanonical(
  { role, content, options }: CanonicalMessage,
  id: string,
): UIMessage | CanonicalToolResult[] | undefined {
  const calls = options?.toolCall ?? [];
  const results = [options?.toolResult ?? []].flat() as CanonicalToolResult[];
  if (results.length > 0 && calls.length === 0) return results;
  const reasoning = (options as { readonly reasoning?: unknown } | undefined)?.reasoning;
  const parts: Part[] = [];
  if (typeof reasoning === "string" && reasoning !== "") {
    parts.push({ type: "reasoning", text: reasoning });
  }
  const said = typeof content === "string" ? [{ type: "text" as const, text: content }] : content;
  const texts = said.filter((part) => part.type !== "text" || part.text !== "").map(toPart);
  // An answer comes after what its message was told; what is said beside a call comes before it.
  if (results.length === 0) parts.push(...texts);
  for (const { id: toolCallId, name: toolName, input } of calls) {
    parts.push({ type: "dynamic-tool", toolCallId, toolName, state: "input-available", input });
  }
  if (results.length > 0) parts.push(...texts);
  if (parts.length === 0) return undefined;
  const speaker = role === "user" || role === "assistant" ? role : "system";
  const message: UIMessage = { id, role: speaker, parts };
  return results.reduce((answered, result) => withResult(answered, result) ?? answered, message);
}

/** A message with the answer to a call in it; `undefined` when the call is not there. */
export function withResult(
  message: UIMessage,
  { id, result, isError }: CanonicalToolResult,
): UIMessage | undefined {
  const index = message.parts.findIndex(
    (part) =>
      part.type === "dynamic-tool" && part.toolCallId === id && part.state === "input-available",
  );
  if (index < 0) return undefined;
  const { type, toolName, toolCallId, input } = message.parts[index] as ToolPart;
  const call = { type, toolName, toolCallId, input } as const;
  const part: ToolPart = isError
    ? { ...call, state: "output-error", errorText: result }
    : { ...call, state: "output-available", output: result };
  return { ...message, parts: message.parts.with(index, part) };
}

function toPart(part: MessageContentPart): Part {
  if (part.type === "text") return { type: "text", text: part.text };
  if (part.type !== "image_url") {
    const url = `data:${part.mimeType};base64,${part.data}`;
    return { type: "file", mediaType: part.mimeType, url };
  }
  const { url } = part.image_url;
  const mediaType = /^data:([^;,]+)/.exec(url)?.[1] ?? "image/*";
  return { type: "file", mediaType, url };
}
