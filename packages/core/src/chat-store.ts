import { setImmediate } from "node:timers/promises";
import {
  checkCursor,
  checkDate,
  checkFunction,
  checkId,
  checkInteger,
  checkPosition,
  checkVersion,
  encodeTitle,
  readOptions,
  refuseMore,
  toRange,
} from "./arguments.js";
import {
  type Capabilities,
  type ChatStoreBackend,
  type Edit,
  type Key,
  type MessageRecord,
  type MigrateMode,
  type Outcome,
  type Patch,
  type Range,
  type SessionRecord,
  unchanged,
  type Version,
  type Write,
} from "./backend.js";
import { backlogsOf, writeBacklogs } from "./bridge/backlog.js";
import { decodeMessage, decodeState, encodeMessage, encodeState } from "./codec.js";
import { randomUUID } from "./crypto.js";
import {
  BackendError,
  type ChatStoreError,
  ClosedError,
  CorruptSessionError,
  DuplicateMessageError,
  InvalidMessageError,
  InvalidOptionsError,
  LimitExceededError,
  MessageNotFoundError,
  SessionNotFoundError,
  UnsupportedFormatError,
  VersionConflictError,
} from "./errors.js";
import type { ChatMessage, NewMessage, StoredMessage } from "./messages.js";
import { type Lanes, OperationQueue } from "./operation-queue.js";
import { type Attempt, pause, Runner, toChatStoreError } from "./runner.js";
import {
  type SessionKey,
  type SessionKeyParts,
  sessionKey,
  toKey,
  toScope,
  userKey,
} from "./session-key.js";
import { show } from "./show.js";
import { setBackend } from "./store-backend.js";
import { fromPortable } from "./text.js";
import { type Damage, damageIn, unreadable } from "./verify.js";
import { throwFailures, WritePromise } from "./write-promise.js";

/** Sizes beyond which a write is refused before anything is written. Adjustable downwards. */
export interface Limits {
  /** Bytes of one encoded message. Default and maximum: 8 MiB (a photograph in base64). */
  readonly messageBytes: number;
  /** Messages in one `addMessages`. Default and maximum: 1,000. */
  readonly batchMessages: number;
  /** Bytes of one `addMessages`. Default and maximum: 12 MiB. */
  readonly batchBytes: number;
  /** Bytes of the entries of one `setState`. Default and maximum: 256 KiB. */
  readonly stateBytes: number;
}

const defaultLimits: Limits = {
  messageBytes: 8 * 1024 * 1024,
  batchMessages: 1_000,
  batchBytes: 12 * 1024 * 1024,
  stateBytes: 256 * 1024,
};

/** A shorter `ttl` was probably meant as seconds. */
const suspiciousTtl = 60_000;
let warnedOfTtl = false;
const maxTitleBytes = 1_024;
const maxPageSize = 1_000;
/** Of a user's sessions so many are looked at before an erasure: several may have changed at one instant. */
const newestSessions = 20;
/** A hundred years: expiry stays a date that every engine can hold. */
const maxTtl = 100 * 365 * 24 * 3_600_000;
/** setTimeout's own maximum. */
const maxTimeout = 2 ** 31 - 1;
/** Failures of dropped writes that are kept for `flush()`; an outage must not fill the memory. */
const maxKeptFailures = 100;

/** Options that every backend takes, beside its own. */
export interface ChatStoreOptions {
  /**
   * Expire a session when it has not changed for this many milliseconds (G11), at most a hundred years. Default: never. Every write of this
   * handle sets the session's expiry anew; without `ttl` a handle leaves expiry alone.
   */
  readonly ttl?: number | undefined;
  /**
   * Milliseconds after which an operation gives up, its retries and its place in the queue included. Default: 5,000. While
   * the engine answers, an operation does not time out for those queued before it.
   */
  readonly timeout?: number | undefined;
  /** What `open()` does about the schema. `auto` (default) creates and migrates it, `check` only checks, `off` trusts. */
  readonly migrate?: MigrateMode | undefined;
  readonly limits?: Partial<Limits> | undefined;
  /**
   * Return the same handle for the same options, also after a development server's hot reload. Default: false. Needs
   * options of plain data, beside the listeners; anything else is an `InvalidOptionsError`.
   */
  readonly shared?: boolean | undefined;
  /** Hears of each failed write whose promise nobody holds. Default: a process warning. */
  readonly onError?: ((error: ChatStoreError) => void) | undefined;
  /** Hears of each danger that `open()` finds, for example a server that may lose data. Default: a process warning. */
  readonly onWarning?: ((warning: string) => void) | undefined;
}

/** What a write did. */
export interface WriteResult {
  /**
   * The version that this write made, for a later `ifVersion`: when somebody has written since, that conflicts. Of a write
   * that had nothing to do the session's version, which others may have made. `null`: the session does not exist.
   */
  readonly version: Version | null;
  /** How many messages the write left. When its answer was lost and others wrote before it was repeated: how many there are now. */
  readonly messageCount: number;
}

/** A write may name the version that the session must have. */
export interface WriteOptions {
  /**
   * Write only if the session still is at this version, or, with `null`, does not exist.
   * Otherwise {@link VersionConflictError}.
   */
  readonly ifVersion?: Version | null | undefined;
}

/** A write of messages may change title and state in the same atomic step. */
export interface MessageWriteOptions extends WriteOptions {
  /** As {@link ChatStore.setTitle} does. Default: it stays. */
  readonly title?: string | null | undefined;
  /** Entries to merge, as {@link ChatStore.setState} does. Default: all stay. */
  readonly state?: Readonly<Record<string, unknown>> | undefined;
}

/** Which messages to read. Nothing: all of them. Results are always oldest first. */
export interface ReadOptions {
  /** The newest n. */
  readonly last?: number | undefined;
  /** Those before the message with this id, the nearest `limit` of them. */
  readonly before?: string | undefined;
  /** Those after the message with this id, the nearest `limit` of them. */
  readonly after?: string | undefined;
  /** At most so many. Without `before` or `after`: the oldest. */
  readonly limit?: number | undefined;
}

/** A session as it is listed. Times are the engine's clock. */
export interface SessionInfo {
  readonly key: SessionKey;
  readonly version: Version;
  readonly messageCount: number;
  readonly createdAt: Date;
  /** Time of the last change. */
  readonly updatedAt: Date;
  readonly expiresAt?: Date;
  readonly title?: string;
  /**
   * Only in lists: what is stored of it is damaged, or of a newer format. Reading it throws the error that says so; the
   * other fields but `key` say nothing. Absent: it can be read.
   */
  readonly unreadable?: true;
}

/** A session with its state. */
export interface Session extends SessionInfo {
  /** Small named JSON documents, each written by its owner with `setState`. */
  readonly state: Readonly<Record<string, unknown>>;
}

/** Which sessions to list. */
export interface ListOptions {
  readonly tenant?: string | undefined;
  /**
   * With a user: newest first. `tenant` omitted then means that user's keys without a tenant. Without a user: all
   * sessions (of the tenant, if given) in engine order.
   */
  readonly user?: string | undefined;
  /** Page size, 1 to 1,000; a page may be shorter. Default: 50. */
  readonly limit?: number | undefined;
  /** From the page before. */
  readonly cursor?: string | undefined;
}

/** What `importSession` writes: a whole session, with its own times. */
export interface SessionImport<Message extends object = ChatMessage> {
  readonly messages: readonly NewMessage<Message>[];
  readonly title?: string | undefined;
  readonly state?: Readonly<Record<string, unknown>> | undefined;
  /** A Date, or its ISO text. */
  readonly createdAt: Date | string;
  readonly updatedAt: Date | string;
  readonly expiresAt?: Date | string | undefined;
}

/**
 * Durable chat memory over a backend. Made by a backend's factory, for example `sqliteChatStore()`.
 *
 * Assignable to LlamaIndex's `BaseChatStore`, whose methods keep their names and meaning and return promises. All
 * methods take keys made by {@link sessionKey} or `rawSessionKey`.
 *
 * - Calls on one session take effect in call order, even when nobody awaits them (G4).
 * - A write resolves when it is durable (G1) and whole (G2).
 * - A failed write rejects. When nobody holds its promise (LlamaIndex drops them), it is no unhandled rejection:
 *   `onError` hears of it, `flush()` and `close()` throw it, later calls go on.
 * - Every method throws `ClosedError` after `close()`, `BackendError` when the engine fails, `TimeoutError` when it does
 *   not answer within `timeout`; all of them reject, none throws at once.
 */
export class ChatStore<Message extends object = ChatMessage> implements AsyncDisposable {
  readonly #backend: ChatStoreBackend;
  readonly #runner: Runner;
  readonly #queue = new OperationQueue();
  readonly #ttl: number | undefined;
  readonly #timeout: number;
  readonly #limits: Limits;
  readonly #onError: (error: ChatStoreError) => void;
  readonly #failures: ChatStoreError[] = [];
  #closing: Promise<void> | undefined;
  /** From `close()` on, once what waited to be written before it is written. */
  #refusing = false;
  #laneNumber = 0;

  /** @param options Of the store; a backend's own are not looked at. */
  constructor(backend: ChatStoreBackend, options: ChatStoreOptions = {}) {
    this.#backend = backend;
    setBackend(this, backend);
    this.#ttl = checkInteger("ttl", options.ttl, 1, maxTtl);
    this.#timeout = checkInteger("timeout", options.timeout, 1, maxTimeout) ?? 5_000;
    this.#limits = checkLimits(options.limits);
    this.#onError =
      checkFunction("onError", options.onError) ??
      ((error) => warn(`A write that nobody awaits failed: ${error.message}`));
    const given = checkFunction("onWarning", options.onWarning);
    const onWarning = given ?? warn;
    this.#runner = new Runner(backend, {
      timeout: this.#timeout,
      migrate: checkMigrate(options.migrate),
      onWarning,
    });
    if (this.#ttl !== undefined && this.#ttl < suspiciousTtl && (given || !warnedOfTtl)) {
      warnedOfTtl ||= given === undefined;
      onWarning(
        `ttl is ${this.#ttl} milliseconds: a conversation is forgotten when it rests for so long. For seconds, write ttl: ${this.#ttl} * 1000`,
      );
    }
  }

  /** The backend's name, for example `sqlite`. */
  get name(): string {
    return this.#backend.name;
  }

  /** What the backend promises with the settings in force. */
  get capabilities(): Capabilities {
    return this.#backend.capabilities;
  }

  /** What `open()` found that may lose data. Empty before it. */
  get warnings(): readonly string[] {
    return this.#runner.warnings;
  }

  /** Whether `close()` was called. */
  get closed(): boolean {
    return this.#closing !== undefined;
  }

  /**
   * Connect, check the server, create or migrate the schema. Idempotent. Any operation opens lazily; calling it at
   * start-up fails fast.
   */
  async open(): Promise<void> {
    this.#refuseWhenClosed();
    await this.#runner.run(() => Promise.resolve(), performance.now());
  }

  /** Append one message, or with `index` insert it: `Array.splice`'s rules, at or past the end appends. Inserting costs O(session). */
  addMessage(key: string, message: NewMessage<Message>, index?: number): Promise<WriteResult> {
    if (index === undefined) return this.addMessages(key, [message]);
    return this.#write(key, undefined, [], (target) => {
      // Not fresh: a repetition looks for it.
      const { fresh, ...record } = this.#encodeBatch([message])[0] as MessageRecord;
      checkPosition(index);
      return this.#compareAndSet(target, undefined, { from: "start" }, (records, write, signal) =>
        // A present id is judged where appending judges it (G5).
        records.length === 0 ||
        index >= records.length ||
        records.some(({ id }) => id === record.id)
          ? this.#backend.append(target, [record], undefined, write, signal)
          : this.#backend.replace(
              target,
              records.toSpliced(index, 0, record),
              undefined,
              write,
              signal,
            ),
      );
    });
  }

  /**
   * Append a batch: whole or not at all (G2), one round trip whatever the length of the history (G12). Ids that are
   * stored already with equal content are skipped, so repeating a call is safe (G5). An empty batch without title and
   * state does nothing.
   *
   * @throws InvalidMessageError, SerializationError, LimitExceededError before anything is written;
   *   DuplicateMessageError, VersionConflictError.
   */
  addMessages(
    key: string,
    messages: readonly NewMessage<Message>[],
    options?: MessageWriteOptions,
  ): Promise<WriteResult> {
    return this.#write(key, options, messageWrite, (target, ifVersion, given) => {
      const records = this.#encodeBatch(messages);
      refuseRepeatedIds(target, records);
      return this.#append(target, records, this.#encodePatch(given), ifVersion);
    });
  }

  /**
   * Replace all messages, atomically. Title and state stay unless given. Costs O(session); any number of messages.
   *
   * @throws as {@link addMessages} does. BackendError with `outcome: "unknown"` when the connection broke and it cannot
   *   be told whether the replacement happened.
   */
  setMessages(
    key: string,
    messages: readonly NewMessage<Message>[],
    options?: MessageWriteOptions,
  ): Promise<WriteResult> {
    return this.#write(key, options, messageWrite, (target, ifVersion, given) =>
      this.#replaceAll(target, messages, given, ifVersion),
    );
  }

  /**
   * Replace everything after a message by others, in one atomic step: "regenerate", "edit and resend", a continued answer, a
   * changed end of a conversation. Costs what goes and what comes, whatever stays; with `ifVersion` one request of the
   * caller's, without it the version is read first. An id that goes may come again, with other content too.
   *
   * @param id The last message that stays; `null`: none, then this is {@link setMessages}.
   * @param messages At most a batch (`limits`) after an id; none: {@link deleteMessagesAfter}.
   * @throws MessageNotFoundError when the message is gone; DuplicateMessageError for the id of a message that stays;
   *   and as {@link setMessages} does.
   */
  replaceMessagesAfter(
    key: string,
    id: string | null,
    messages: readonly NewMessage<Message>[],
    options?: MessageWriteOptions,
  ): Promise<WriteResult> {
    return this.#write(key, options, messageWrite, (target, ifVersion, given) => {
      if (id === null) return this.#replaceAll(target, messages, given, ifVersion);
      const records = this.#encodeBatch(messages);
      refuseRepeatedIds(target, records);
      const patch = this.#encodePatch(given);
      const edit = { op: "replaceAfter", id: checkId(id), records, patch } as const;
      return this.#edit(target, ifVersion, undefined, () => edit);
    });
  }

  /**
   * Replace one message in place. Its id stays, its `createdAt` too unless given. Equal content is no change (G5).
   *
   * @throws MessageNotFoundError, and as {@link addMessages} does.
   */
  updateMessage(
    key: string,
    id: string,
    message: NewMessage<Message>,
    options?: WriteOptions,
  ): Promise<WriteResult> {
    return this.#write(key, options, write, (target, ifVersion) => {
      const stays = checkId(id);
      const [record] = this.#encodeBatch([message]) as [MessageRecord];
      if (!record.fresh && record.id !== stays) {
        throw new InvalidMessageError(
          `its id is ${show(fromPortable(record.id))}, not ${show(id)}: an id cannot be changed`,
        );
      }
      const { createdAt: given } = message as { createdAt?: unknown };
      const createdAt = given === undefined || given === null ? null : record.createdAt;
      const { digest, data } = record;
      return this.#edit(target, ifVersion, undefined, () => ({
        op: "update",
        id: stays,
        digest,
        data,
        createdAt,
      }));
    });
  }

  /** Remove the message at a position: `Array.splice`'s rules (negative counts from the end; past the end does nothing). */
  deleteMessage(key: string, index: number): Promise<WriteResult> {
    return this.#write(key, undefined, [], (target) => {
      checkPosition(index);
      return this.#edit(target, undefined, { from: "start" }, (records) => ({
        op: "remove",
        ids: idsOf(records.slice(index).slice(0, 1)),
      }));
    });
  }

  /** Remove the newest message: undo. Does nothing in an empty session. */
  deleteLastMessage(key: string, options?: WriteOptions): Promise<WriteResult> {
    return this.#write(key, options, write, (target, ifVersion) =>
      this.#edit(target, ifVersion, { from: "end", limit: 1 }, (records) => ({
        op: "remove",
        ids: idsOf(records),
      })),
    );
  }

  /**
   * Remove everything after a message. {@link replaceMessagesAfter} also puts something in its place.
   *
   * @throws MessageNotFoundError when the message is gone.
   */
  deleteMessagesAfter(key: string, id: string, options?: WriteOptions): Promise<WriteResult> {
    return this.#write(key, options, write, (target, ifVersion) => {
      const edit = {
        op: "replaceAfter",
        id: checkId(id),
        records: [],
        patch: undefined,
      } as const;
      return this.#edit(target, ifVersion, undefined, () => edit);
    });
  }

  /**
   * Erase the session: messages, state and title (G14). Does nothing to an absent one.
   *
   * @throws BackendError with `outcome: "unknown"` when the connection broke and somebody has changed the session, or begun it
   *   anew, since: a repetition would erase what others wrote after it.
   */
  deleteMessages(key: string): Promise<WriteResult> {
    return this.#write(key, undefined, [], async (target) => {
      let before: Version | undefined;
      await this.#run(this.#lanes(target), async (signal, _, unknown) => {
        const found = await ifReadable(
          this.#backend.read(target, { from: "end", limit: 0 }, signal),
        );
        const version = typeof found === "object" ? found.session.version : undefined;
        if (!unknown) before = version;
        else if (version !== undefined && version !== before) throw unknownOutcome(target.id);
        return this.#backend.erase({ key: target }, signal);
      });
      return { version: null, messageCount: 0 };
    });
  }

  /**
   * Merge named JSON documents into the session's state; `null` removes an entry. Entry names are letters, digits,
   * `_` and `-`, at most 64, beginning with a letter. Creates an absent session.
   */
  setState(
    key: string,
    entries: Readonly<Record<string, unknown>>,
    options?: WriteOptions,
  ): Promise<WriteResult> {
    return this.#write(key, options, write, (target, ifVersion) =>
      this.#append(target, [], { state: this.#encodeState(entries) }, ifVersion),
    );
  }

  /** Name the session for people; `null` removes the title. At most 1,024 bytes. Creates an absent session. */
  setTitle(key: string, title: string | null, options?: WriteOptions): Promise<WriteResult> {
    return this.#write(key, options, write, (target, ifVersion) =>
      this.#append(target, [], { title: encodeTitle(title, maxTitleBytes) }, ifVersion),
    );
  }

  /**
   * Copy messages, state and title to a session that does not exist.
   *
   * @param options `upTo`: id of the last message to copy. Default: all.
   * @throws SessionNotFoundError, MessageNotFoundError; VersionConflictError when `to` exists.
   */
  forkSession(
    from: string,
    to: string,
    options?: { readonly upTo?: string | undefined },
  ): Promise<WriteResult> {
    return this.#write(to, undefined, [], (target) => {
      const source = toKey(from);
      const given = readOptions<{ upTo?: unknown }>("the options of forkSession", options, [
        "upTo",
      ]);
      const upTo = given.upTo === undefined ? undefined : checkId(given.upTo);
      const write = this.#newWrite(null);
      const look = async (signal: AbortSignal) => {
        const found = await this.#load(source, { from: "start" }, signal);
        if (found === undefined || found === "missing") throw new SessionNotFoundError(from);
        const end = upTo === undefined ? -1 : found.records.findIndex(({ id }) => id === upTo);
        if (upTo !== undefined && end < 0)
          throw new MessageNotFoundError(from, [fromPortable(upTo)]);
        const records = upTo === undefined ? found.records : found.records.slice(0, end + 1);
        const { title, state } = found.session;
        return { records, patch: { title, state } };
      };
      let copy: Awaited<ReturnType<typeof look>> | undefined;
      return this.#runWrite(
        target,
        write,
        async (signal, _, unknown) => {
          // What may have been copied is what a repetition copies, whatever has become of its source.
          if (!unknown) copy = undefined;
          copy ??= await look(signal);
          const { records, patch } = copy;
          const outcome = await this.#backend.replace(target, records, patch, write, signal);
          return unknown ? afterUnknown(outcome, target, write) : outcome;
        },
        this.#lanes(source, target),
      );
    });
  }

  /**
   * Write a whole session that does not exist yet, with its own times: for migration and import.
   *
   * @throws VersionConflictError when the session exists.
   */
  importSession(key: string, session: SessionImport<Message>): Promise<WriteResult> {
    return this.#write(key, undefined, [], (target) => {
      const { messages, title, state, createdAt, updatedAt, expiresAt } = readOptions<
        SessionImport<Message>
      >("the session to import", session, importMembers);
      const records = this.#encode(messages);
      refuseRepeatedIds(target, records);
      const patch: Patch = {
        title: encodeTitle(title ?? null, maxTitleBytes),
        state: this.#encodeState(state ?? {}),
      };
      const times = {
        createdAt: checkDate("createdAt", createdAt),
        updatedAt: checkDate("updatedAt", updatedAt),
        expiresAt: expiresAt === undefined ? null : checkDate("expiresAt", expiresAt),
      };
      const write = { ...this.#newWrite(null), times };
      return this.#runWrite(target, write, async (signal, _, unknown) => {
        const outcome = await this.#backend.replace(target, records, patch, write, signal);
        return unknown ? afterUnknown(outcome, target, write) : outcome;
      });
    });
  }

  /**
   * The messages of a session, oldest first; none when there is no such session. The newest n and a page cost their own
   * size, whatever the length of the history (G12).
   *
   * @throws MessageNotFoundError when the message that `before` or `after` names is gone.
   */
  async getMessages(key: string, options?: ReadOptions): Promise<StoredMessage<Message>[]> {
    return decodeMessages(await this.#read(key, options));
  }

  /** The session without its messages; `undefined` when there is none. */
  async getSession(key: string): Promise<Session | undefined> {
    return decodeSession(await this.#read(key, { last: 0 }));
  }

  /** Session and messages of one snapshot: both belong to one version. See {@link getMessages}. */
  async readSession(
    key: string,
    options?: ReadOptions,
  ): Promise<{ session: Session | undefined; messages: StoredMessage<Message>[] }> {
    const found = await this.#read(key, options);
    return { session: decodeSession(found), messages: decodeMessages(found) };
  }

  async #read(key: string, options: ReadOptions | undefined): Promise<Found> {
    this.#refuseWhenClosed();
    const target = toKey(key);
    const range = toRange(options);
    const found = await this.#run(this.#lanes(target), (signal) =>
      this.#load(target, range, signal),
    );
    if (found !== "missing") return found;
    const anchor = "before" in range ? range.before : "after" in range ? range.after : "";
    throw new MessageNotFoundError(key, [fromPortable(anchor)]);
  }

  /**
   * Check a session against the digests of its messages, and that each is found by its id: after a disk failed, or a backup was
   * restored. No read does that by itself: it would take a third to a half longer, and two to three times as long with tool
   * calls. Title and times have no digest. Holds the session in memory; one round trip per message.
   *
   * @returns what is damaged; nothing when all is well.
   * @throws SessionNotFoundError.
   */
  async verifySession(key: string): Promise<Damage[]> {
    this.#refuseWhenClosed();
    const target = toKey(key);
    return this.#run(this.#lanes(target), async (signal) => {
      for (;;) {
        const found = await this.#backend
          .read(target, { from: "start" }, signal)
          .catch((error: unknown) => [unreadable(error)]);
        if (Array.isArray(found)) return found;
        if (found === undefined || found === "missing") throw new SessionNotFoundError(key);
        const { session, records } = found;
        const damages = damageIn(session, records);
        const { messageCount } = session;
        if (messageCount !== records.length) {
          damages.push({ kind: "lost", reason: countReason(messageCount, records.length) });
        }
        for (const { id } of records) {
          const beside = await this.#backend.read(target, { after: id, limit: 0 }, signal);
          if (beside !== "missing") continue;
          damages.push({ kind: "lost", id: fromPortable(id), reason: "it is not found by its id" });
        }
        const now = await this.#backend.read(target, { from: "end", limit: 0 }, signal);
        // What somebody has removed meanwhile is not lost.
        if (typeof now === "object" && now.session.version === session.version) return damages;
        signal.throwIfAborted();
      }
    });
  }

  /** Read, and refuse a session that has not as many messages as it should: that costs nothing. */
  async #load(target: Key, range: Range, signal: AbortSignal) {
    const found = await this.#backend.read(target, range, signal);
    if (typeof found !== "object" || !("from" in range)) return found;
    const { messageCount } = found.session;
    const expected = Math.min(range.limit ?? messageCount, messageCount);
    if (found.records.length === expected) return found;
    throw new CorruptSessionError(
      `Session ${target.id} is damaged: ${countReason(expected, found.records.length)}. Restore a backup`,
    );
  }

  /** The keys of all sessions, in engine order. Holds all keys in memory: prefer {@link listSessions}. */
  async getKeys(): Promise<IterableIterator<SessionKey>> {
    const keys = new Set<SessionKey>();
    let cursor: string | undefined;
    do {
      const page = await this.listSessions({ limit: maxPageSize, cursor });
      for (const session of page.sessions) keys.add(session.key);
      cursor = page.cursor;
    } while (cursor !== undefined);
    return keys.values();
  }

  /**
   * One page of sessions; there are more while `cursor` is defined. A session that changes meanwhile may repeat or be
   * missed in a user's list.
   */
  async listSessions(options: ListOptions): Promise<{ sessions: SessionInfo[]; cursor?: string }> {
    this.#refuseWhenClosed();
    if (options === undefined) {
      throw new InvalidOptionsError("Whose sessions? Give { user }, or {} for those of everybody");
    }
    const { user, tenant, ...page } = readOptions<ListOptions>("the options of a list", options, [
      "tenant",
      "user",
      "limit",
      "cursor",
    ]);
    const limit = checkInteger("limit", page.limit, 1, maxPageSize) ?? 50;
    const after = checkCursor(page.cursor);
    const cursor = after === undefined ? {} : { cursor: after };
    if (user === undefined && tenant !== undefined) toScope({ tenant, user: "any" });
    const query =
      user === undefined
        ? { limit, ...cursor, ...(tenant !== undefined && { tenant }) }
        : { limit, ...cursor, scope: toScope({ tenant, user }) };
    const waits = this.#queue.busy(
      "scope" in query ? laneOfScope(sessionKey({ tenant, user: query.scope.user })) : () => true,
    );
    const found = await this.#run({ takes: [`list ${this.#laneNumber++}`], waits }, (signal) =>
      this.#backend.list(query, signal),
    );
    return {
      sessions: found.sessions.map(toSessionInfo),
      ...(found.cursor !== undefined && { cursor: found.cursor }),
    };
  }

  /**
   * Erase a user: all sessions, expired and orphaned data included (G14). Sessions created meanwhile are untouched.
   * Resolves to the number of sessions erased; where an answer was lost, to the number of those that were left to the repetition.
   *
   * @throws BackendError with `outcome: "unknown"` when the connection broke and somebody has changed or begun a session of
   *   this user since.
   */
  deleteSessions(scope: {
    readonly tenant?: string | undefined;
    readonly user: string;
  }): Promise<number> {
    return WritePromise.of(
      () => {
        this.#refuseWhenClosed();
        const given = readOptions<SessionKeyParts>("whose sessions to erase", scope, userParts);
        const target = toScope(given);
        const lane = sessionKey(given);
        const waits = this.#queue.busy(laneOfScope(lane));
        let before: readonly SessionRecord[] = [];
        return this.#run({ takes: [`user ${lane}`], waits }, async (signal, _, unknown) => {
          const newest = { scope: target, limit: newestSessions };
          const page = await ifReadable(this.#backend.list(newest, signal));
          const sessions = page?.sessions ?? [];
          if (!unknown) before = sessions;
          else if (haveChanged(sessions, before)) throw unknownOutcome(lane);
          return this.#backend.erase({ scope: target }, signal);
        });
      },
      (error) => this.#dropped(error),
    );
  }

  /** Remove expired sessions where the engine does not do it by itself. Resolves to their number. Run it from a timer. */
  async purgeExpired(): Promise<number> {
    this.#refuseWhenClosed();
    return this.#run({ takes: [`purge ${this.#laneNumber++}`], waits: [] }, (signal) =>
      this.#backend.purge(signal),
    );
  }

  /**
   * Wait for the writes that this handle, and bridges on it, have queued. Throws what failed since the last
   * call and nobody saw: the error, or an `AggregateError` of several.
   */
  async flush(): Promise<void> {
    await this.#writeBacklogs();
    await this.#settle();
  }

  async #writeBacklogs(): Promise<void> {
    const failures = await writeBacklogs(this);
    this.#failures.push(...failures.map(toChatStoreError));
  }

  async #settle(): Promise<void> {
    await this.#queue.drained();
    // A failed write is heard of after its lane is free, in the same turn of the event loop.
    await setImmediate();
    throwFailures(this.#failures.splice(0));
  }

  /**
   * Wait for queued writes (at most `timeout`), then release only what the store opened. Idempotent. Throws what
   * {@link flush} would, after everything is released.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** `await using store = …` closes it. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    const stop = setTimeout(() => this.#runner.stop(), this.#timeout);
    if (backlogsOf(this).size > 0) await this.#writeBacklogs();
    this.#refusing = true;
    await this.#queue.drained();
    this.#runner.stop();
    await this.#backend.close();
    // Not before: a backend may have nothing open that a process would wait for, and it must not end in the middle.
    clearTimeout(stop);
    await this.#settle();
  }

  /** Validate at once, queue, and turn every failure into a rejection that somebody hears of. */
  #write(
    key: string,
    options: MessageWriteOptions | undefined,
    names: readonly string[],
    start: (
      target: Key,
      ifVersion: Version | null | undefined,
      given: MessageWriteOptions,
    ) => Promise<WriteResult>,
  ): Promise<WriteResult> {
    return WritePromise.of(
      () => {
        this.#refuseWhenClosed();
        const target = toKey(key);
        const given = readOptions<MessageWriteOptions>("the options of a write", options, names);
        return start(target, checkVersion(given.ifVersion), given);
      },
      (error) => this.#dropped(error),
    );
  }

  #replaceAll(
    target: Key,
    messages: readonly NewMessage<Message>[],
    options: MessageWriteOptions,
    ifVersion: Version | null | undefined,
  ): Promise<WriteResult> {
    const records = this.#encode(messages);
    refuseRepeatedIds(target, records);
    const patch = this.#encodePatch(options);
    return this.#compareAndSet(target, ifVersion, undefined, (_, write, signal) =>
      this.#backend.replace(target, records, patch, write, signal),
    );
  }

  #append(
    target: Key,
    records: readonly MessageRecord[],
    patch: Patch | undefined,
    ifVersion: Version | null | undefined,
  ): Promise<WriteResult> {
    const write = this.#newWrite(ifVersion);
    if (records.length === 0 && patch === undefined) {
      return this.#runWrite(target, write, async (signal) => {
        const found = await this.#backend.read(target, { from: "end", limit: 0 }, signal);
        return unchanged(typeof found === "object" ? found.session : undefined);
      });
    }
    return this.#runWrite(target, write, async (signal, attempt, unknown) => {
      // After a first attempt an id may be stored that was fresh before.
      const batch = attempt === 1 ? records : records.map(({ fresh, ...record }) => record);
      const outcome = await this.#backend.append(target, batch, patch, write, signal);
      return unknown ? afterUnknown(outcome, target, write) : outcome;
    });
  }

  /**
   * A write that must not be repeated blindly. Without the caller's `ifVersion` it reads the version, requires it, and
   * starts over when another writer was faster. With an attempt of unknown outcome behind it, it repeats exactly that
   * attempt: its token or its version tells whether it happened, and when neither does, the error says so.
   */
  #compareAndSet(
    target: Key,
    ifVersion: Version | null | undefined,
    range: Range | undefined,
    apply: (
      records: readonly MessageRecord[],
      write: Write,
      signal: AbortSignal,
    ) => Promise<Outcome>,
  ): Promise<WriteResult> {
    const write = this.#newWrite(ifVersion);
    let planned: Plan | undefined;
    return this.#runWrite(target, write, async (signal, _, unknown) => {
      if (!unknown) planned = undefined;
      for (;;) {
        planned ??= await this.#plan(target, write, range, signal);
        const outcome = await apply(planned.records, planned.write, signal);
        if (unknown) return afterUnknown(outcome, target, planned.write);
        if (outcome.status !== "conflict") return outcome;
        if (ifVersion !== undefined) return outcome;
        if (range === undefined) {
          // Nothing but the version was read, and the conflict told the new one. A pause would make it stale again.
          planned = { write: { ...write, ifVersion: outcome.version }, records: [] };
        } else {
          planned = undefined;
          // The shortest pause: whoever waits longer and longer never wins against a busy session.
          await pause(1, signal);
        }
        signal.throwIfAborted();
      }
    });
  }

  #edit(
    target: Key,
    ifVersion: Version | null | undefined,
    range: Range | undefined,
    plan: (records: readonly MessageRecord[]) => Edit,
  ): Promise<WriteResult> {
    return this.#compareAndSet(target, ifVersion, range, (records, write, signal) =>
      this.#backend.edit(target, plan(records), write, signal),
    );
  }

  async #plan(
    target: Key,
    write: Write,
    range: Range | undefined,
    signal: AbortSignal,
  ): Promise<Plan> {
    if (range === undefined && write.ifVersion !== undefined) return { write, records: [] };
    const found = await this.#load(target, range ?? { from: "end", limit: 0 }, signal);
    if (found === undefined || found === "missing") {
      return { write: { ...write, ifVersion: write.ifVersion ?? null }, records: [] };
    }
    // A given null must conflict with this session, not be taken for "not given".
    const ifVersion = write.ifVersion === undefined ? found.session.version : write.ifVersion;
    return { write: { ...write, ifVersion }, records: found.records };
  }

  #newWrite(ifVersion: Version | null | undefined): Write {
    return {
      next: randomUUID(),
      ...(ifVersion !== undefined && { ifVersion }),
      ...(this.#ttl !== undefined && { ttlMs: this.#ttl }),
    };
  }

  async #runWrite(
    target: Key,
    write: Write,
    attempt: Attempt<Outcome>,
    lanes = this.#lanes(target),
  ): Promise<WriteResult> {
    const outcome = await this.#run(lanes, attempt);
    switch (outcome.status) {
      case "applied":
      case "unchanged":
        return { version: outcome.version, messageCount: outcome.messageCount };
      case "conflict":
        throw new VersionConflictError(target.id, write.ifVersion ?? null, outcome.version);
      case "duplicate":
        throw new DuplicateMessageError(target.id, outcome.ids.map(fromPortable), "the session");
      case "missing":
        throw new MessageNotFoundError(target.id, outcome.ids.map(fromPortable));
    }
  }

  #dropped(error: unknown): void {
    const failure = toChatStoreError(error);
    if (this.#failures.length < maxKeptFailures) this.#failures.push(failure);
    this.#onError(failure);
  }

  #encodeBatch(messages: readonly unknown[]): MessageRecord[] {
    const { batchMessages, batchBytes } = this.#limits;
    return this.#encode(messages, batchMessages, batchBytes);
  }

  #encode(
    messages: readonly unknown[],
    most = Number.POSITIVE_INFINITY,
    mostBytes = Number.POSITIVE_INFINITY,
  ): MessageRecord[] {
    const length = lengthOf(messages);
    refuseMore("batchMessages", most, length, "append in several calls");
    const records: MessageRecord[] = [];
    let bytes = 0;
    for (let index = 0; index < length; index++) {
      const record = encodeMessage(
        messages[index],
        `messages[${index}]`,
        this.#limits.messageBytes,
      );
      bytes += record.data.length;
      refuseMore("batchBytes", mostBytes, bytes, "append in several calls");
      records.push(record);
    }
    if (mostBytes < Number.POSITIVE_INFINITY) {
      const exact = records.reduce((sum, { data }) => sum + Buffer.byteLength(data), 0);
      refuseMore("batchBytes", mostBytes, exact, "append in several calls");
    }
    return records;
  }

  #encodePatch({ title, state }: MessageWriteOptions): Patch | undefined {
    if (title === undefined && state === undefined) return undefined;
    return {
      ...(title !== undefined && { title: encodeTitle(title, maxTitleBytes) }),
      ...(state !== undefined && { state: this.#encodeState(state) }),
    };
  }

  #encodeState(entries: Readonly<Record<string, unknown>>): Record<string, string | null> {
    const { stateBytes } = this.#limits;
    const tooMuch = (size: number) =>
      new LimitExceededError("stateBytes", stateBytes, size, "keep large documents elsewhere");
    let bytes = 0;
    const encoded = entriesOf(entries).map(([name, value]): [string, string | null] => {
      if (!/^[A-Za-z][A-Za-z0-9_-]{0,63}$/.test(name)) {
        throw new InvalidOptionsError(
          `The state entry ${show(name)} has no valid name: use letters, digits, _ and -, at most 64, beginning with a letter`,
        );
      }
      if (value === null) return [name, null];
      const data = encodeState(value, name, stateBytes, tooMuch);
      bytes += Buffer.byteLength(data);
      if (bytes > stateBytes) throw tooMuch(bytes);
      return [name, data];
    });
    return Object.fromEntries(encoded);
  }

  #run<T>(lanes: Lanes, attempt: Attempt<T>): Promise<T> {
    const issued = performance.now();
    return this.#queue.run(lanes, () => this.#runner.run(attempt, issued));
  }

  #lanes(...targets: Key[]): Lanes {
    return {
      takes: targets.map(({ id }) => id),
      waits: targets.map((target) => `user ${userKey(target)}`),
    };
  }

  #refuseWhenClosed(): void {
    if (this.#refusing) throw new ClosedError();
  }
}

/**
 * What an outcome says of a write after an attempt that may have happened. A repetition finds the session as others have left
 * it since: what was done is no conflict then, and the version is not its own.
 */
function afterUnknown(outcome: Outcome, target: Key, write: Write): Outcome {
  switch (outcome.status) {
    case "conflict":
    case "duplicate":
      throw unknownOutcome(target.id);
    case "unchanged":
      // At the version that the write required, nobody has changed anything, neither has it.
      return outcome.version === null || outcome.version === write.ifVersion
        ? outcome
        : { ...outcome, version: write.next };
    default:
      return outcome;
  }
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

function unknownOutcome(what: string): BackendError {
  return new BackendError(
    `${what} was changed by somebody else after an attempt of unknown outcome: read it again`,
    { retryable: false, outcome: "unknown" },
  );
}

const write = ["ifVersion"];
const messageWrite = ["ifVersion", "title", "state"];
const userParts = ["tenant", "user"];
/** With what a session that was read has beside them: it can be given as it is. */
const importMembers = [
  "messages",
  "title",
  "state",
  "createdAt",
  "updatedAt",
  "expiresAt",
  ...["key", "version", "messageCount"],
];

/** A write that requires a version, and the records that belong to that. */
interface Plan {
  readonly write: Write;
  readonly records: readonly MessageRecord[];
}

type Found =
  | { readonly session: SessionRecord; readonly records: readonly MessageRecord[] }
  | undefined;

function warn(message: string): void {
  process.emitWarning(message, "ChatstoreWarning");
}

/** The lanes of a user's sessions, and of what concerns all of them. */
function laneOfScope(scope: string): (lane: string) => boolean {
  return (lane) => lane === scope || lane.startsWith(`${scope}/`) || lane === `user ${scope}`;
}

function decodeMessages<Message extends object>(found: Found): StoredMessage<Message>[] {
  return (found?.records ?? []).map(
    (record) => decodeMessage(record) as unknown as StoredMessage<Message>,
  );
}

function decodeSession(found: Found): Session | undefined {
  if (found === undefined) return undefined;
  const { session } = found;
  const state = Object.entries(session.state).map(([name, data]) => [
    name,
    decodeState(data, name),
  ]);
  return { ...toSessionInfo(session), state: Object.fromEntries(state) };
}

function toSessionInfo(record: SessionRecord): SessionInfo {
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

function countReason(expected: number, found: number): string {
  return `there should be ${expected} messages, and ${found} are found`;
}

function idsOf(records: readonly MessageRecord[]): string[] {
  return records.map(({ id }) => id);
}

function refuseRepeatedIds(target: Key, records: readonly MessageRecord[]): void {
  if (records.length === 1) return;
  const seen = new Set<string>();
  const repeated = idsOf(records).filter((id) => seen.size === seen.add(id).size);
  if (repeated.length > 0) {
    throw new DuplicateMessageError(target.id, repeated.map(fromPortable), "the batch");
  }
}

function lengthOf(messages: unknown): number {
  try {
    if (Array.isArray(messages)) return messages.length;
  } catch {
    // A revoked proxy.
  }
  throw new InvalidMessageError(`messages is ${show(messages)}; it must be an array of messages`);
}

function entriesOf(state: unknown): [string, unknown][] {
  try {
    if (typeof state === "object" && state !== null && !Array.isArray(state)) {
      return Object.entries(state);
    }
  } catch (cause) {
    throw new InvalidOptionsError("state cannot be read", { cause });
  }
  throw new InvalidOptionsError(`state is ${show(state)}; it must be an object of named entries`);
}

function checkMigrate(mode: MigrateMode = "auto"): MigrateMode {
  if (mode === "auto" || mode === "check" || mode === "off") return mode;
  throw new InvalidOptionsError(`migrate is ${show(mode)}; it must be "auto", "check" or "off"`);
}

function checkLimits(limits: Partial<Limits> | undefined): Limits {
  const names = Object.keys(defaultLimits) as (keyof Limits)[];
  const given = readOptions<Partial<Limits>>("limits", limits, names);
  const checked: { -readonly [Name in keyof Limits]: number } = { ...defaultLimits };
  for (const name of names) {
    checked[name] =
      checkInteger(`limits.${name}`, given[name], 1, defaultLimits[name]) ?? defaultLimits[name];
  }
  return checked;
}
