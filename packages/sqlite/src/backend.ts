import { resolve } from "node:path";
import {
  type Capabilities,
  type ChatStoreBackend,
  ClosedError,
  CorruptSessionError,
  decodeCursor,
  type Edit,
  encodeCursor,
  InvalidOptionsError,
  judgeAppend,
  judgeVersion,
  type Key,
  type ListQuery,
  type MessageRecord,
  type MigrateMode,
  type Outcome,
  type Patch,
  parsePathUrl,
  patchChanges,
  type Range,
  refuseUrl,
  SchemaError,
  type Scope,
  type SessionRecord,
  UnsupportedFormatError,
  unchanged,
  type Write,
} from "@chatstore/core";
import type { Database, Statement } from "better-sqlite3";
import { Connection, damageAdvice, inMemory, isMissingTable, openFile } from "./connection.js";
import type { SqliteChatStoreOptions } from "./index.js";
import { logPages } from "./reserve.js";
import {
  checkPrefix,
  currentVersion,
  hourOf,
  type MessageRow,
  migrationFrom,
  named,
  type SessionRow,
  type Sql,
  schemaAdvice,
  schemaVersion,
  statements,
} from "./schema.js";

const sessionsPerPurge = 100;

type Times = Pick<SessionRecord, "createdAt" | "updatedAt" | "expiresAt">;

/** Stores sessions in a SQLite database, by better-sqlite3. */
export class SqliteBackend implements ChatStoreBackend {
  readonly name = "sqlite";
  readonly capabilities: Capabilities;
  readonly #path: string;
  readonly #own: Database | undefined;
  readonly #prefix: string;
  #opened: { readonly connection: Connection; readonly sql: Statements } | undefined;

  /** @throws InvalidOptionsError for options that are wrong or contradict each other. */
  constructor(options: SqliteChatStoreOptions = {}) {
    this.#path = pathOf(options);
    this.#own = options.database;
    this.#prefix = checkPrefix(options.prefix);
    this.capabilities = capabilitiesOf(options, this.#path);
  }

  async open({ migrate, signal }: { readonly migrate: MigrateMode; readonly signal: AbortSignal }) {
    if (this.#opened !== undefined) return { warnings: [] };
    const database = this.#own ?? (await openFile(this.#path, migrate !== "auto"));
    const connection = new Connection(database, this.#own === undefined);
    try {
      const version = await connection.patiently(signal, () => this.#version(database, migrate));
      const warnings = await connection.patiently(signal, () => this.#configure(database));
      if (version < currentVersion) await connection.write(signal, () => this.#migrate(database));
      const sql = await connection.patiently(signal, () => prepare(database, this.#prefix));
      connection.setRoomAside();
      this.#opened = { connection, sql };
      return { warnings };
    } catch (error) {
      connection.close();
      throw error;
    }
  }

  async read(key: Key, range: Range, signal: AbortSignal) {
    return this.#read(signal, (sql) => {
      const { found } = lookUp(key, sql);
      if (found === undefined) return undefined;
      const rows = readMessages(found, range, sql);
      if (rows === undefined) return "missing" as const;
      const session = { ...found.session, state: readState(found, sql) };
      return { session, records: rows.map(toMessage) };
    });
  }

  async append(
    key: Key,
    records: readonly MessageRecord[],
    patch: Patch | undefined,
    write: Write,
    signal: AbortSignal,
  ): Promise<Outcome> {
    return this.#write(signal, (sql) => {
      const taken = takeSession(key, sql);
      const { found } = taken;
      const current =
        found && patch?.state ? { ...found.session, state: readState(found, sql) } : found?.session;
      const verdict = judgeAppend(current, digestsOf(found, records, sql), records, patch, write);
      if (verdict.status !== "insert") return verdict;
      return save(key, taken, { added: verdict.records, patch }, write, sql);
    });
  }

  async edit(key: Key, edit: Edit, write: Write, signal: AbortSignal): Promise<Outcome> {
    let erases = false;
    const change = (sql: Statements): Outcome => {
      erases = false; // it may run again
      const taken = takeSession(key, sql);
      const { found } = taken;
      const verdict = judgeVersion(found?.session, write);
      if (verdict !== undefined) return verdict;
      if (edit.op === "remove") {
        const removed = found === undefined ? 0 : removeMessages(found, edit.ids, sql);
        erases = removed > 0;
        return removed === 0
          ? unchanged(found?.session)
          : save(key, taken, { removed }, write, sql);
      }
      const message = found && sql.findMessage.get(found.id, edit.id);
      if (found === undefined || message === undefined) {
        return { status: "missing", ids: [edit.id] };
      }
      const [seq, digest] = message;
      if (edit.op === "replaceAfter") {
        const { records: added, patch } = edit;
        const ids = added.map(({ id }) => id).filter((id) => isUpTo(found, seq, id, sql));
        if (ids.length > 0) return { status: "duplicate", ids };
        const removed = sql.deleteMessagesAfter.run({ session: found.id, seq }).changes;
        erases = removed > 0;
        const state = patch?.state ? readState(found, sql) : {};
        return removed + added.length === 0 && !patchChanges({ ...found.session, state }, patch)
          ? unchanged(found.session)
          : save(key, taken, { removed, added, patch }, write, sql);
      }
      if (digest === edit.digest) return unchanged(found.session);
      erases = true;
      sql.updateMessage.run(edit.digest, edit.data, edit.createdAt, found.id, seq);
      return save(key, taken, {}, write, sql);
    };
    const onlyRemoves =
      edit.op === "remove" || (edit.op === "replaceAfter" && edit.records.length === 0);
    return this.#write(signal, change, () => erases, onlyRemoves);
  }

  async replace(
    key: Key,
    records: readonly MessageRecord[],
    patch: Patch | undefined,
    write: Write & { readonly times?: Times },
    signal: AbortSignal,
  ): Promise<Outcome> {
    let removed = 0;
    const change = (sql: Statements): Outcome => {
      removed = 0; // it may run again
      const taken = takeSession(key, sql);
      const { found } = taken;
      const verdict = judgeVersion(found?.session, write);
      if (verdict !== undefined) return verdict;
      if (found !== undefined)
        removed = sql.deleteMessagesAfter.run({ session: found.id, seq: 0 }).changes;
      return save(key, taken, { removed, added: records, patch }, write, sql);
    };
    return this.#write(signal, change, () => removed > 0);
  }

  async erase(target: { readonly key: Key } | { readonly scope: Scope }, signal: AbortSignal) {
    const change = (sql: Statements): number => {
      if ("key" in target) {
        const { found, expired } = lookUp(target.key, sql);
        const stored = found ?? expired;
        if (stored !== undefined) dropSession(stored.id, sql);
        return found === undefined ? 0 : 1;
      }
      const now = clock(sql);
      const { tenant, user } = target.scope;
      const stored = sql.findSessionsOfUser.all(tenant, user).map(toStored);
      for (const { id } of stored) dropSession(id, sql);
      return stored.filter((one) => !isExpired(one, now)).length;
    };
    return this.#write(signal, change, () => true, true);
  }

  async list(query: ListQuery, signal: AbortSignal) {
    const { limit, cursor } = query;
    if ("scope" in query) {
      const [updatedAt, key] =
        cursor === undefined
          ? [Number.MAX_SAFE_INTEGER, ""]
          : decodeCursor(cursor, ["number", "string"]);
      const rows = await this.#read(signal, (sql) =>
        sql.listOfUser.all({
          ...query.scope,
          hour: hourOf(updatedAt),
          updatedAt,
          key,
          limit,
          now: clock(sql),
        }),
      );
      return toPage(rows, limit, ({ session }) => [session.updatedAt, session.key]);
    }
    const { tenant } = query;
    const [id] = cursor === undefined ? [0] : decodeCursor(cursor, ["number"]);
    const rows = await this.#read(signal, (sql) => {
      const page = { id, limit, now: clock(sql) };
      return tenant === undefined
        ? sql.listAll.all(page)
        : sql.listOfTenant.all({ ...page, tenant });
    });
    return toPage(rows, limit, ({ id }) => [id]);
  }

  async purge(signal: AbortSignal) {
    const step = (sql: Statements): number => {
      const expired = sql.findExpired.all(clock(sql), sessionsPerPurge);
      for (const [id] of expired) dropSession(id, sql);
      return expired.length;
    };
    for (let purged = 0; ; ) {
      const count = await this.#write(signal, step, (removed) => removed > 0, true);
      purged += count;
      if (count < sessionsPerPurge) return purged;
    }
  }

  async close() {
    this.#opened?.connection.close();
    this.#opened = undefined;
  }

  /** In one snapshot. */
  #read<T>(signal: AbortSignal, work: (sql: Statements) => T): Promise<T> {
    const { connection, sql } = this.#connected();
    return connection.read(signal, () => work(sql));
  }

  /** In one transaction. `erases`: whether the result means that text was removed. `frees`: it does nothing else. */
  #write<T>(
    signal: AbortSignal,
    work: (sql: Statements) => T,
    erases?: (result: T) => boolean,
    frees?: boolean,
  ): Promise<T> {
    const { connection, sql } = this.#connected();
    return connection.write(signal, () => work(sql), erases, frees);
  }

  #connected() {
    if (this.#opened === undefined) throw new ClosedError();
    return this.#opened;
  }

  /** The schema's version, if it may be used or migrated. Changes nothing. */
  #version(database: Database, migrate: MigrateMode): number {
    if (migrate === "off") return currentVersion;
    const { version, compatible } = versionOf(database, this.#prefix);
    if (compatible > currentVersion) {
      throw new UnsupportedFormatError(
        `${database.name} has schema version ${version}, ` +
          `this @chatstore/sqlite knows up to ${currentVersion}: upgrade it`,
      );
    }
    if (version < currentVersion && migrate === "check") {
      throw new SchemaError(
        `The tables ${this.#prefix}… of ${database.name} have schema version ${version}, ` +
          `not ${currentVersion}: ${schemaAdvice}`,
      );
    }
    return version;
  }

  #migrate(database: Database): void {
    // Again, now under the lock: another process may have been faster.
    const { version } = versionOf(database, this.#prefix);
    if (version < currentVersion) database.exec(migrationFrom(version, this.#prefix));
  }

  /** Returns warnings. The settings of an own database are its owner's. */
  #configure(database: Database): string[] {
    if (database.memory) return [];
    if (this.#own !== undefined) {
      const mode = database.pragma("journal_mode", { simple: true });
      return mode === "memory" || mode === "off"
        ? [`${database.name} has journal_mode ${mode}: a killed process can destroy it. Use WAL`]
        : [];
    }
    const durable = this.capabilities.survives === "host";
    database.pragma(`synchronous = ${durable ? "FULL" : "NORMAL"}`);
    // On macOS a plain fsync stops at the drive's cache. Elsewhere this does nothing.
    database.pragma("fullfsync = ON");
    database.pragma("checkpoint_fullfsync = ON");
    // A damaged page is noticed when it is read, not when it is needed.
    database.pragma("cell_size_check = ON");
    // Removed text is overwritten, not only unlinked (G14).
    database.pragma("secure_delete = ON");
    database.pragma(`wal_autocheckpoint = ${logPages}`);
    const mode = database.pragma("journal_mode = WAL", { simple: true });
    return mode === "wal"
      ? []
      : [
          `${database.name} is on a file system that allows no write-ahead log: readers and ` +
            "writers wait for each other, a power failure may take the last write. Use a local disk",
        ];
  }
}

/** A session that is there. */
interface Stored {
  readonly id: number;
  readonly lastSeq: number;
  /** Without its state, which is in a table of its own. */
  readonly session: SessionRecord;
}

type Statements = {
  readonly [Name in keyof typeof statements]: (typeof statements)[Name] extends Sql<
    infer Parameters,
    infer Row
  >
    ? Statement<Parameters, Row>
    : never;
};

function prepare(database: Database, prefix: string): Statements {
  const prepared = Object.entries(statements).map(([name, sql]) => [
    name,
    prepareOne(database, named(sql, prefix)),
  ]);
  return Object.fromEntries(prepared) as Statements;
}

function prepareOne(database: Database, sql: string): Statement {
  const statement = database.prepare(sql);
  if (statement.reader) statement.raw();
  // An own database may have made big integers its default.
  return statement.safeIntegers(false);
}

function versionOf(database: Database, prefix: string) {
  try {
    const statement = prepareOne(database, named(schemaVersion, prefix));
    const [version, compatible] = statement.get() as [number, number];
    return { version, compatible };
  } catch (error) {
    if (!isMissingTable(error)) throw error;
    return { version: 0, compatible: 0 };
  }
}

function clock(sql: Statements): number {
  const [now] = onlyRow(sql.clock.get());
  return now;
}

/** Of a statement that always gives one. */
function onlyRow<Row>(row: Row | undefined): Row {
  return row as Row;
}

/** A look at a key, at one instant of the engine's clock. */
interface Look {
  readonly now: number;
  readonly found: Stored | undefined;
  /** In its place: what counts as gone, but has not been removed yet. */
  readonly expired?: Stored;
}

function lookUp(key: Key, sql: Statements): Look {
  const row = onlyRow(sql.findSession.get(key.id));
  const now = row[9] as number;
  if (row[0] === null) return { now, found: undefined };
  if (row[0] !== key.id) {
    // The index says one thing, and the table another.
    throw new CorruptSessionError(
      `Asked for session ${key.id}, SQLite gave another: ${damageAdvice}`,
    );
  }
  const stored = toStored(row);
  return isExpired(stored, now)
    ? { now, found: undefined, expired: stored }
    : { now, found: stored };
}

function isExpired({ session }: Stored, now: number): boolean {
  return session.expiresAt !== null && session.expiresAt <= now;
}

/** The session that a write meets. An expired one is removed, so that a new one does not meet its rows. */
function takeSession(key: Key, sql: Statements): Look {
  const look = lookUp(key, sql);
  if (look.expired !== undefined) dropSession(look.expired.id, sql);
  return look;
}

function dropSession(id: number, sql: Statements): void {
  sql.deleteMessagesAfter.run({ session: id, seq: 0 });
  sql.deleteState.run(id);
  sql.deleteSession.run(id);
}

/** Digests of those of the records' ids that are stored. A fresh id costs no look-up. */
function digestsOf(
  found: Stored | undefined,
  records: readonly MessageRecord[],
  sql: Statements,
): Map<string, string> {
  const digests = new Map<string, string>();
  if (found === undefined) return digests;
  for (const { id, fresh } of records) {
    const message = fresh ? undefined : sql.findMessage.get(found.id, id);
    if (message !== undefined) digests.set(id, message[1]);
  }
  return digests;
}

/** Whether a message with this id stands at a place or before it. */
function isUpTo(found: Stored, seq: number, id: string, sql: Statements): boolean {
  const message = sql.findMessage.get(found.id, id);
  return message !== undefined && message[0] <= seq;
}

function removeMessages(found: Stored, ids: readonly string[], sql: Statements): number {
  return ids.reduce((sum, id) => sum + sql.deleteMessage.run(found.id, id).changes, 0);
}

/** Record a change: the session's row, new messages, and the patch. */
function save(
  key: Key,
  { found, now }: Look,
  change: {
    /** How many messages were removed. */
    readonly removed?: number;
    readonly added?: readonly MessageRecord[];
    readonly patch?: Patch | undefined;
  },
  write: Write & { readonly times?: Times },
  sql: Statements,
): Outcome {
  const { removed = 0, added = [], patch } = change;
  const current = found?.session;
  const messageCount = (current?.messageCount ?? 0) - removed + added.length;
  const lastSeq = found?.lastSeq ?? 0;
  const session = {
    key: key.id,
    version: write.next,
    messageCount,
    createdAt: current?.createdAt ?? now,
    updatedAt: now,
    expiresAt: write.ttlMs === undefined ? (current?.expiresAt ?? null) : now + write.ttlMs,
    title: patch?.title === undefined ? (current?.title ?? null) : patch.title,
    ...write.times,
  };
  const id = saveSession(key, found, session, lastSeq + added.length, sql);
  for (const [index, record] of added.entries()) {
    const seq = lastSeq + 1 + index;
    sql.insertMessage.run(id, seq, record.id, record.digest, record.data, record.createdAt);
  }
  for (const [name, data] of Object.entries(patch?.state ?? {})) {
    if (data === null) sql.unsetState.run(id, name);
    else sql.setState.run(id, name, data);
  }
  return { status: "applied", version: write.next, messageCount };
}

/** @returns its id. */
function saveSession(
  { tenant, user, conversation }: Key,
  found: Stored | undefined,
  session: Omit<SessionRecord, "state">,
  lastSeq: number,
  sql: Statements,
): number {
  const hour = hourOf(session.updatedAt);
  if (found === undefined) {
    const row = { ...session, tenant, user, conversation, lastSeq, hour };
    return sql.createSession.run(row).lastInsertRowid as number;
  }
  const { id } = found;
  if (hour !== hourOf(found.session.updatedAt)) sql.setHour.run(hour, id);
  const { version, messageCount, createdAt, updatedAt, expiresAt, title } = session;
  sql.updateSession.run(version, messageCount, lastSeq, createdAt, updatedAt, expiresAt, title, id);
  return id;
}

/** The messages of a range; `undefined`: the one that it names is not there. */
function readMessages(found: Stored, range: Range, sql: Statements): MessageRow[] | undefined {
  const { limit = Number.MAX_SAFE_INTEGER } = range;
  if ("from" in range) {
    return range.from === "start"
      ? sql.messagesAfter.all({ session: found.id, seq: 0, limit })
      : sql.messagesBefore.all({ session: found.id, seq: found.lastSeq + 1, limit }).reverse();
  }
  const anchor = sql.findMessage.get(found.id, "before" in range ? range.before : range.after);
  if (anchor === undefined) return undefined;
  const [seq] = anchor;
  return "before" in range
    ? sql.messagesBefore.all({ session: found.id, seq, limit }).reverse()
    : sql.messagesAfter.all({ session: found.id, seq, limit });
}

function readState(found: Stored, sql: Statements): SessionRecord["state"] {
  return Object.fromEntries(sql.findState.all(found.id));
}

function toStored(row: readonly [...SessionRow, ...unknown[]]): Stored {
  const [key, version, messageCount, createdAt, updatedAt, expiresAt, title, id, lastSeq] = row;
  return {
    id,
    lastSeq,
    session: { key, version, messageCount, createdAt, updatedAt, expiresAt, title, state: {} },
  };
}

function toMessage([id, digest, data, createdAt]: MessageRow): MessageRecord {
  return { id, digest, data, createdAt };
}

function toPage(
  rows: readonly SessionRow[],
  limit: number,
  cursorOf: (last: Stored) => (string | number)[],
) {
  const found = rows.map(toStored);
  const sessions = found.map(({ session }) => session);
  const last = found.length < limit ? undefined : found.at(-1);
  return last === undefined ? { sessions } : { sessions, cursor: encodeCursor(cursorOf(last)) };
}

function pathOf({ path, url, database }: SqliteChatStoreOptions): string {
  if ([path, url, database].filter((value) => value !== undefined).length > 1) {
    throw new InvalidOptionsError("Give one of path, url and database, not several");
  }
  if (database !== undefined) {
    if (typeof database?.prepare === "function") return database.name;
    throw new InvalidOptionsError("database must be a Database of better-sqlite3");
  }
  const name = url === undefined ? (path === undefined ? "chatstore.db" : path) : pathOfUrl(url);
  const refuse = (reason: string): never => {
    throw new InvalidOptionsError(`path is ${JSON.stringify(name)}; ${reason}`);
  };
  if (typeof name !== "string" || name.trim() === "" || name.includes("\0")) {
    return refuse("it must name a file");
  }
  // Files that would be made by these names, and found by nobody.
  if (/^sqlite:/i.test(name)) return refuse("that is a URL: give it as `url`");
  if (/^file:/i.test(name)) return refuse("give the path alone: URIs of SQLite are not taken");
  if (name !== inMemory && /^:memory:/i.test(name)) return refuse(`write ${inMemory} alone`);
  if (/[\\/]$/.test(name)) return refuse("it must name a file, not a directory");
  return name === inMemory ? name : resolve(name);
}

function pathOfUrl(url: string): string {
  // Also as SQLAlchemy writes it: by the rules of URLs, that would be a file in the root directory.
  if (/^sqlite:(\/\/\/?)?:memory:$/i.test(url)) return inMemory;
  const example = "sqlite:./chat.db (relative) or sqlite:///var/lib/app/chat.db (absolute)";
  const path = parsePathUrl(url, "sqlite", example);
  if (/^\/[^/]+$/.test(path)) {
    const reason =
      "names a file in the root directory, which some write for the working directory. " +
      `Where it is meant, give it as \`path\``;
    return refuseUrl("The url", reason, example);
  }
  return path;
}

function capabilitiesOf(
  { survives, database }: SqliteChatStoreOptions,
  path: string,
): Capabilities {
  if (survives !== undefined && survives !== "host" && survives !== "process") {
    throw new InvalidOptionsError(`survives is ${String(survives)}; known: "host" and "process"`);
  }
  if (survives !== undefined && database !== undefined) {
    throw new InvalidOptionsError("survives cannot be given with database: set PRAGMA synchronous");
  }
  if (database?.memory ?? path === inMemory) {
    return { multiProcess: false, survives: "nothing", sweepsItself: false };
  }
  // Of an own database no more is claimed than every setting gives.
  const promised = database === undefined ? (survives ?? "host") : "process";
  return { multiProcess: true, survives: promised, sweepsItself: false };
}
