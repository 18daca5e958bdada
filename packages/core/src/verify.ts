/** Whether a session is as it was written: what a read does not check, since it would cost as much as the read itself. */
import type { ChatStoreBackend, Key, MessageRecord, SessionRecord } from "./backend.js";
import { decodeMessage, decodeState, holdsItsDigest } from "./codec.js";
import {
  type ChatStoreError,
  CorruptSessionError,
  SessionNotFoundError,
  UnsupportedFormatError,
} from "./errors.js";
import { countReason } from "./session-reads.js";
import { fromPortable } from "./text.js";

/** What is wrong with a stored session. */
export interface Damage {
  /**
   * `altered`: a message is not what was written. `unreadable`: a message, a state entry or the whole session cannot be read.
   * `lost`: a message is there and is not found by its id.
   */
  readonly kind: "altered" | "unreadable" | "lost";
  /** Of the message. Absent: it concerns the session. */
  readonly id?: string;
  /** For people. */
  readonly reason: string;
}

/** Damage, of one kind, that an error tells; every other error is thrown. */
function unreadable(error: unknown, id?: string): Damage {
  if (!(error instanceof CorruptSessionError || error instanceof UnsupportedFormatError))
    throw error;
  const reason = (error as ChatStoreError).message;
  return { kind: "unreadable", ...(id !== undefined && { id }), reason };
}

/** The damage that shows in what was read. */
function damageIn(session: SessionRecord, records: readonly MessageRecord[]): Damage[] {
  const damages: Damage[] = [];
  const attempt = (check: () => void, id?: string) => {
    try {
      check();
    } catch (error) {
      damages.push(unreadable(error, id));
    }
  };
  for (const record of records) {
    const id = fromPortable(record.id);
    attempt(() => {
      decodeMessage(record);
      if (holdsItsDigest(record)) return;
      const reason =
        "its text is not the one that was stored: restore a backup, or remove the message";
      damages.push({ kind: "altered", id, reason });
    }, id);
  }
  for (const [name, data] of Object.entries(session.state)) {
    attempt(() => decodeState(data, name));
  }
  return damages;
}

/** Check a session, until nobody has changed it meanwhile. One round trip per message. */
export async function verify(
  backend: ChatStoreBackend,
  target: Key,
  signal: AbortSignal,
): Promise<Damage[]> {
  for (;;) {
    const found = await backend
      .read(target, { from: "start" }, signal)
      .catch((error: unknown) => [unreadable(error)]);
    if (Array.isArray(found)) return found;
    if (found === undefined || found === "missing") throw new SessionNotFoundError(target.id);
    const { session, records } = found;
    const damages = damageIn(session, records);
    const { messageCount } = session;
    if (messageCount !== records.length) {
      damages.push({ kind: "lost", reason: countReason(messageCount, records.length) });
    }
    for (const { id } of records) {
      const beside = await backend.read(target, { after: id, limit: 0 }, signal);
      if (beside !== "missing") continue;
      damages.push({ kind: "lost", id: fromPortable(id), reason: "it is not found by its id" });
    }
    const now = await backend.read(target, { from: "end", limit: 0 }, signal);
    // What somebody has removed meanwhile is not lost.
    if (typeof now === "object" && now.session.version === session.version) return damages;
    signal.throwIfAborted();
  }
}
