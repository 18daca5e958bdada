/** Transcript entries of the Claude Agent SDK in both layers of a stored message (docs/contract.md), and the other way round. */
import { createHash } from "node:crypto";
import type { SessionKey, SessionStoreEntry } from "@anthropic-ai/claude-agent-sdk";
import type { MessageContentPart, NewMessage, StoredMessage } from "@chatstore/core";
import {
  type CanonicalMessage,
  type CanonicalToolResult,
  objectInput,
  type Part,
  readMessages,
  textOf,
  toCanonical,
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
      ...canonicalOf(entry),
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
  const next = <Entry extends SessionStoreEntry>(entry: Entry): Entry => {
    if (isSpoken(entry) && entry.uuid !== undefined) parentUuid = entry.uuid;
    return entry;
  };
  return readMessages<SessionStoreEntry, SessionStoreEntry>(messages, {
    format: entryFormat,
    own: (entry) => [next(entry)],
    others: (part) => [next(fromCanonical(part, sessionId, parentUuid))],
  }).flat();
}

interface Block {
  readonly type: string;
  readonly [name: string]: unknown;
}

function isSpoken({ type }: SessionStoreEntry): boolean {
  return type === "user" || type === "assistant";
}

function canonicalOf({ type, message }: SessionStoreEntry): CanonicalMessage {
  // Titles, modes, snapshots: the transcript's own, which nobody says.
  const said = isSpoken({ type }) && typeof message === "object" && message !== null;
  // The message's own id is the model's.
  const canonical = said && toCanonical({ ...message, type: "message", role: type, id: undefined });
  return canonical || { role: "assistant", content: "" };
}

function fromCanonical(
  { id, createdAt, role, content, options, answer }: Part,
  sessionId: string,
  parentUuid: string | null,
): SessionStoreEntry {
  const calls = (options?.toolCall ?? []).map(({ id, name, input }) => ({
    type: "tool_use",
    id,
    name,
    input: objectInput(input),
  }));
  const type = role === "assistant" ? "assistant" : "user";
  const blocks = answer ? [toResult(answer)] : [...blocksOf(content), ...calls];
  const [only] = blocks as { readonly text?: unknown }[];
  const isText = blocks.length === 1 && type === "user" && typeof only?.text === "string";
  const uuid = uuidOf(id);
  return {
    type,
    uuid,
    parentUuid,
    sessionId,
    timestamp: createdAt.toISOString(),
    isSidechain: false,
    userType: "external",
    message: {
      role: type,
      ...(type === "assistant" && { id: `msg_${uuid}`, type: "message", model: "unknown" }),
      content: isText ? only?.text : blocks,
    },
  };
}

function toResult({ id, result, isError }: CanonicalToolResult): Block {
  const content = textOf(result);
  return { type: "tool_result", tool_use_id: id, content, ...(isError && { is_error: true }) };
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
