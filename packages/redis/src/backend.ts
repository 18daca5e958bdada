import {
  BackendError,
  type Capabilities,
  type ChatStoreBackend,
  decodeCursor,
  type Edit,
  encodeCursor,
  type FailureOutcome,
  type Key,
  type ListQuery,
  type MessageRecord,
  type Outcome,
  type Patch,
  type Range,
  type Scope,
  type SessionRecord,
  type Write,
} from "@chatstore/core";
import { Connection, type Reply } from "./connection.js";
import type { RedisChatStoreOptions } from "./index.js";
import { checkOptions } from "./options.js";
import * as scripts from "./scripts.js";
import { inspectServers } from "./server.js";
import {
  damage,
  formatError,
  parseHeader,
  recordArguments,
  toRecord,
  toSession,
} from "./stored-texts.js";

/** So much of a long history is read or replaced by one command: it keeps the server from everything else. */
const partMessages = 500;
const partBytes = 1024 * 1024;
/** So many messages are read at first, when it is not known how long they are: nearly all chats are shorter. */
const firstMessages = 1_000;
/** So many times as many messages as the part before are read at most, should the further ones be longer. */
const mostGrowth = 8;
/** So many sessions are described or erased by one script. */
const partSessions = 100;
/** So many users are asked for their sessions at once. */
const usersAtOnce = 8;
/** A handle registers a user anew after so many milliseconds, should the server have lost the entry. */
const registerAgainAfter = 3_600_000;
/** So many users are remembered. */
const maxRemembered = 10_000;

type SessionKeys = ReturnType<typeof scripts.sessionKeys>;

/** Of what is read, the session and the messages that come first. */
interface FirstPart {
  readonly session: SessionRecord;
  /** Changes with every edit. */
  readonly edited: string;
  /** So many messages come before the range, or, when it goes down, before its end. */
  readonly rank: number;
  readonly found: string[];
}

/** Sessions in Redis or Valkey. See `scripts.ts` for what is stored, and for who guarantees what. */
export class RedisBackend implements ChatStoreBackend {
  readonly name = "redis";
  readonly #options: RedisChatStoreOptions;
  readonly #prefix: string;
  #connection: Connection | undefined;
  #survives: Capabilities["survives"] = "process";
  /** When this handle has registered which user. */
  readonly #registered = new Map<string, number>();
  /** Erasures of users that have not come to an end: how many sessions they have erased, and which they may have. */
  readonly #unanswered = new Map<
    string,
    { readonly erased: number; readonly ids: readonly string[] }
  >();
  #purged: string | undefined;

  constructor(options: RedisChatStoreOptions) {
    this.#options = options;
    this.#prefix = options.prefix ?? "chatstore:";
    checkOptions(options);
  }

  get capabilities(): Capabilities {
    return { multiProcess: true, survives: this.#survives, sweepsItself: true };
  }

  async open({ signal }: { readonly signal: AbortSignal }) {
    const connection = new Connection(this.#options);
    this.#connection = connection;
    try {
      const { warnings, survives } = await inspectServers(connection, this.#options, signal);
      this.#survives = survives;
      return { warnings };
    } catch (error) {
      this.#connection = undefined;
      await connection.close();
      throw error;
    }
  }

  async read(key: Key, range: Range, signal: AbortSignal) {
    const { limit = Number.MAX_SAFE_INTEGER } = range;
    const isNewest = "from" in range && (range.from === "end" || range.limit === undefined);
    // Beside somebody who edits without a pause, larger parts win: in the end one holds everything.
    for (let size = 1; ; size *= 2) {
      let first: FirstPart | undefined;
      if (isNewest) {
        // Not by a script, whose Lua copies each message twice more; and here, since a chat does it before each answer.
        const most = Math.min(limit, firstMessages * size);
        const newest = await this.#elements(this.#keys(key), -most - 1, -1, signal);
        const header = newest.pop();
        const known = header === undefined ? undefined : toSession(key.id, header);
        // There is nothing: the script sees whether something is left of it. Or there is more than one command reads.
        if (known?.isWhole) {
          const { session, edited } = known;
          const count = session.messageCount;
          if (newest.length === Math.min(limit, count)) {
            return { session, records: newest.map(toRecord) };
          }
          first = { session, edited, rank: count, found: newest };
        }
      }
      const found = await this.#readOnce(key, range, size, signal, first);
      if (found !== "changed") return found;
    }
  }

  async append(
    key: Key,
    records: readonly MessageRecord[],
    patch: Patch | undefined,
    write: Write,
    signal: AbortSignal,
  ): Promise<Outcome> {
    // A client of the user's own may send a command twice by itself.
    const isFresh = this.#options.client === undefined && records.every(({ fresh }) => fresh);
    const rest = [
      patchArgument(patch),
      isFresh ? "fresh" : "",
      ...records.flatMap(recordArguments),
    ];
    return toOutcome(await this.#write(scripts.append, key, write, rest, signal));
  }

  async edit(key: Key, edit: Edit, write: Write, signal: AbortSignal): Promise<Outcome> {
    const rest = editArguments(edit);
    return toOutcome(await this.#write(scripts.edit, key, write, rest, signal));
  }

  async replace(
    key: Key,
    records: readonly MessageRecord[],
    patch: Patch | undefined,
    write: Write & {
      readonly times?: Pick<SessionRecord, "createdAt" | "updatedAt" | "expiresAt">;
    },
    signal: AbortSignal,
  ): Promise<Outcome> {
    const { createdAt = "", updatedAt = "", expiresAt } = write.times ?? {};
    const times = [createdAt, updatedAt, expiresAt ?? ""].map(String);
    let place = 0;
    for (const part of parts(records)) {
      const isLast = place + part.length === records.length;
      const rest = [
        String(place),
        isLast ? String(records.length) : "",
        ...times,
        patchArgument(isLast ? patch : undefined),
        ...part.flatMap(recordArguments),
      ];
      const reply = await this.#write(scripts.replace, key, write, rest, signal, place > 0);
      if (reply[0] !== "staged") return toOutcome(reply);
      place += part.length;
    }
    throw new Error("unreachable: the last part is never only staged");
  }

  async erase(
    target: { readonly key: Key } | { readonly scope: Scope },
    signal: AbortSignal,
  ): Promise<number> {
    const tag = scripts.tagOf("key" in target ? target.key : target.scope);
    const list = scripts.sessionsKey(this.#prefix, tag);
    const ids =
      "key" in target
        ? [target.key.id]
        : await this.#send((client) => client.zrange(list, 0, -1), signal);
    if ("key" in target) return this.#eraseSome(tag, ids, { erased: 0, ids: [] }, signal);
    // What a broken connection left open is counted by the repetition, which finds it erased.
    const left = new Set(ids);
    const before = this.#unanswered.get(tag);
    const gone = before?.ids.filter((id) => !left.has(id)).length ?? 0;
    const progress = { erased: (before?.erased ?? 0) + gone, ids: [] };
    if (this.#unanswered.size >= maxRemembered) this.#unanswered.clear();
    this.#unanswered.set(tag, progress);
    const erased = await this.#eraseSome(tag, ids, progress, signal);
    this.#unanswered.delete(tag);
    return erased;
  }

  /** @param progress Kept up to date, for when it breaks off: how many were erased, and which may have been. */
  async #eraseSome(
    tag: string,
    ids: readonly string[],
    progress: { erased: number; ids: readonly string[] },
    signal: AbortSignal,
  ): Promise<number> {
    const list = scripts.sessionsKey(this.#prefix, tag);
    let hasMore = 0;
    for (let first = 0; first < ids.length; first += partSessions) {
      progress.ids = ids.slice(first, first + partSessions);
      const keys = progress.ids.flatMap((id) =>
        Object.values(scripts.sessionKeys(this.#prefix, tag, id)),
      );
      // A second run finds nothing.
      const reply = await this.#run(
        scripts.erase,
        [list, ...keys],
        progress.ids,
        signal,
        () => true,
      );
      progress.erased += Number(reply[0]);
      progress.ids = [];
      hasMore = Number(reply[1]);
    }
    if (hasMore === 0) await this.#unregister(tag, signal);
    return progress.erased;
  }

  async list(query: ListQuery, signal: AbortSignal) {
    return "scope" in query
      ? this.#listUser(scripts.tagOf(query.scope), query, signal)
      : this.#listAll(query, signal);
  }

  /**
   * Redis removes expired sessions by itself; what is left of them is their place in the list of their user. Goes on where a call
   * that ran out of time has stopped.
   */
  async purge(signal: AbortSignal): Promise<number> {
    do {
      const cursor = this.#purged === undefined ? {} : { cursor: this.#purged };
      this.#purged = (await this.#listAll({ limit: 1_000, ...cursor }, signal)).cursor;
    } while (this.#purged !== undefined);
    return 0;
  }

  async close(): Promise<void> {
    const connection = this.#connection;
    this.#connection = undefined;
    await connection?.close();
  }

  /**
   * The first part tells how many messages there are. The others are read by their ranks, which only edits change: all are
   * of one version when nobody has edited the session by the end.
   *
   * @param size How many times as large as usual the parts are.
   * @param known The first part, when it has been read.
   */
  async #readOnce(
    key: Key,
    range: Range,
    size: number,
    signal: AbortSignal,
    known: FirstPart | undefined,
  ) {
    const keys = this.#keys(key);
    const { limit = Number.MAX_SAFE_INTEGER } = range;
    const isUp =
      "after" in range || ("from" in range && range.from === "start" && range.limit !== undefined);
    let step = Math.min(limit, firstMessages * size);
    const first = known ?? (await this.#readFirst(key.id, keys, range, isUp, step, signal));
    if (first === undefined || first === "missing") return first;
    const { session, edited, rank, found } = first;
    // Ranks: of all that are wanted, and below of those that the first part does not hold.
    const [start, end] = isUp
      ? [rank, Math.min(rank + limit, session.messageCount)]
      : [Math.max(rank - limit, 0), rank];
    const wanted = end - start;
    if (found.length < Math.min(step, wanted)) throw damage(key.id, "messages are gone");
    if (found.length === wanted) return { session, records: found.map(toRecord) };

    const restStart = isUp ? start + found.length : start;
    const restEnd = restStart + wanted - found.length;
    const rest: string[][] = [];
    let part = found;
    let header: string | undefined;
    for (let next = restStart; next < restEnd && part.length > 0; next += part.length) {
      step = Math.min(step * mostGrowth, fitting(part, partBytes * size), restEnd - next);
      // Commands take effect in their order: the header is read after the last part without waiting for that.
      [part, [header]] = await Promise.all([
        this.#elements(keys, next, next + step - 1, signal),
        next + step === restEnd ? this.#elements(keys, -1, -1, signal) : [],
      ]);
      rest.push(part);
    }
    if (header === undefined || parseHeader(key.id, header).edited !== edited) return "changed";
    const all = (isUp ? [found, ...rest] : [...rest, found]).flat();
    if (all.length < wanted) throw damage(key.id, "messages are gone");
    return { session, records: all.map(toRecord) };
  }

  /** The session, and of a range the messages that are nearest to where it begins; oldest first. */
  async #readFirst(
    id: string,
    keys: SessionKeys,
    range: Range,
    isUp: boolean,
    most: number,
    signal: AbortSignal,
  ): Promise<FirstPart | "missing" | undefined> {
    const anchor = "before" in range ? range.before : "after" in range ? range.after : "";
    const args = [isUp ? "up" : "down", anchor, String(most)];
    const reply = await this.#run(scripts.page, [keys.messages, keys.places], args, signal);
    if (reply[0] === "absent") return undefined;
    if (reply[0] === "missing") return "missing";
    const [, header, details, rank, found] = reply as [string, string, string, number, string[]];
    return { ...toSession(id, header, details), rank, found };
  }

  /** Messages and, at the end, the header, by ranks; negative ones count from the end. */
  #elements({ messages }: SessionKeys, first: number, last: number, signal: AbortSignal) {
    return this.#send((client) => client.lrange(messages, first, last), signal);
  }

  /** @param isRegistered Whether the user has been registered for this very write. */
  async #write(
    script: scripts.Script,
    key: Key,
    write: Write,
    rest: readonly string[],
    signal: AbortSignal,
    isRegistered = false,
  ): Promise<Reply> {
    const tag = scripts.tagOf(key);
    const { messages, places, stagedMessages, stagedPlaces } = this.#keys(key);
    const list = scripts.sessionsKey(this.#prefix, tag);
    const staged = script === scripts.replace ? [stagedMessages, stagedPlaces] : [];
    const { next, ifVersion, ttlMs } = write;
    // Of what is only appended the session keeps no record but the messages: whose they are does not show.
    const doubts = ([status, version]: Reply) =>
      script === scripts.append &&
      ["unchanged", "duplicate", "conflict"].includes(status as string) &&
      version !== next;
    const attempt = (registered: boolean) => {
      const args = [
        next,
        ifVersion === undefined ? "" : `=${ifVersion ?? ""}`,
        String(ttlMs ?? ""),
        key.id,
        `${registered ? "registered" : ""} ${this.#options.waitReplicas ? "replicated" : ""}`,
        ...rest,
      ];
      return this.#run(script, [messages, places, list, ...staged], args, signal, doubts);
    };

    // The list of users lives in another slot, so it cannot change in the same step. A user is registered before the first
    // session begins to exist, and once more after it, should somebody who had found no session have taken the user off the list
    // between. A server that lost the entry in a failover gets it again from whoever writes.
    const registering = this.#isRegistered(tag) ? undefined : this.#register(tag, signal);
    registering?.catch(() => undefined);
    let reply = await attempt(isRegistered);
    if (reply[0] === "unregistered") {
      await (registering ?? this.#register(tag, signal));
      reply = await attempt(true);
    }
    if (reply[0] === "applied" && reply[3] === "first") await this.#register(tag, signal);
    return reply;
  }

  #isRegistered(tag: string): boolean {
    const registered = this.#registered.get(tag);
    return registered !== undefined && performance.now() - registered < registerAgainAfter;
  }

  async #register(tag: string, signal: AbortSignal): Promise<void> {
    await this.#run(scripts.register, [scripts.usersKey(this.#prefix)], [tag], signal);
    if (this.#registered.size >= maxRemembered) this.#registered.clear();
    this.#registered.set(tag, performance.now());
  }

  /** Take a user without sessions off the list. Whoever begins one meanwhile registers the user again. */
  async #unregister(tag: string, signal: AbortSignal): Promise<void> {
    const list = scripts.sessionsKey(this.#prefix, tag);
    const users = scripts.usersKey(this.#prefix);
    const hasSessions = async () =>
      (await this.#send((client) => client.exists(list), signal, "unknown")) > 0;
    if (await hasSessions()) return;
    await this.#send((client) => client.zrem(users, tag), signal, "unknown");
    if (await hasSessions()) await this.#register(tag, signal);
  }

  async #listUser(tag: string, query: { limit: number; cursor?: string }, signal: AbortSignal) {
    const { limit, cursor } = query;
    let after = ["", ""];
    if (cursor !== undefined) {
      const [time, key] = decodeCursor(cursor, ["number", "string"]);
      after = [String(-time), key];
    }
    const page = await this.#page(tag, ["newest", ...after, String(limit)], signal);
    const sessions = await this.#describe(
      tag,
      page.map(({ id }) => id),
      signal,
    );
    // Where one has changed since the page was cut, it stands where it belongs now.
    sessions.sort((a, b) => b.updatedAt - a.updatedAt);
    const last = page.at(-1);
    return last === undefined || page.length < limit
      ? { sessions }
      : { sessions, cursor: encodeCursor([-last.score, last.id]) };
  }

  /**
   * User by user, and each user's sessions from the one that has not changed for the longest time: a session that changes moves
   * towards the end, so one that exists throughout is not missed.
   */
  async #listAll(query: { limit: number; cursor?: string; tenant?: string }, signal: AbortSignal) {
    const { limit, tenant } = query;
    // An empty id: the user is done.
    const [begun, score, id] =
      query.cursor === undefined
        ? (["", 0, ""] as const)
        : decodeCursor(query.cursor, ["string", "number", "string"]);
    const most = Math.min(limit, partSessions);
    const users = await this.#users(tenant, begun, id !== "", most, signal);
    const sessions: SessionRecord[] = [];
    let last: { tag: string; score: number; id: string } | undefined;
    let room = limit;
    for (let first = 0; first < users.length && room > 0; first += usersAtOnce) {
      const some = users.slice(first, first + usersAtOnce);
      const pages = await Promise.all(
        some.map((tag) => {
          const after = tag === begun ? [String(score), id] : ["", ""];
          return this.#page(tag, ["oldest", ...after, String(room)], signal);
        }),
      );
      const found = some.map((tag, index) => {
        const page = pages[index] ?? [];
        if (page.length === 0) return this.#unregister(tag, signal).then(() => []);
        const fitting = page.slice(0, room);
        room -= fitting.length;
        const end = fitting.at(-1);
        if (end !== undefined) last = { tag, ...end };
        const ids = fitting.map((entry) => entry.id);
        return this.#describe(tag, ids, signal);
      });
      sessions.push(...(await Promise.all(found)).flat());
    }
    if (last !== undefined && room === 0) {
      return { sessions, cursor: encodeCursor([last.tag, last.score, last.id]) };
    }
    const done = users.length < most ? undefined : users.at(-1);
    return { sessions, ...(done !== undefined && { cursor: encodeCursor([done, 0, ""]) }) };
  }

  /** The next users of a tenant, in the order of their tags. */
  async #users(
    tenant: string | undefined,
    begun: string,
    isIncluded: boolean,
    limit: number,
    signal: AbortSignal,
  ): Promise<string[]> {
    const found: string[] = [];
    for (const start of scripts.tagsOfTenant(tenant)) {
      const inside = begun !== "" && begun.startsWith(start);
      if (begun > start && !inside) continue;
      const from = inside ? `${isIncluded ? "[" : "("}${begun}` : `[${start}`;
      const users = scripts.usersKey(this.#prefix);
      const most = limit - found.length;
      const some = await this.#send(
        (client) => client.zrangebylex(users, from, scripts.endOfTags(start), "LIMIT", 0, most),
        signal,
      );
      found.push(...some);
    }
    return found;
  }

  /** Session keys and scores of a user, see `scripts.list`. */
  async #page(tag: string, args: readonly string[], signal: AbortSignal) {
    const list = scripts.sessionsKey(this.#prefix, tag);
    const reply = (await this.#run(scripts.list, [list], args, signal)) as string[];
    return pairs(reply).map(([id, score]) => ({ id, score: Number(score) }));
  }

  /** Those of the user's sessions that exist. */
  async #describe(tag: string, ids: readonly string[], signal: AbortSignal) {
    const list = scripts.sessionsKey(this.#prefix, tag);
    const sessions: SessionRecord[] = [];
    for (let first = 0; first < ids.length; first += partSessions) {
      const some = ids.slice(first, first + partSessions);
      const keys = some.flatMap((id) => {
        const { messages, places } = scripts.sessionKeys(this.#prefix, tag, id);
        return [messages, places];
      });
      const reply = await this.#run(scripts.describe, [list, ...keys], some, signal);
      for (const [index, header] of (reply as (string | null)[]).entries()) {
        if (header !== null) sessions.push(toSession(some[index] as string, header).session);
      }
    }
    return sessions;
  }

  #keys(key: Key) {
    return scripts.sessionKeys(this.#prefix, scripts.tagOf(key), key.id);
  }

  async #run(
    script: scripts.Script,
    keys: readonly string[],
    args: readonly string[],
    signal: AbortSignal,
    doubts?: (reply: Reply) => boolean,
  ): Promise<Reply> {
    const reply = await this.#open().run(script, keys, args, signal, doubts);
    const [status, detail] = reply;
    if (status === "corrupt") throw damage(keys[0] as string, String(detail));
    if (status === "format") throw formatError(keys[0] as string, String(detail));
    return reply;
  }

  /** @param lost What holds of the method when no answer comes: reading has changed nothing. */
  #send<T>(
    command: Parameters<typeof Connection.prototype.send<T>>[0],
    signal: AbortSignal,
    lost: FailureOutcome = "not-applied",
  ) {
    return this.#open().send(command, signal, lost);
  }

  #open(): Connection {
    if (this.#connection === undefined) throw new Error("open() has not succeeded");
    return this.#connection;
  }
}

/** The meaning of what a script for writing returns. */
function toOutcome(reply: Reply): Outcome {
  const [status, first, second] = reply as string[];
  const version = first === "" || first === undefined ? null : first;
  switch (status) {
    case "applied":
    case "unchanged":
      return { status, version, messageCount: Number(second) };
    case "conflict":
      return { status, version };
    case "duplicate":
    case "missing":
      return { status, ids: reply.slice(1) as string[] };
    default:
      throw new BackendError(
        "Another replacement of the session is under way, or has taken the place of this one",
        { retryable: true, outcome: "not-applied" },
      );
  }
}

function patchArgument(patch: Patch | undefined): string {
  return patch === undefined ? "" : JSON.stringify(patch);
}

function editArguments(edit: Edit): readonly string[] {
  switch (edit.op) {
    case "update":
      return [edit.op, edit.id, edit.digest, String(edit.createdAt ?? ""), edit.data];
    case "remove":
      return [edit.op, ...edit.ids];
    case "replaceAfter":
      return [
        edit.op,
        edit.id,
        patchArgument(edit.patch),
        ...edit.records.flatMap(recordArguments),
      ];
  }
}

/** At least one part, and each as large as one script may be. */
function* parts(records: readonly MessageRecord[]): Generator<readonly MessageRecord[]> {
  let part: MessageRecord[] = [];
  let bytes = 0;
  for (const record of records) {
    if (part.length === partMessages || bytes >= partBytes) {
      yield part;
      part = [];
      bytes = 0;
    }
    part.push(record);
    bytes += record.data.length;
  }
  yield part;
}

/** How many messages that are as long as these fit into so many bytes. */
function fitting(messages: readonly string[], bytes: number): number {
  const length = messages.reduce((sum, message) => sum + message.length, 0);
  return Math.ceil((messages.length * bytes) / length);
}

function pairs(flat: readonly string[]): [string, string][] {
  const found: [string, string][] = [];
  for (let i = 0; i < flat.length; i += 2) found.push([flat[i] as string, flat[i + 1] as string]);
  return found;
}
