/** Erasing, which must not be repeated blindly: what others have written after it is not meant. */
import type { ChatStoreBackend, Key, Scope, SessionRecord, Version } from "./backend.js";
import { CorruptSessionError, UnsupportedFormatError } from "./errors.js";
import type { Attempt } from "./runner.js";
import { unknownOutcome } from "./session-writes.js";

/** Of a user's sessions so many are looked at before an erasure: several may have changed at one instant. */
const newestSessions = 20;

/** Erase a session. */
export function eraseSession(backend: ChatStoreBackend, target: Key): Attempt<number> {
  let before: Version | undefined;
  return async (signal, _, unknown) => {
    const found = await ifReadable(backend.read(target, { from: "end", limit: 0 }, signal));
    const version = typeof found === "object" ? found.session.version : undefined;
    if (!unknown) before = version;
    else if (version !== undefined && version !== before) throw unknownOutcome(target.id);
    return backend.erase({ key: target }, signal);
  };
}

/** Erase a user. @param name For errors. */
export function eraseUser(backend: ChatStoreBackend, scope: Scope, name: string): Attempt<number> {
  let before: readonly SessionRecord[] = [];
  return async (signal, _, unknown) => {
    const page = await ifReadable(backend.list({ scope, limit: newestSessions }, signal));
    const sessions = page?.sessions ?? [];
    if (!unknown) before = sessions;
    else if (haveChanged(sessions, before)) throw unknownOutcome(name);
    return backend.erase({ scope }, signal);
  };
}

/** What was read of data that is to be erased; `undefined` where that is damaged. */
async function ifReadable<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading;
  } catch (error) {
    if (error instanceof CorruptSessionError || error instanceof UnsupportedFormatError) return;
    throw error;
  }
}

/** Whether one of a user's newest sessions was changed, or begun, since others were the newest. */
function haveChanged(
  sessions: readonly SessionRecord[],
  before: readonly SessionRecord[],
): boolean {
  const last = before[0]?.updatedAt ?? Number.NEGATIVE_INFINITY;
  const versions = new Set(before.map(({ version }) => version));
  return sessions.some(({ updatedAt, version }) => updatedAt >= last && !versions.has(version));
}
