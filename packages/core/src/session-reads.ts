/** What a backend returns, as callers get it. */
import type { ChatStoreBackend, Key, MessageRecord, Range, SessionRecord } from "./backend.js";
import { decodeMessage, decodeState } from "./codec.js";
import { CorruptSessionError } from "./errors.js";
import type { StoredMessage } from "./messages.js";
import type { SessionKey } from "./session-key.js";
import type { Session, SessionInfo } from "./store-types.js";
import { fromPortable } from "./text.js";

export type Found =
  | { readonly session: SessionRecord; readonly records: readonly MessageRecord[] }
  | undefined;

/** Read, and refuse a session that has not as many messages as it should: that costs nothing. */
export async function load(
  backend: ChatStoreBackend,
  target: Key,
  range: Range,
  signal: AbortSignal,
) {
  const found = await backend.read(target, range, signal);
  if (typeof found !== "object" || !("from" in range)) return found;
  const { messageCount } = found.session;
  const expected = Math.min(range.limit ?? messageCount, messageCount);
  if (found.records.length === expected) return found;
  throw new CorruptSessionError(
    `Session ${target.id} is damaged: ${countReason(expected, found.records.length)}. Restore a backup`,
  );
}

export function decodeMessages<Message extends object>(found: Found): StoredMessage<Message>[] {
  return (found?.records ?? []).map(
    (record) => decodeMessage(record) as unknown as StoredMessage<Message>,
  );
}

export function decodeSession(found: Found): Session | undefined {
  if (found === undefined) return undefined;
  const { session } = found;
  const state = Object.entries(session.state).map(([name, data]) => [
    name,
    decodeState(data, name),
  ]);
  return { ...toSessionInfo(session), state: Object.fromEntries(state) };
}

export function toSessionInfo(record: SessionRecord): SessionInfo {
  return {
    key: record.key as SessionKey,
    version: record.version,
    messageCount: record.messageCount,
    createdAt: new Date(record.createdAt),
    updatedAt: new Date(record.updatedAt),
    ...(record.expiresAt !== null && { expiresAt: new Date(record.expiresAt) }),
    ...(record.title !== null && { title: fromPortable(record.title) }),
    ...(record.unreadable && { unreadable: true }),
  };
}

export function countReason(expected: number, found: number): string {
  return `there should be ${expected} messages, and ${found} are found`;
}
