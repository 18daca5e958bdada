import {
  BackendError,
  type Capabilities,
  type ChatStoreBackend,
  CorruptSessionError,
  decodeCursor,
  type Edit,
  encodeCursor,
  InvalidOptionsError,
  type Key,
  type ListQuery,
  type MessageRecord,
  type Outcome,
  type Patch,
  type Range,
  type Scope,
  type SessionRecord,
  UnsupportedFormatError,
  type Write,
} from "@chatstore/core";
import { checkUrl } from "./client.js";
import { Connection, type Reply } from "./connection.js";
import type { RedisChatStoreOptions } from "./index.js";
import * as scripts from "./scripts.js";
import { inspectServers } from "./server.js";

/** So much of a long history is read or replaced by one script: a script keeps the server from everything else. */
const partMessages = 500;
const partBytes = 1024 * 1024;
/** So many sessions are described or erased by one script. */
const partSessions = 100;
/** So many users are asked for their sessions at once. */
const usersAtOnce = 8;
/** A handle registers a user anew after so many milliseconds, should the server have lost the entry. */
const registerAgainAfter = 3_600_000;
/** So many users are remembered as registered. */
const maxRemembered = 10_000;

/** Sessions in Redis or Valkey. See `scripts.ts` for what is stored, and for who guarantees what. */
export class RedisBackend implements ChatStoreBackend {
  readonly name = "redis";
  readonly #options: RedisChatStoreOptions;
  readonly #prefix: string;
  #connection: Connection | undefined;
  #survives: Capabilities["survives"] = "process";
  /** When this handle has registered which user. */
  readonly #registered = new Map<string, number>();
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
    // Beside somebody who edits without a pause, larger parts win: in the end one holds everything.
    for (let size = 1; ; size *= 2) {
      const found = await this.#readOnce(key, range, size, signal);
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
    const rest = [...patchArguments(patch), ...records.flatMap(recordArguments)];
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
        ...patchArguments(isLast ? patch : undefined),
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
    let erased = 0;
    let hasMore = 0;
    for (let first = 0; first < ids.length; first += partSessions) {
      const some = ids.slice(first, first + partSessions);
      const keys = some.flatMap((id) => Object.values(scripts.sessionKeys(this.#prefix, tag, id)));
      const reply = await this.#run(scripts.erase, [list, ...keys], some, signal);
      erased += Number(reply[0]);
      hasMore = Number(reply[1]);
    }
    if (hasMore === 0) await this.#unregister(tag, signal);
    return erased;
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

  /** @param size How many times as large as usual the parts are. */
  async #readOnce(key: Key, range: Range, size: number, signal: AbortSignal) {
    const { meta, order, messages } = this.#keys(key);
    const isUp = "from" in range ? range.from === "start" : "after" in range;
    const anchor = "before" in range ? range.before : "after" in range ? range.after : "";
    const { limit = Number.MAX_SAFE_INTEGER } = range;
    const records: MessageRecord[] = [];
    let session: SessionRecord | undefined;
    let edited = "";
    let from = "";
    let last = "";
    for (;;) {
      const wanted = Math.min(limit - records.length, partMessages * size);
      const args = [
        ...[edited, isUp ? "up" : "down", session === undefined ? anchor : "", from, last],
        ...[String(wanted), String(partBytes * size)],
      ];
      const reply = await this.#run(scripts.read, [meta, order, messages], args, signal);
      if (reply[0] === "absent") return undefined;
      if (reply[0] === "missing" || reply[0] === "changed") return reply[0];
      const [, fields, place, more, found] = reply as [
        "session",
        string[],
        string,
        string,
        string[],
      ];
      records.push(...pairs(found).map(toRecord));
      if (session === undefined) {
        const stored = new Map(pairs(fields));
        session = toSession(key.id, stored);
        edited = stored.get("edited") ?? "";
        // What is appended while the other parts are read does not belong to this version.
        last = isUp ? (stored.get("sequence") ?? "") : "";
      }
      if (more === "" || records.length >= limit) {
        return { session, records: isUp ? records : records.reverse() };
      }
      from = `(${place}`;
    }
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
    const { meta, order, messages, stagedOrder, stagedMessages } = this.#keys(key);
    const list = scripts.sessionsKey(this.#prefix, tag);
    const staged = script === scripts.replace ? [stagedOrder, stagedMessages] : [];
    const { next, ifVersion, ttlMs } = write;
    const attempt = (registered: boolean) => {
      const args = [
        next,
        ifVersion === undefined ? "" : `=${ifVersion ?? ""}`,
        String(ttlMs ?? ""),
        key.id,
        `${registered ? "registered" : ""} ${this.#options.waitReplicas ? "replicated" : ""}`,
        ...rest,
      ];
      return this.#run(script, [meta, order, messages, list, ...staged], args, signal);
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
    const hasSessions = async () => (await this.#send((client) => client.exists(list), signal)) > 0;
    if (await hasSessions()) return;
    await this.#send((client) => client.zrem(users, tag), signal);
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

  /** Session keys and scores of a user, see `scripts.page`. */
  async #page(tag: string, args: readonly string[], signal: AbortSignal) {
    const list = scripts.sessionsKey(this.#prefix, tag);
    const reply = (await this.#run(scripts.page, [list], args, signal)) as string[];
    return pairs(reply).map(([id, score]) => ({ id, score: Number(score) }));
  }

  /** Those of the user's sessions that exist. */
  async #describe(tag: string, ids: readonly string[], signal: AbortSignal) {
    const list = scripts.sessionsKey(this.#prefix, tag);
    const sessions: SessionRecord[] = [];
    for (let first = 0; first < ids.length; first += partSessions) {
      const some = ids.slice(first, first + partSessions);
      const keys = some.flatMap((id) => {
        const { meta, order, messages } = scripts.sessionKeys(this.#prefix, tag, id);
        return [meta, order, messages];
      });
      const reply = await this.#run(scripts.describe, [list, ...keys], some, signal);
      for (const [index, fields] of reply.entries()) {
        if (typeof fields === "number") continue;
        sessions.push(toSession(some[index] as string, new Map(pairs(fields as string[]))));
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
  ): Promise<Reply> {
    const reply = await this.#open().run(script, keys, args, signal);
    const [status, detail] = reply;
    if (status === "corrupt") {
      throw new CorruptSessionError(
        `The session at ${keys[0]} is damaged: ${detail}. Redis evicts keys when its memory is full and maxmemory-policy is not ` +
          "noeviction; otherwise somebody changed them. Restore a backup, or erase the session with deleteMessages()",
      );
    }
    if (status === "format") throw formatError(keys[0] as string, String(detail));
    return reply;
  }

  #send<T>(command: Parameters<typeof Connection.prototype.send<T>>[0], signal: AbortSignal) {
    return this.#open().send(command, signal);
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

function toSession(id: string, fields: ReadonlyMap<string, string>): SessionRecord {
  const format = fields.get("format") ?? "";
  if (format !== "1") throw formatError(id, format);
  const expires = fields.get("expires");
  const state = [...fields].flatMap(([name, value]) => {
    const entry = scripts.entryOf(name);
    return entry === undefined ? [] : [[entry, value]];
  });
  return {
    key: id,
    version: fields.get("version") ?? "",
    messageCount: Number(fields.get("count")),
    createdAt: Number(fields.get("created")),
    updatedAt: Number(fields.get("updated")),
    expiresAt: expires === undefined ? null : Number(expires),
    title: fields.get(scripts.titleField) ?? null,
    state: Object.fromEntries(state),
  };
}

function formatError(where: string, format: string): Error {
  return /^\d+$/.test(format)
    ? new UnsupportedFormatError(
        `The session at ${where} has format version ${format}, this Chatstore reads 1: upgrade it`,
      )
    : new CorruptSessionError(`The session at ${where} has no valid format version`);
}

function recordArguments({ id, digest, data, createdAt }: MessageRecord): [string, string] {
  return [id, `${digest} ${createdAt} ${data}`];
}

function toRecord([id, value]: readonly [string, string]): MessageRecord {
  const [digest, createdAt] = value.split(" ", 2);
  if (digest === undefined || createdAt === undefined) {
    throw new CorruptSessionError(`The stored message ${id} has not the form of a message`);
  }
  const data = value.slice(digest.length + createdAt.length + 2);
  return { id, digest, data, createdAt: Number(createdAt) };
}

function patchArguments(patch: Patch | undefined): string[] {
  const fields: [string, string | null][] = Object.entries(patch?.state ?? {}).map(
    ([entry, value]) => [scripts.stateField(entry), value],
  );
  if (patch?.title !== undefined) fields.push([scripts.titleField, patch.title]);
  const sets = fields.filter((field): field is [string, string] => field[1] !== null);
  const removals = fields.filter(([, value]) => value === null).map(([name]) => name);
  return [String(sets.length), String(removals.length), ...sets.flat(), ...removals];
}

function editArguments(edit: Edit): readonly string[] {
  switch (edit.op) {
    case "update":
      return [edit.op, edit.id, edit.digest, String(edit.createdAt ?? ""), edit.data];
    case "remove":
      return [edit.op, ...edit.ids];
    case "truncateAfter":
      return [edit.op, edit.id];
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

function pairs(flat: readonly string[]): [string, string][] {
  const found: [string, string][] = [];
  for (let i = 0; i < flat.length; i += 2) found.push([flat[i] as string, flat[i + 1] as string]);
  return found;
}

function checkOptions(options: RedisChatStoreOptions): void {
  const { prefix, waitReplicas, url, client, redis, cluster } = options;
  const isName = (name: unknown) =>
    typeof name === "string" && name.isWellFormed() && !/[{}]/.test(name);
  if (prefix !== undefined && !isName(prefix)) {
    throw new InvalidOptionsError(
      `prefix is ${JSON.stringify(prefix)}; it must be text without braces, which Redis Cluster gives a meaning`,
    );
  }
  if (waitReplicas !== undefined && !(Number.isInteger(waitReplicas) && waitReplicas >= 0)) {
    throw new InvalidOptionsError(`waitReplicas is ${waitReplicas}; it must be a whole number`);
  }
  const ways = { url, client, redis, cluster };
  const given = Object.entries(ways).filter(([, value]) => value !== undefined);
  const names = given.map(([name]) => name).join(" and ");
  if (given.length === 0) {
    throw new InvalidOptionsError(
      'Which Redis server? Give a url ("redis://localhost:6379"), a client, redis (options of ioredis) or cluster (nodes)',
    );
  }
  if (given.length > 1 && names !== "url and redis" && names !== "redis and cluster") {
    throw new InvalidOptionsError(`Give either a url, a client, or a cluster, not ${names}`);
  }
  if (url !== undefined) checkUrl(url);
}
