import { setImmediate } from "node:timers/promises";
import {
  checkCursor,
  checkDate,
  checkFunction,
  checkId,
  checkInteger,
  checkPosition,
  checkVersion,
  readOptions,
  refuseUndefined,
  toRange,
} from "./arguments.js";
import type {
  Capabilities,
  ChatStoreBackend,
  Key,
  MessageRecord,
  MigrateMode,
  Patch,
  Version,
} from "./backend.js";
import { backlogsOf, writeBacklogs } from "./bridge/backlog.js";
import { eraseSession, eraseUser } from "./erasing.js";
import {
  type ChatStoreError,
  ClosedError,
  InvalidMessageError,
  InvalidOptionsError,
  MessageNotFoundError,
  SessionNotFoundError,
} from "./errors.js";
import type { ChatMessage, NewMessage, StoredMessage } from "./messages.js";
import { type Lanes, OperationQueue } from "./operation-queue.js";
import { RecordEncoder } from "./record-encoder.js";
import { type Attempt, Runner, toChatStoreError } from "./runner.js";
import {
  type SessionKey,
  type SessionKeyParts,
  sessionKey,
  toKey,
  toScope,
  userKey,
} from "./session-key.js";
import { decodeMessages, decodeSession, type Found, load, toSessionInfo } from "./session-reads.js";
import { afterUnknown, SessionWrites } from "./session-writes.js";
import { show } from "./show.js";
import { setBackend } from "./store-backend.js";
import type {
  ChatStoreOptions,
  ListOptions,
  MessageWriteOptions,
  ReadOptions,
  Session,
  SessionImport,
  SessionInfo,
  WriteOptions,
  WriteResult,
} from "./store-types.js";
import { fromPortable } from "./text.js";
import { type Damage, verify } from "./verify.js";
import { throwFailures, WritePromise } from "./write-promise.js";

/** A shorter `ttl` was probably meant as seconds. */
const suspiciousTtl = 60_000;
let warnedOfTtl = false;
const maxPageSize = 1_000;
/** A hundred years: expiry stays a date that every engine can hold. */
const maxTtl = 100 * 365 * 24 * 3_600_000;
/** setTimeout's own maximum. */
const maxTimeout = 2 ** 31 - 1;
/** Failures of dropped writes that are kept for `flush()`; an outage must not fill the memory. */
const maxKeptFailures = 100;

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
  readonly #writes: SessionWrites;
  readonly #timeout: number;
  readonly #encoder: RecordEncoder;
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
    const ttl = checkInteger("ttl", options.ttl, 1, maxTtl);
    this.#writes = new SessionWrites(backend, ttl, (targets, attempt) =>
      this.#runOn(targets, attempt),
    );
    this.#timeout = checkInteger("timeout", options.timeout, 1, maxTimeout) ?? 5_000;
    this.#encoder = new RecordEncoder(options.limits);
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
    if (ttl !== undefined && ttl < suspiciousTtl && (given || !warnedOfTtl)) {
      warnedOfTtl ||= given === undefined;
      onWarning(
        `ttl is ${ttl} milliseconds: a conversation is forgotten when it rests for so long. For seconds, write ttl: ${ttl} * 1000`,
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
      const { fresh, ...record } = this.#encoder.batch(target, [message])[0] as MessageRecord;
      checkPosition(index);
      return this.#writes.compareAndSet(
        target,
        undefined,
        { from: "start" },
        (records, write, signal) =>
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
    return this.#write(key, options, messageWriteNames, (target, ifVersion, given) => {
      const records = this.#encoder.batch(target, messages);
      return this.#writes.append(target, records, this.#encoder.patch(given), ifVersion);
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
    return this.#write(key, options, messageWriteNames, (target, ifVersion, given) =>
      this.#writes.replaceAll(
        target,
        this.#encoder.all(target, messages),
        this.#encoder.patch(given),
        ifVersion,
      ),
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
    return this.#write(key, options, messageWriteNames, (target, ifVersion, given) => {
      if (id === null)
        return this.#writes.replaceAll(
          target,
          this.#encoder.all(target, messages),
          this.#encoder.patch(given),
          ifVersion,
        );
      const records = this.#encoder.batch(target, messages);
      const patch = this.#encoder.patch(given);
      const edit = { op: "replaceAfter", id: checkId(id), records, patch } as const;
      return this.#writes.edit(target, ifVersion, undefined, () => edit);
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
    return this.#write(key, options, writeNames, (target, ifVersion) => {
      const stays = checkId(id);
      const [record] = this.#encoder.batch(target, [message]) as [MessageRecord];
      if (!record.fresh && record.id !== stays) {
        throw new InvalidMessageError(
          `its id is ${show(fromPortable(record.id))}, not ${show(id)}: an id cannot be changed`,
        );
      }
      const { createdAt: given } = message as { createdAt?: unknown };
      const createdAt = given === undefined || given === null ? null : record.createdAt;
      const { digest, data } = record;
      return this.#writes.edit(target, ifVersion, undefined, () => ({
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
      return this.#writes.edit(target, undefined, { from: "start" }, (records) => ({
        op: "remove",
        ids: idsOf(records.slice(index).slice(0, 1)),
      }));
    });
  }

  /** Remove the newest message: undo. Does nothing in an empty session. */
  deleteLastMessage(key: string, options?: WriteOptions): Promise<WriteResult> {
    return this.#write(key, options, writeNames, (target, ifVersion) =>
      this.#writes.edit(target, ifVersion, { from: "end", limit: 1 }, (records) => ({
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
    return this.#write(key, options, writeNames, (target, ifVersion) => {
      const edit = {
        op: "replaceAfter",
        id: checkId(id),
        records: [],
        patch: undefined,
      } as const;
      return this.#writes.edit(target, ifVersion, undefined, () => edit);
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
      await this.#runOn([target], eraseSession(this.#backend, target));
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
    return this.#write(key, options, writeNames, (target, ifVersion) =>
      this.#writes.append(target, [], { state: this.#encoder.state(entries) }, ifVersion),
    );
  }

  /** Name the session for people; `null` removes the title. At most 1,024 bytes. Creates an absent session. */
  setTitle(key: string, title: string | null, options?: WriteOptions): Promise<WriteResult> {
    return this.#write(key, options, writeNames, (target, ifVersion) =>
      this.#writes.append(target, [], { title: this.#encoder.title(title) }, ifVersion),
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
      const write = this.#writes.begin(null);
      const look = async (signal: AbortSignal) => {
        const found = await load(this.#backend, source, { from: "start" }, signal);
        if (found === undefined || found === "missing") throw new SessionNotFoundError(from);
        const end = upTo === undefined ? -1 : found.records.findIndex(({ id }) => id === upTo);
        if (upTo !== undefined && end < 0)
          throw new MessageNotFoundError(from, [fromPortable(upTo)]);
        const records = upTo === undefined ? found.records : found.records.slice(0, end + 1);
        const { title, state } = found.session;
        return { records, patch: { title, state } };
      };
      let copy: Awaited<ReturnType<typeof look>> | undefined;
      return this.#writes.run(
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
        [source, target],
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
      const records = this.#encoder.all(target, messages);
      const patch: Patch = {
        title: this.#encoder.title(title ?? null),
        state: this.#encoder.state(state ?? {}),
      };
      const times = {
        createdAt: checkDate("createdAt", createdAt),
        updatedAt: checkDate("updatedAt", updatedAt),
        expiresAt: expiresAt === undefined ? null : checkDate("expiresAt", expiresAt),
      };
      const write = { ...this.#writes.begin(null), times };
      return this.#writes.run(target, write, async (signal, _, unknown) => {
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
    const found = await this.#runOn([target], (signal) =>
      load(this.#backend, target, range, signal),
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
    return this.#runOn([target], (signal) => verify(this.#backend, target, signal));
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
    refuseUndefined(options, "user", "the sessions of all users");
    if (user === undefined) refuseUndefined(options, "tenant", "the sessions of all tenants");
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
        const attempt = eraseUser(this.#backend, target, lane);
        return this.#run({ takes: [`user ${lane}`], waits }, attempt);
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

  #dropped(error: unknown): void {
    const failure = toChatStoreError(error);
    if (this.#failures.length < maxKeptFailures) this.#failures.push(failure);
    this.#onError(failure);
  }

  #run<T>(lanes: Lanes, attempt: Attempt<T>): Promise<T> {
    const issued = performance.now();
    return this.#queue.run(lanes, () => this.#runner.run(attempt, issued));
  }

  #runOn<T>(targets: readonly Key[], attempt: Attempt<T>): Promise<T> {
    const takes = targets.map(({ id }) => id);
    const waits = targets.map((target) => `user ${userKey(target)}`);
    return this.#run({ takes, waits }, attempt);
  }

  #refuseWhenClosed(): void {
    if (this.#refusing) throw new ClosedError();
  }
}

const writeNames = ["ifVersion"];
const messageWriteNames = ["ifVersion", "title", "state"];
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

function warn(message: string): void {
  process.emitWarning(message, "ChatstoreWarning");
}

/** The lanes of a user's sessions, and of what concerns all of them. */
function laneOfScope(scope: string): (lane: string) => boolean {
  return (lane) => lane === scope || lane.startsWith(`${scope}/`) || lane === `user ${scope}`;
}

function idsOf(records: readonly MessageRecord[]): string[] {
  return records.map(({ id }) => id);
}

function checkMigrate(mode: MigrateMode = "auto"): MigrateMode {
  if (mode === "auto" || mode === "check" || mode === "off") return mode;
  throw new InvalidOptionsError(`migrate is ${show(mode)}; it must be "auto", "check" or "off"`);
}
