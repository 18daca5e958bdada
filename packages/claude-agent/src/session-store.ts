import {
  foldSessionSummary,
  type SessionKey,
  type SessionStore,
  type SessionStoreEntry,
  type SessionSummaryEntry,
} from "@anthropic-ai/claude-agent-sdk";
import {
  type ChatStore,
  InvalidOptionsError,
  parseSessionKey,
  type SessionInfo,
  type SessionKey as StoreKey,
  sessionKey,
  VersionConflictError,
} from "@chatstore/core";
import { upsertMessages } from "@chatstore/core/bridge";
import { toEntries, toMessage } from "./entries.js";

/** The entry of a session's state that holds its summary. */
const entry = "claudeAgent";
/** Sessions whose newest version and summary a handle remembers, so that an append is one round trip. */
const maxRemembered = 1_000;
/** Entries of one atomic append; the SDK sends at most so many. */
const batchEntries = 500;
/** Sessions that are read at once for their summaries. */
const readTogether = 16;
/** Attempts at an append beside others that append to the same session. */
const maxAttempts = 100;

/** Options of {@link claudeSessionStore}. */
export interface ClaudeSessionStoreOptions {
  /** Where the transcripts are kept. One store for the whole process. */
  readonly store: ChatStore;
}

/** A `SessionStore` with all its optional methods. */
export type ClaudeSessionStore = Required<SessionStore>;

/** Its time is the session's. */
type Summary = Omit<SessionSummaryEntry, "mtime">;

/** What a session was after our last write. */
interface Remembered {
  readonly version: string | null;
  readonly messageCount: number;
  readonly summary: Summary | undefined;
}

/**
 * The store's key of a transcript: the project is the tenant, the session the user, a subagent's path the conversation. Another
 * framework reads the transcript under this key.
 *
 * @throws InvalidSessionKeyError for parts that cannot be in a key.
 */
export function claudeSessionKey({ projectKey, sessionId, subpath }: SessionKey): StoreKey {
  return sessionKey({ tenant: projectKey, user: sessionId, conversation: subpath });
}

/**
 * A `SessionStore` of the Claude Agent SDK, kept in a Chatstore store.
 *
 * - A batch is one atomic append, one round trip, together with the session's summary; a crash leaves both or neither.
 * - An entry's `uuid` is its id: what is sent again is stored once, and what comes with other content takes the old one's place.
 *   Entries without one are appended always.
 * - Writers in several processes wait for nobody and lose nothing; all readers see one order.
 * - Times are the engine's clock, for lists and summaries alike.
 * - Deleting a session deletes its subagents' transcripts, and erases them.
 *
 * Its methods reject with what the store's do. The SDK repeats a batch three times, then drops it and says so with a
 * `mirror_error` message: listen for it.
 *
 * @throws InvalidOptionsError when there is no store.
 * @example query({ prompt, options: { sessionStore: claudeSessionStore({ store }), resume: sessionId } })
 */
export function claudeSessionStore(options: ClaudeSessionStoreOptions): ClaudeSessionStore {
  const store = options?.store;
  if (typeof store?.replaceMessagesAfter !== "function") {
    throw new InvalidOptionsError(
      "Which store? Give a Chatstore store: claudeSessionStore({ store })",
    );
  }
  const transcripts = new Transcripts(store);
  // Plain functions: the SDK may call them apart from their object.
  return {
    append: async (key, entries) => transcripts.append(key, entries),
    load: async (key) => transcripts.load(key),
    listSessions: (projectKey) => transcripts.listSessions(projectKey),
    listSessionSummaries: (projectKey) => transcripts.listSessionSummaries(projectKey),
    delete: async (key) => transcripts.delete(key),
    listSubkeys: (key) => transcripts.listSubkeys(key),
  };
}

class Transcripts implements ClaudeSessionStore {
  readonly #store: ChatStore;
  readonly #remembered = new Map<string, Remembered>();
  /** By key: appends of one process keep their order. */
  readonly #lanes = new Map<string, Promise<void>>();

  constructor(store: ChatStore) {
    this.#store = store;
  }

  append(key: SessionKey, entries: SessionStoreEntry[]): Promise<void> {
    const id = claudeSessionKey(key);
    const after = this.#lanes.get(id) ?? Promise.resolve();
    const done = after.then(async () => {
      for (let start = 0; start < entries.length; start += batchEntries) {
        await this.#append(key, id, entries.slice(start, start + batchEntries));
      }
    });
    const settled = done
      .catch(() => undefined)
      .finally(() => {
        if (this.#lanes.get(id) === settled) this.#lanes.delete(id);
      });
    this.#lanes.set(id, settled);
    return done;
  }

  async load(key: SessionKey): Promise<SessionStoreEntry[] | null> {
    const { session, messages } = await this.#store.readSession(claudeSessionKey(key));
    return session === undefined ? null : toEntries(messages, key);
  }

  async listSessions(projectKey: string): Promise<{ sessionId: string; mtime: number }[]> {
    return (await this.#main(projectKey)).map((session) => ({
      sessionId: partsOf(session).user,
      mtime: session.updatedAt.getTime(),
    }));
  }

  async listSessionSummaries(projectKey: string): Promise<SessionSummaryEntry[]> {
    const sessions = await this.#main(projectKey);
    const summaries: SessionSummaryEntry[] = [];
    for (let start = 0; start < sessions.length; start += readTogether) {
      const some = sessions.slice(start, start + readTogether);
      const found = await Promise.all(some.map(({ key }) => this.#store.getSession(key)));
      for (const session of found) {
        if (session === undefined) continue;
        const { user: sessionId } = partsOf(session);
        const { data = {} } = (session.state[entry] ?? {}) as Partial<SessionSummaryEntry>;
        summaries.push({ sessionId, mtime: session.updatedAt.getTime(), data });
      }
    }
    return summaries;
  }

  async delete(key: SessionKey): Promise<void> {
    const id = claudeSessionKey(key);
    // What was appended before is deleted, too.
    await Promise.all(this.#lanes.values());
    this.#remembered.delete(id);
    const { projectKey, sessionId, subpath } = key;
    if (subpath === undefined) {
      await this.#store.deleteSessions({ tenant: projectKey, user: sessionId });
    } else await this.#store.deleteMessages(id);
  }

  async listSubkeys({
    projectKey,
    sessionId,
  }: {
    projectKey: string;
    sessionId: string;
  }): Promise<string[]> {
    const sessions = await this.#all({ tenant: projectKey, user: sessionId });
    return sessions.flatMap((session) => partsOf(session).conversation ?? []);
  }

  async #append(
    key: SessionKey,
    id: StoreKey,
    entries: readonly SessionStoreEntry[],
  ): Promise<void> {
    const messages = entries.map(toMessage);
    // Subagents have no summary.
    if (key.subpath !== undefined) {
      await upsertMessages(this.#store, id, messages);
      return;
    }
    for (let attempt = 1; ; attempt++) {
      const known = this.#remembered.get(id) ?? (await this.#recall(id));
      const summary = fold(known.summary, key, entries);
      try {
        const written = await upsertMessages(this.#store, id, messages, {
          ifVersion: known.version,
          state: { [entry]: summary },
        });
        this.#remember(id, { ...written, summary });
        // What was there before was folded a second time, after what came later.
        const areNew = written.messageCount === known.messageCount + entries.length;
        if (!areNew) await this.#foldAnew(key, id);
        return;
      } catch (error) {
        this.#remembered.delete(id);
        if (!(error instanceof VersionConflictError) || attempt === maxAttempts) throw error;
      }
    }
  }

  /** Summarise a whole session, until nobody has changed it meanwhile. */
  async #foldAnew(key: SessionKey, id: StoreKey): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const { session, messages } = await this.#store.readSession(id);
      if (session === undefined) return;
      const summary = fold(undefined, key, toEntries(messages, key));
      try {
        const written = await this.#store.setState(
          id,
          { [entry]: summary },
          { ifVersion: session.version },
        );
        this.#remember(id, { ...written, summary });
        return;
      } catch (error) {
        this.#remembered.delete(id);
        if (!(error instanceof VersionConflictError) || attempt === maxAttempts) throw error;
      }
    }
  }

  async #recall(id: StoreKey): Promise<Remembered> {
    const session = await this.#store.getSession(id);
    return {
      version: session?.version ?? null,
      messageCount: session?.messageCount ?? 0,
      summary: session?.state[entry] as Summary | undefined,
    };
  }

  #remember(id: StoreKey, known: Remembered): void {
    this.#remembered.delete(id);
    const [oldest] = this.#remembered.keys();
    if (this.#remembered.size >= maxRemembered && oldest !== undefined) {
      this.#remembered.delete(oldest);
    }
    this.#remembered.set(id, known);
  }

  /** The main transcripts of a project. */
  async #main(projectKey: string): Promise<SessionInfo[]> {
    const sessions = await this.#all({ tenant: projectKey });
    return sessions.filter((session) => partsOf(session).conversation === undefined);
  }

  async #all(scope: { tenant: string; user?: string }): Promise<SessionInfo[]> {
    const found = new Map<string, SessionInfo>();
    let cursor: string | undefined;
    do {
      const page = await this.#store.listSessions({ ...scope, limit: 1_000, cursor });
      for (const session of page.sessions) found.set(session.key, session);
      cursor = page.cursor;
    } while (cursor !== undefined);
    return [...found.values()];
  }
}

/** A tenant's sessions have a user each. */
function partsOf({ key }: Pick<SessionInfo, "key">) {
  return parseSessionKey(key) as { readonly user: string; readonly conversation?: string };
}

function fold(
  before: Summary | undefined,
  key: SessionKey,
  entries: readonly SessionStoreEntry[],
): Summary {
  const known = before && { ...before, mtime: 0 };
  const { mtime: _, ...summary } = foldSessionSummary(known, key, [...entries]);
  return summary;
}
