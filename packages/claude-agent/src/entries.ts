/** Transcript entries of the Claude Agent SDK in both layers of a stored message (docs/contract.md), and the other way round. */
import { createHash } from "node:crypto";
import type { SessionKey, SessionStoreEntry } from "@anthropic-ai/claude-agent-sdk";
import type { MessageContentPart, NewMessage, StoredMessage } from "@chatstore/core";
import {
  type CanonicalMessage,
  type CanonicalToolCall,
  type CanonicalToolResult,
  nativeOf,
  withNative,
} from "@chatstore/core/bridge";

/** The first form of entries; the interface is an alpha one. */
const entryFormat = "claude-agent/1";

/** An entry as it is stored: exactly, under its `uuid` where it has one, and beside it what other frameworks read. */
export function toMessage(entry: SessionStoreEntry): NewMessage {
  const { uuid, timestamp } = entry;
  const time = new Date(timestamp ?? Number.NaN);
  return withNative(
    {
      ...toCanonical(entry),
      ...(typeof uuid === "string" && uuid !== "" && { id: uuid }),
      ...(Number.isFinite(time.getTime()) && { createdAt: time }),
    },
    entryFormat,
    entry,
  );
}

/**
 * The entries of a session: the bridge's own exactly as they were given, others by what their canonical layer says, each
 * a reply to the one before.
 *
 * @throws UnsupportedFormatError for entries of another version.
 */
export function toEntries(
  messages: readonly StoredMessage[],
  { sessionId }: SessionKey,
): SessionStoreEntry[] {
  let parentUuid: string | null = null;
  return messages.map((message) => {
    const native = nativeOf<SessionStoreEntry>(message, entryFormat);
    const entry: SessionStoreEntry =
      native ?? fromCanonical(message as CanonicalMessage & StoredMessage, sessionId, parentUuid);
    if (isSpoken(entry) && entry.uuid !== undefined) parentUuid = entry.uuid;
    return entry;
  });
}

interface Block {
  readonly type: string;
  readonly [name: string]: unknown;
}

function isBlock(value: unknown): value is Block {
  return typeof value === "object" && value !== null;
}

function isSpoken({ type }: SessionStoreEntry): boolean {
  return type === "user" || type === "assistant";
}

function toCanonical(entry: SessionStoreEntry): CanonicalMessage {
  const { type, message } = entry;
  const content = (message as { content?: unknown } | null | undefined)?.content;
  // Titles, modes, snapshots: the transcript's own, which nobody says.
  if ((type !== "user" && type !== "assistant") || content === undefined) {
    return { role: "assistant", content: "" };
  }
  if (typeof content === "string") return { role: type, content };
  const blocks = (Array.isArray(content) ? content : []).filter(isBlock);
  const parts = blocks.flatMap(toPart);
  const texts = parts.map((part) => (part.type === "text" ? part.text : undefined));
  const said = texts.every((text) => text !== undefined) ? texts.join("\n") : parts;
  const toolCall = blocks.filter((block) => block.type === "tool_use").map(toCall);
  const results = blocks.filter((block) => block.type === "tool_result").map(toResult);
  const [only] = results;
  if (results.length === 1 && only !== undefined && said.length === 0) {
    return { role: type, content: only.result, options: { toolResult: only } };
  }
  const options = {
    ...(toolCall.length > 0 && { toolCall }),
    ...(results.length > 0 && { toolResult: results }),
  };
  return { role: type, content: said, ...(Object.keys(options).length > 0 && { options }) };
}

function toCall({ id, name, input }: Block): CanonicalToolCall {
  const isObject = typeof input === "object" && input !== null;
  return { id: String(id), name: String(name), input: isObject ? input : String(input ?? "") };
}

function toResult({ tool_use_id: id, content, is_error }: Block): CanonicalToolResult {
  const blocks = Array.isArray(content) ? content.filter(isBlock) : [{ text: content ?? "" }];
  const texts = blocks.map(({ text, ...block }) =>
    typeof text === "string" ? text : JSON.stringify(block),
  );
  return { id: String(id), result: texts.join("\n"), isError: is_error === true };
}

function toPart(block: Block): MessageContentPart[] {
  const { type, text, source } = block;
  if (type === "text" && typeof text === "string") return [{ type, text }];
  const { data, media_type, url } = (source ?? {}) as Readonly<Record<string, unknown>>;
  if (type === "image" && typeof url === "string")
    return [{ type: "image_url", image_url: { url } }];
  if ((type === "image" || type === "document") && typeof data === "string") {
    const mimeType = typeof media_type === "string" ? media_type : "application/octet-stream";
    return [{ type: type === "image" ? "image" : "file", data, mimeType }];
  }
  return [];
}

function fromCanonical(
  { id, createdAt, role, content, options }: CanonicalMessage & StoredMessage,
  sessionId: string,
  parentUuid: string | null,
): SessionStoreEntry {
  const results = [options?.toolResult ?? []].flat() as CanonicalToolResult[];
  const answers = results.map(({ id, result, isError }) => ({
    type: "tool_result",
    tool_use_id: id,
    content: typeof result === "string" ? result : JSON.stringify(result),
    ...(isError && { is_error: true }),
  }));
  const calls = (options?.toolCall ?? []).map(({ id, name, input }) => ({
    type: "tool_use",
    id,
    name,
    input: typeof input === "string" ? parsed(input) : input,
  }));
  const type = role === "assistant" ? "assistant" : "user";
  // What a tool answered is its answer; a message's text repeats it.
  const said = answers.length > 0 && calls.length === 0 ? [] : blocksOf(content);
  const only = said[0];
  const blocks = [...answers, ...said, ...calls];
  const isText = blocks.length === 1 && type === "user" && only?.type === "text";
  return {
    type,
    uuid: uuidOf(id),
    parentUuid,
    sessionId,
    timestamp: createdAt.toISOString(),
    isSidechain: false,
    userType: "external",
    message: {
      role: type,
      ...(type === "assistant" && { id: `msg_${uuidOf(id)}`, type: "message", model: "unknown" }),
      content: isText ? (only as unknown as { text: string }).text : blocks,
    },
  };
}

function blocksOf(content: string | readonly MessageContentPart[]): Block[] {
  if (typeof content === "string") return content === "" ? [] : [{ type: "text", text: content }];
  return content.map((part): Block => {
    if (part.type === "text") return { type: "text", text: part.text };
    if (part.type === "image_url") {
      return { type: "image", source: { type: "url", url: part.image_url.url } };
    }
    const source = { type: "base64", media_type: part.mimeType, data: part.data };
    if (part.type === "image") return { type: "image", source };
    if (part.type === "file") return { type: "document", source };
    return { type: "text", text: `[${part.type}]` };
  });
}

function parsed(input: string): object {
  try {
    const value: unknown = JSON.parse(input);
    if (typeof value === "object" && value !== null) return value;
  } catch {
    // A text that a model gave as arguments.
  }
  return { input };
}

const uuidForm = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** The message's id, or one that is always the same for it: entries are replies to each other by UUID. */
function uuidOf(id: string): string {
  if (uuidForm.test(id)) return id;
  const hex = createHash("sha256").update(id).digest("hex");
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `8${hex.slice(13, 16)}`,
    `8${hex.slice(17, 20)}`,
    hex.slice(20, 32),
  ].join("-");
}
