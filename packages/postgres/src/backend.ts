import {
  applyPatch,
  BackendError,
  type Capabilities,
  type ChatStoreBackend,
  ClosedError,
  CorruptSessionError,
  decodeCursor,
  type Edit,
  encodeCursor,
  judgeAppend,
  judgeVersion,
  type Key,
  type ListQuery,
  type MessageRecord,
  type MigrateMode,
  type Outcome,
  type Patch,
  patchChanges,
  type Range,
  SchemaError,
  type Scope,
  type SessionRecord,
  type Standing,
  UnsupportedFormatError,
  unchanged,
  type Write,
} from "@chatstore/core";
import {
  Connections,
  MissingTableError,
  poolOf,
  type Run,
  type Statements,
  schemaAdvice,
  script,
  sqlState,
  statementsOn,
} from "./connections.js";
import type { PostgresChatStoreOptions } from "./options.js";
import {
  checkNames,
  currentVersion,
  migrationFrom,
  type Names,
  pageSize,
  type ReadMessage,
  type ReadRow,
  type ReadSession,
  type ServerRow,
  type SessionRow,
  type Size,
  schemaCreation,
  sessionsPerStep,
} from "./schema.js";

/** Core's default. */
const defaultTimeout = 5_000;
/** A long history is written in requests of this many messages or characters, all of one transaction. */
const messagesPerRequest = 1_000;
const charactersPerRequest = 4 * 1024 * 1024;
/** Longer sessions are erased in several transactions. */
const messagesPerStep = 1_000;

type Times = Pick<SessionRecord, "createdAt" | "updatedAt" | "expiresAt">;

/** A session whose row this transaction has locked. */
interface Locked {
  /** Of its row, which is there in any case. */
  readonly id: number;
  /** Whether the row was inserted by this transaction. */
  readonly isNew: boolean;
  /** `undefined`: absent or expired. */
  readonly current: (Standing & { readonly lastSeq: number }) | undefined;
  /** Digests of those of the messages asked for that are there. */
  readonly digests: ReadonlyMap<string, string>;
}

/** Stores sessions in a PostgreSQL database, by pg. */
export class PostgresBackend implements ChatStoreBackend {
  readonly name = "postgres";
  readonly #source: ReturnType<typeof poolOf>;
  readonly #timeout: number;
  readonly #names: Names;
  readonly #sql: Statements;
  #survives: Capabilities["survives"] = "process";
  #connections: Connections | undefined;
  #closed = false;

  /** @throws InvalidOptionsError for options that are wrong or contradict each other. */
  constructor(options: PostgresChatStoreOptions = {}) {
    this.#source = poolOf(options);
    this.#timeout = options.timeout ?? defaultTimeout;
    this.#names = checkNames(options);
    this.#sql = statementsOn(this.#names);
  }

  /** `survives` follows the server's settings, and says the least before `open()` has seen them. */
  get capabilities(): Capabilities {
    return { multiProcess: true, survives: this.#survives, sweepsItself: false };
  }

  async open({ migrate, signal }: { readonly migrate: MigrateMode; readonly signal: AbortSignal }) {
    if (this.#closed) throw new ClosedError();
    this.#connections ??= new Connections(this.#source, this.#timeout);
    const server = await this.#inspect(migrate, signal);
    if (server.readOnly === "on") {
      // The next attempt may have to reach another server: keep no connection to this one.
      await this.#connections.close();
      this.#connections = undefined;
    }
    this.#check(server, migrate);
    if (migrate === "auto" && server.version < currentVersion) await this.#migrate(signal);
    this.#survives = survivalOf(server);
    return { warnings: warningsOf(server) };
  }

  async read(key: Key, range: Range, signal: AbortSignal) {
    const { limit } = range;
    const size = limit === undefined ? "All" : sizeOf(limit);
    const [place, anchor] =
      "before" in range
        ? (["Before", [range.before]] as const)
        : "after" in range
          ? (["After", [range.after]] as const)
          : ([range.from === "start" ? "Oldest" : "Newest", []] as const);
    const statement = this.#sql[`read${size}${place}`];
    const parameters = limit === undefined ? anchor : [limit, ...anchor];
    const rows = await this.#connected.read(signal, statement, key.id, ...parameters);
    return toSnapshot(key, rows);
  }

  async append(
    key: Key,
    records: readonly MessageRecord[],
    patch: Patch | undefined,
    write: Write,
    signal: AbortSignal,
  ): Promise<Outcome> {
    if (records.length > 0 && patch === undefined) {
      const applied = await this.#appendAtOnce(key, records, write, signal);
      if (applied !== undefined) return applied;
    }
    const ids = records.filter(({ fresh }) => !fresh).map(({ id }) => id);
    return this.#locked(key, ids, Object.keys(patch?.state ?? {}), signal, async (run, session) => {
      const verdict = judgeAppend(session.current, session.digests, records, patch, write);
      if (verdict.status !== "insert") return verdict;
      return this.#save(run, key, session, { added: verdict.records, patch }, write);
    });
  }

  async edit(key: Key, edit: Edit, write: Write, signal: AbortSignal): Promise<Outcome> {
    const sql = this.#sql;
    const ids = edit.op === "remove" ? [] : [edit.id];
    const entries = edit.op === "replaceAfter" ? Object.keys(edit.patch?.state ?? {}) : [];
    return this.#locked(key, ids, entries, signal, async (run, session) => {
      const { id, current, digests } = session;
      const verdict = judgeVersion(current, write);
      if (verdict !== undefined) return verdict;
      if (edit.op === "remove") {
        const removed = current && (await run(sql.deleteMessages, id, edit.ids)).count;
        return removed ? this.#save(run, key, session, { removed }, write) : unchanged(current);
      }
      const digest = digests.get(edit.id);
      if (digest === undefined) return { status: "missing", ids: [edit.id] };
      if (edit.op === "replaceAfter") {
        const { records: added, patch } = edit;
        const removed = (await run(sql.deleteMessagesAfter, id, edit.id)).count;
        const kept = await this.#present(run, id, added);
        if (kept.length > 0) return { status: "duplicate", ids: kept };
        return removed + added.length > 0 || patchChanges(current, patch)
          ? this.#save(run, key, session, { removed, added, patch }, write)
          : unchanged(current);
      }
      if (digest === edit.digest) return unchanged(current);
      await run(sql.updateMessage, id, edit.id, edit.digest, edit.data, edit.createdAt);
      return this.#save(run, key, session, {}, write);
    });
  }

  async replace(
    key: Key,
    records: readonly MessageRecord[],
    patch: Patch | undefined,
    write: Write & { readonly times?: Times },
    signal: AbortSignal,
  ): Promise<Outcome> {
    return this.#locked(key, [], [], signal, async (run, session) => {
      const { id, current } = session;
      const verdict = judgeVersion(current, write);
      if (verdict !== undefined) return verdict;
      const removed =
        current === undefined ? 0 : (await run(this.#sql.deleteAllMessages, id)).count;
      return this.#save(run, key, session, { removed, added: records, patch }, write);
    });
  }

  async erase(
    target: { readonly key: Key } | { readonly scope: Scope },
    signal: AbortSignal,
  ): Promise<number> {
    const { condemnSession, condemnUser } = this.#sql;
    // In a transaction, so that who waits for somebody's lock and gives up knows that nothing was erased.
    const { rows } = await this.#connected.transaction(
      signal,
      (run) =>
        "key" in target
          ? run(condemnSession, target.key.id)
          : run(condemnUser, target.scope.tenant, target.scope.user),
      () => true,
    );
    for (let start = 0; start < rows.length; start += sessionsPerStep) {
      await this.#remove(rows.slice(start, start + sessionsPerStep), signal);
    }
    return rows.filter(({ live }) => live).length;
  }

  async list(query: ListQuery, signal: AbortSignal) {
    const { limit, cursor } = query;
    const sql = this.#sql;
    const size = sizeOf(limit);
    if ("scope" in query) {
      const { tenant, user } = query.scope;
      const [time, key] =
        cursor === undefined
          ? [Number.MAX_SAFE_INTEGER, ""]
          : decodeCursor(cursor, ["number", "string"]);
      const rows = await this.#connected.read(
        signal,
        sql[`list${size}OfUser`],
        tenant,
        user,
        time,
        key,
        limit,
      );
      return toPage(rows, limit, (last) => [last.updatedAt, last.key]);
    }
    const { tenant } = query;
    const [id] = cursor === undefined ? [0] : decodeCursor(cursor, ["number"]);
    const rows =
      tenant === undefined
        ? await this.#connected.read(signal, sql[`list${size}`], id, limit)
        : await this.#connected.read(signal, sql[`list${size}OfTenant`], tenant, id, limit);
    return toPage(rows, limit, (last) => [last.id]);
  }

  async purge(signal: AbortSignal): Promise<number> {
    for (let purged = 0; ; ) {
      const { rows } = await this.#connected.write(signal, this.#sql.condemnExpired);
      purged += await this.#remove(rows, signal);
      if (rows.length < sessionsPerStep) return purged;
    }
  }

  async close() {
    this.#closed = true;
    await this.#connections?.close();
  }

  get #connected(): Connections {
    if (this.#connections === undefined) throw new ClosedError();
    return this.#connections;
  }

  async #inspect(migrate: MigrateMode, signal: AbortSignal): Promise<ServerRow> {
    const { inspect, inspectServer } = this.#sql;
    if (migrate !== "off") {
      try {
        return onlyRow(await this.#connected.read(signal, inspect));
      } catch (error) {
        if (!(error instanceof MissingTableError)) throw error;
      }
    }
    return onlyRow(await this.#connected.read(signal, inspectServer));
  }

  /** @throws for a server, or a schema, that cannot be used. */
  #check(server: ServerRow, migrate: MigrateMode): void {
    const { version, compatible, encoding, readOnly } = server;
    const { prefix } = this.#names;
    if (readOnly === "on") {
      const message = "PostgreSQL is a standby, or read-only: let the url lead to the primary";
      throw new BackendError(message, { retryable: true, outcome: "not-applied" });
    }
    if (encoding !== "UTF8") {
      throw new SchemaError(
        `The database has the encoding ${encoding}, which cannot hold every text: use one with UTF8`,
      );
    }
    if (compatible > currentVersion) {
      throw new UnsupportedFormatError(
        `The tables ${prefix}… have schema version ${version}, ` +
          `this @chatstore/postgres knows up to ${currentVersion}: upgrade it`,
      );
    }
    if (migrate === "check" && version < currentVersion) {
      throw new SchemaError(
        `The tables ${prefix}… have schema version ${version}, not ${currentVersion}: ${schemaAdvice}`,
      );
    }
  }

  async #migrate(signal: AbortSignal): Promise<void> {
    const sql = this.#sql;
    const { schema, prefix } = this.#names;
    await this.#connected.transaction(
      signal,
      async (run) => {
        await run(sql.lockMigrations);
        // Again, now under the lock: another process may have been faster.
        const found = await run(sql.findTable, `${prefix}meta`, schema ?? null);
        const { version } =
          found.count > 0 ? onlyRow((await run(sql.inspect)).rows) : { version: 0 };
        if (version >= currentVersion) return;
        // Asked first: even IF NOT EXISTS takes the right to create schemas.
        if (schema !== undefined && (await run(sql.findSchema, schema)).count === 0) {
          await run(script(schemaCreation(schema)));
        }
        await run(script(migrationFrom(version, this.#names)));
      },
      () => true,
    );
  }

  /** `undefined`: nothing was written, the session or an id needs a closer look. */
  async #appendAtOnce(
    key: Key,
    records: readonly MessageRecord[],
    write: Write,
    signal: AbortSignal,
  ): Promise<Outcome | undefined> {
    try {
      const { append, appendAt } = this.#sql;
      const { next, ifVersion, ttlMs = null } = write;
      const rest = [
        ttlMs,
        String(Math.ceil(this.#timeout / 4)),
        ...messageColumns(records),
      ] as const;
      const { rows } =
        typeof ifVersion === "string"
          ? await this.#connected.write(signal, appendAt, key.id, next, ifVersion, ...rest)
          : await this.#connected.write(
              signal,
              append,
              key.id,
              next,
              ifVersion === undefined,
              ...rest,
              key.tenant,
              key.user,
              key.conversation,
            );
      return rows[0] && { status: "applied", version: next, messageCount: rows[0].messageCount };
    } catch (error) {
      // An id that is there; a race, where the database's default isolation is stricter; or a lock that somebody keeps. Who
      // waits for it in a transaction of several steps and gives up knows that nothing was written.
      const state = sqlState(error);
      if (state === "23505" || state === "40001" || state === "55P03") return undefined;
      throw error;
    }
  }

  /**
   * Run `work` in a transaction that holds the session's row.
   *
   * @param ids The messages whose digests `work` needs.
   * @param entries The state entries that `work` needs.
   */
  #locked(
    key: Key,
    ids: readonly string[],
    entries: readonly string[],
    signal: AbortSignal,
    work: (run: Run, session: Locked) => Promise<Outcome>,
  ): Promise<Outcome> {
    const { claim, findStanding } = this.#sql;
    return this.#connected.transaction(
      signal,
      async (run) => {
        const [inserted] = (await run(claim, ...keyColumns(key))).rows;
        if (inserted !== undefined) {
          const { id } = inserted;
          return work(run, { id, isNew: true, current: undefined, digests: new Map() });
        }
        const row = onlyRow((await run(findStanding, key.id, ids, entries)).rows);
        const { id, live } = row;
        return work(run, {
          id,
          isNew: false,
          current: live ? { ...row, state: toObject(row.state) } : undefined,
          digests: new Map(live ? Object.entries(toObject(row.digests)) : []),
        });
      },
      ({ status }) => status === "applied",
    );
  }

  /** Those of the records' ids that the session holds. */
  async #present(run: Run, id: number, records: readonly MessageRecord[]): Promise<string[]> {
    const ids = records.filter(({ fresh }) => !fresh).map((record) => record.id);
    if (ids.length === 0) return [];
    const { rows } = await run(this.#sql.findMessages, id, ids);
    const present = new Set(rows.map((row) => row.id));
    return ids.filter((one) => present.has(one));
  }

  /** Record a change of a locked session: its row, new messages, and the patch. */
  async #save(
    run: Run,
    key: Key,
    session: Locked,
    change: {
      /** How many messages were removed. */
      readonly removed?: number;
      readonly added?: readonly MessageRecord[];
      readonly patch?: Patch | undefined;
    },
    write: Write & { readonly times?: Times },
  ): Promise<Outcome> {
    const sql = this.#sql;
    const { removed = 0, added = [], patch } = change;
    const { current } = session;
    let { id } = session;
    if (current === undefined && !session.isNew) {
      // An expired session does not come back to life: somebody may be removing its messages.
      await run(sql.deleteSessions, [id]);
      id = onlyRow((await run(sql.claim, ...keyColumns(key))).rows).id;
    }
    const lastSeq = current?.lastSeq ?? 0;
    let written = 0;
    for (const records of portions(added)) {
      await run(sql.insertMessages, id, lastSeq + written, ...messageColumns(records));
      written += records.length;
    }
    for (const [name, data] of Object.entries(patch?.state ?? {})) {
      if (data === null) await run(sql.unsetState, id, name);
      else await run(sql.setState, id, name, data);
    }
    const messageCount = (current?.messageCount ?? 0) - removed + added.length;
    const { createdAt = null, updatedAt = null, expiresAt = null } = write.times ?? {};
    await run(
      sql.saveSession,
      id,
      write.next,
      messageCount,
      lastSeq + added.length,
      applyPatch(current, patch).title,
      write.ttlMs ?? null,
      createdAt,
      updatedAt,
      expiresAt,
    );
    return { status: "applied", version: write.next, messageCount };
  }

  /** Remove condemned sessions, long ones in steps. Returns how many were still there. */
  async #remove(
    sessions: readonly { readonly id: number; readonly messageCount: number }[],
    signal: AbortSignal,
  ): Promise<number> {
    if (sessions.length === 0) return 0;
    const { deleteOldestMessages, deleteSessions } = this.#sql;
    for (const { id, messageCount } of sessions) {
      if (messageCount <= messagesPerStep) continue;
      let count: number;
      do {
        ({ count } = await this.#connected.write(
          signal,
          deleteOldestMessages,
          id,
          messagesPerStep,
        ));
      } while (count > 0);
    }
    const ids = sessions.map(({ id }) => id);
    return (await this.#connected.write(signal, deleteSessions, ids)).count;
  }
}

function keyColumns({ id, tenant, user, conversation }: Key) {
  return [id, tenant, user, conversation] as const;
}

function messageColumns(records: readonly MessageRecord[]) {
  return [
    records.map(({ id }) => id),
    records.map(({ digest }) => digest),
    records.map(({ data }) => data),
    records.map(({ createdAt }) => createdAt),
  ] as const;
}

function* portions(records: readonly MessageRecord[]): Iterable<readonly MessageRecord[]> {
  let start = 0;
  let characters = 0;
  for (const [index, { data }] of records.entries()) {
    characters += data.length;
    if (
      index > start &&
      (characters > charactersPerRequest || index - start >= messagesPerRequest)
    ) {
      yield records.slice(start, index);
      start = index;
      characters = data.length;
    }
  }
  if (start < records.length) yield records.slice(start);
}

/** Which statement serves a limit. */
function sizeOf(limit: number): Size {
  return limit <= pageSize ? "Page" : "Many";
}

function toSnapshot(key: Key, rows: readonly ReadRow[]) {
  let session: ReadSession | undefined;
  const state: Record<string, string> = {};
  const records: ReadMessage[] = [];
  for (const row of rows) {
    if (row.seq !== null) records.push(row);
    else if (row.id !== null) state[row.id] = row.data;
    else session = JSON.parse(row.data);
  }
  if (session === undefined) return undefined;
  if (session.anchor === null) return "missing" as const;
  // SQL promises no order of the kinds, and one page comes backwards.
  records.sort((a, b) => a.seq - b.seq);
  return { session: { ...session, key: key.id, state }, records };
}

function toPage(
  sessions: readonly SessionRow[],
  limit: number,
  cursorOf: (last: SessionRow) => (string | number)[],
) {
  const last = sessions.length < limit ? undefined : sessions.at(-1);
  const page = sessions.map((session) => ({ ...session, state: {} }));
  return last === undefined
    ? { sessions: page }
    : { sessions: page, cursor: encodeCursor(cursorOf(last)) };
}

function toObject(json: string | null): Record<string, string> {
  return json === null ? {} : JSON.parse(json);
}

function onlyRow<Row>(rows: readonly Row[]): Row {
  const [row] = rows;
  if (row === undefined) {
    throw new CorruptSessionError(
      "PostgreSQL hides a row that is there: look for triggers and row-level security on the tables",
    );
  }
  return row;
}

function survivalOf({ fsync, synchronousCommit, standbys }: ServerRow): Capabilities["survives"] {
  // Acknowledged before it is written.
  if (synchronousCommit === "off") return "process";
  // Written, and not synced.
  if (fsync === "off") return "engine";
  return standbys === "" || synchronousCommit === "local" ? "host" : "failover";
}

function warningsOf({ fsync, synchronousCommit }: ServerRow): string[] {
  const warnings: string[] = [];
  if (fsync === "off") {
    warnings.push(
      "PostgreSQL runs with fsync = off: a power failure can destroy the whole database",
    );
  }
  if (synchronousCommit === "off") {
    warnings.push(
      "PostgreSQL runs with synchronous_commit = off: a crash of the server takes the last acknowledged writes",
    );
  }
  return warnings;
}
