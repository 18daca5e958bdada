import {
  foldSessionSummary,
  type SessionKey,
  type SessionStore,
  type SessionStoreEntry,
  type SessionSummaryEntry,
} from "@anthropic-ai/claude-agent-sdk";
import {
  type ChatStore,
  DuplicateMessageError,
  InvalidOptionsError,
  type NewMessage,
  parseSessionKey,
  type SessionInfo,
  type SessionKey as StoreKey,
  sessionKey,
  VersionConflictError,
} from "@chatstore/core";
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

/** What a session was after our last write. */
interface Remembered {
  readonly version: string | null;
  readonly messageCount: number;
  readonly summary: SessionSummaryEntry | undefined;
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
        await this.#append(key, id, withoutRepeats(entries.slice(start, start + batchEntries)));
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

  /** One batch, in which no uuid comes twice. */
  async #append(
    key: SessionKey,
    id: StoreKey,
    entries: readonly SessionStoreEntry[],
  ): Promise<void> {
    let messages: NewMessage[] = entries.map(toMessage);
    // Subagents have no summary.
    if (key.subpath !== undefined) return this.#addOrReplace(id, messages);
    for (let attempt = 1; ; attempt++) {
      const known = this.#remembered.get(id) ?? (await this.#recall(id));
      const { mtime: _, ...summary } = foldSessionSummary(known.summary, key, [...entries], {
        mtime: 0,
      });
      try {
        const written = await this.#store.addMessages(id, messages, {
          ifVersion: known.version,
          state: { [entry]: summary },
        });
        const isNew = written.messageCount === known.messageCount + entries.length;
        this.#remember(id, { ...written, summary: { ...summary, mtime: 0 } });
        // What was there before was folded a second time, after what came later.
        if (!isNew) await this.#foldAnew(key, id);
        return;
      } catch (error) {
        this.#remembered.delete(id);
        if (error instanceof DuplicateMessageError) {
          messages = await this.#replace(id, messages, error.ids);
        } else if (!(error instanceof VersionConflictError) || attempt === maxAttempts) throw error;
      }
    }
  }

  async #addOrReplace(id: StoreKey, messages: NewMessage[]): Promise<void> {
    try {
      await this.#store.addMessages(id, messages);
    } catch (error) {
      if (!(error instanceof DuplicateMessageError)) throw error;
      await this.#store.addMessages(id, await this.#replace(id, messages, error.ids));
    }
  }

  /** Put entries in the place of those with the same uuid, and return the others. */
  async #replace(
    id: StoreKey,
    messages: readonly NewMessage[],
    ids: readonly string[],
  ): Promise<NewMessage[]> {
    const replaced = new Set(ids);
    const isReplaced = (message: NewMessage) => replaced.has(message.id ?? "");
    for (const message of messages.filter(isReplaced)) {
      await this.#store.updateMessage(id, message.id as string, message);
    }
    return messages.filter((message) => !isReplaced(message));
  }

  /** Summarise a whole session, until nobody has changed it meanwhile. */
  async #foldAnew(key: SessionKey, id: StoreKey): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const { session, messages } = await this.#store.readSession(id);
      if (session === undefined) return;
      const { mtime: _, ...summary } = foldSessionSummary(
        undefined,
        key,
        toEntries(messages, key),
        {
          mtime: 0,
        },
      );
      try {
        const written = await this.#store.setState(
          id,
          { [entry]: summary },
          { ifVersion: session.version },
        );
        this.#remember(id, { ...written, summary: { ...summary, mtime: 0 } });
        return;
      } catch (error) {
        this.#remembered.delete(id);
        if (!(error instanceof VersionConflictError) || attempt === maxAttempts) throw error;
      }
    }
  }

  async #recall(id: StoreKey): Promise<Remembered> {
    const session = await this.#store.getSession(id);
    const summary = session?.state[entry] as Omit<SessionSummaryEntry, "mtime"> | undefined;
    return {
      version: session?.version ?? null,
      messageCount: session?.messageCount ?? 0,
      summary: summary && { ...summary, mtime: 0 },
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

/** Of entries with one uuid the newest, at the place of the first. */
function withoutRepeats(entries: readonly SessionStoreEntry[]): SessionStoreEntry[] {
  const byId = new Map<unknown, SessionStoreEntry>();
  for (const one of entries) byId.set(one.uuid || Symbol("without uuid"), one);
  return [...byId.values()];
}
