/**
 * The stored format: tables, migrations, and every statement that runs on them. `{sessions}` stands for a table and
 * `{name:sessions_by_user}` for an index, see {@link named}. All times are milliseconds since 1970: a JavaScript Date can
 * be earlier than a timestamp.
 */
import {
  InvalidOptionsError,
  type MessageRecord,
  type SessionRecord,
  type Version,
} from "@chatstore/core";

/**
 * The schema's history. A migration's position is the version that it leads from; what was released never changes.
 * Within a major version they are additive: processes of the version before go on beside the new schema.
 *
 * An append changes no indexed column, except once an hour: PostgreSQL then rewrites the session's row within its page
 * and touches no index (a HOT update). That is what the hours and the fill factor are for.
 */
const migrations = [
  `
CREATE TABLE {meta} (
  version integer NOT NULL,    -- the number of migrations that have run
  compatible integer NOT NULL  -- the oldest version whose code may use this schema
);

CREATE TABLE {sessions} (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  key text COLLATE "C" NOT NULL UNIQUE,    -- t:acme/u:alice/c:support
  tenant text COLLATE "C" NOT NULL,        -- empty: the key has none
  user_id text COLLATE "C" NOT NULL,       -- empty: a raw key
  conversation text COLLATE "C" NOT NULL,  -- empty: the key has none
  version text COLLATE "C" NOT NULL,       -- replaced by every change; never empty once committed
  message_count bigint NOT NULL,
  last_seq bigint NOT NULL,                -- the highest seq that a message of this session ever had
  created_at bigint NOT NULL,
  updated_at bigint NOT NULL,
  expires_at bigint,                       -- 0: erased, its messages are being removed
  title text,
  updated_hour bigint GENERATED ALWAYS AS (updated_at / 3600000) STORED,
  expires_hour bigint GENERATED ALWAYS AS (expires_at / 3600000) STORED
) WITH (fillfactor = 80);

CREATE INDEX {name:sessions_by_user} ON {sessions} (tenant, user_id, updated_hour);
CREATE INDEX {name:sessions_by_tenant} ON {sessions} (tenant, id);
CREATE INDEX {name:sessions_by_expiry} ON {sessions} (expires_hour) WHERE expires_hour IS NOT NULL;

CREATE TABLE {messages} (
  session bigint NOT NULL REFERENCES {sessions} ON DELETE CASCADE,
  seq bigint NOT NULL,                     -- the order; gaps are ordinary
  id text COLLATE "C" NOT NULL,
  digest text COLLATE "C" NOT NULL,        -- of the content, for idempotence
  data json NOT NULL,                      -- {"v":1,"role":"user","content":"hi",...}; json keeps every byte
  created_at bigint NOT NULL,
  PRIMARY KEY (session, seq),
  UNIQUE (session, id)
);

CREATE TABLE {state} (
  session bigint NOT NULL REFERENCES {sessions} ON DELETE CASCADE,
  name text COLLATE "C" NOT NULL,
  data json NOT NULL,                      -- {"v":1,"value":...}
  PRIMARY KEY (session, name)
);
`,
] as const;

/** The version of a schema with all migrations. */
export const currentVersion = migrations.length;
/** The oldest version whose code may use the current schema: raised only by a migration that is not additive. */
const compatibleVersion = 1;

/** A session's row, without its state. */
export interface SessionRow extends Omit<SessionRecord, "state"> {
  readonly id: number;
}

/** What a write looks at, once it holds the session's lock. */
export interface StandingRow {
  readonly id: number;
  readonly version: Version;
  readonly messageCount: number;
  readonly lastSeq: number;
  readonly title: string | null;
  readonly live: boolean;
  /** JSON: those of the state entries that were asked for. */
  readonly state: string | null;
  /** JSON: digests by id of those of the messages that were asked for. */
  readonly digests: string | null;
}

/** What a read finds: the session, as JSON of {@link ReadSession}; entries of its state; messages. */
export type ReadRow =
  | { readonly seq: null; readonly id: null; readonly data: string }
  | { readonly seq: null; readonly id: string; readonly data: string }
  | ReadMessage;
export interface ReadMessage extends Omit<MessageRecord, "fresh"> {
  readonly seq: number;
}
export interface ReadSession extends Omit<SessionRecord, "key" | "state"> {
  /** Where the message is that the page is next to; `null`: it is gone. */
  readonly anchor?: number | null;
}

export interface ServerRow {
  readonly version: number;
  readonly compatible: number;
  readonly encoding: string;
  readonly fsync: string;
  readonly synchronousCommit: string;
  readonly standbys: string;
  readonly readOnly: string;
}

declare const types: unique symbol;
/** The SQL of a statement, with the types of its parameters and rows. */
export type Sql<Parameters extends unknown[] = unknown[], Row = unknown> = string & {
  readonly [types]?: (...parameters: Parameters) => Row;
};
const sql = <Parameters extends unknown[], Row = never>(text: string): Sql<Parameters, Row> => text;

/** Columns of messages, each as an array: one parameter whatever their number. */
type MessageColumns = [
  ids: readonly string[],
  digests: readonly string[],
  data: readonly string[],
  createdAt: readonly number[],
];
type KeyColumns = [key: string, tenant: string, user: string, conversation: string];
type AppendColumns<Condition> = [
  key: string,
  next: Version,
  condition: Condition,
  ttlMs: number | null,
  lockTimeout: string,
  ...MessageColumns,
];

/** The engine's clock, not now(): that is when the transaction began, and it may have waited for a lock since. */
const clock = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
const isLive = `(s.expires_at IS NULL OR s.expires_at > ${clock})`;
const sessionColumns = `version, message_count AS "messageCount", s.created_at AS "createdAt",
  updated_at AS "updatedAt", expires_at AS "expiresAt", title`;
const rowColumns = `id, key, ${sessionColumns}`;
const maxSeq = 2n ** 63n - 1n;

/**
 * An append in one statement. `session` waits for the row's lock, then looks at the row again and counts on from what is
 * there, so numbers become visible in their order. No row comes back, and nothing is written, when the session is not as
 * required; an id that is there already is a unique violation. Both need a closer look: see `claim`.
 */
function append(session: string): string {
  return `
    WITH session AS (${session}
      RETURNING id, message_count, last_seq
    ), added AS (
      INSERT INTO {messages} (session, seq, id, digest, data, created_at)
      SELECT session.id, session.last_seq - cardinality($6::text[]) + m.place,
        m.id, m.digest, m.data::json, m.created_at
      FROM session, unnest($6::text[], $7::text[], $8::text[], $9::bigint[])
        WITH ORDINALITY AS m (id, digest, data, created_at, place)
    )
    SELECT message_count AS "messageCount" FROM session`;
}
const appended = `version = $2, updated_at = ${clock},
        message_count = s.message_count + cardinality($6::text[]),
        last_seq = s.last_seq + cardinality($6::text[]),
        expires_at = CASE WHEN $4::bigint IS NULL THEN s.expires_at ELSE ${clock} + $4::bigint END`;
/** Holds for the statement: its transaction is its own. */
const lockTimeout = "(SELECT set_config('lock_timeout', $5, true)) IS NOT NULL";

/** Reads and lists exist for so many rows at most (`Page`), and for any number (`Many`). */
export const pageSize = 100;
export type Size = "Page" | "Many";

/**
 * The first rows of a query, as many as the parameter `limit` says.
 *
 * The planner takes an unknown limit for a tenth of all rows. So a plan that does for every limit looks dear to it, and it
 * would make a new one for each execution, which takes longer than the execution. The constant tells it that there are few.
 */
function first(size: Size, limit: string, query: string): string {
  return size === "Many"
    ? `${query} LIMIT ${limit}`
    : `SELECT * FROM (${query} LIMIT ${pageSize}) AS few LIMIT ${limit}`;
}

/**
 * One statement, and so one snapshot: the session, its state, and its messages on one side of a point. Parameters are the
 * session's key; unless all are asked for, the limit; and, next to an anchor, the id of that message.
 *
 * A limited page is a walk along the primary key, past the end of the session, cut to the session afterwards. Asked for
 * one session in order, a planner that expects it to be short would fetch all of it and sort.
 */
function read(size: Size | "All", direction: ">" | "<", from: "end" | "anchor") {
  const anchored = from === "anchor";
  const id = size === "All" ? "$2" : "$3";
  const point = anchored ? "anchor.seq" : direction === ">" ? "0" : `${maxSeq}`;
  const order = direction === ">" ? "ASC" : "DESC";
  const walk = `SELECT * FROM {messages} WHERE (session, seq) ${direction} (s.id, ${point})
        ORDER BY session ${order}, seq ${order}`;
  // All of them in order, too: by the index that follows the table's pages.
  const messages =
    size === "All"
      ? `{messages} WHERE session = s.id AND seq ${direction} ${point} ORDER BY seq`
      : `(${first(size, "$2", walk)}) AS walk WHERE session = s.id`;
  return sql<[key: string, ...(number | string)[]], ReadRow>(`
    SELECT part.* FROM {sessions} AS s
    ${anchored ? `LEFT JOIN {messages} AS anchor ON anchor.session = s.id AND anchor.id = ${id}` : ""}
    CROSS JOIN LATERAL (
      SELECT NULL::bigint AS seq, NULL AS id, NULL AS digest, row_to_json(one) AS data,
        NULL::bigint AS "createdAt"
      FROM (SELECT ${sessionColumns}${anchored ? ", anchor.seq AS anchor" : ""}) AS one
      UNION ALL
      SELECT NULL, name, NULL, data, NULL FROM {state} AS e WHERE e.session = s.id
      UNION ALL
      (SELECT seq, id, digest, data, created_at FROM ${messages})
    ) AS part WHERE key = $1 AND ${isLive}`);
}

// Walks, too. The planner is not to know where they begin: it would think little to be left there.
function listOfUser(size: Size) {
  const walk = `
      SELECT * FROM {sessions} AS s
      WHERE (tenant, user_id, updated_hour) <=
          ((SELECT $1::text), (SELECT $2::text), (SELECT $3::bigint / 3600000))
        AND ((tenant, user_id) <> ($1, $2)
          OR (updated_at < $3 OR updated_at = $3 AND key > $4) AND ${isLive})
      ORDER BY tenant DESC, user_id DESC, updated_hour DESC, updated_at DESC, key`;
  return sql<
    [tenant: string, user: string, updatedAt: number, key: string, limit: number],
    SessionRow
  >(`
    SELECT ${rowColumns} FROM (${first(size, "$5", walk)}) AS s
    WHERE tenant = $1 AND user_id = $2 ORDER BY updated_at DESC, key`);
}

function listOfTenant(size: Size) {
  const walk = `
      SELECT * FROM {sessions} AS s WHERE (tenant, id) > ((SELECT $1::text), (SELECT $2::bigint))
        AND (tenant <> $1 OR ${isLive})
      ORDER BY tenant, id`;
  return sql<[tenant: string, after: number, limit: number], SessionRow>(`
    SELECT ${rowColumns} FROM (${first(size, "$3", walk)}) AS s WHERE tenant = $1 ORDER BY id`);
}

function list(size: Size) {
  const all = `
    SELECT ${rowColumns} FROM {sessions} AS s WHERE id > $1 AND ${isLive} ORDER BY id`;
  return sql<[after: number, limit: number], SessionRow>(first(size, "$2", all));
}

/**
 * Take sessions out of everybody's sight, by expiring them: what then happens to their messages, nobody sees. An append
 * that waits for such a row finds it expired and begins a new one.
 */
function condemn(which: string): string {
  return `
    WITH doomed AS (
      SELECT id, message_count AS "messageCount", ${isLive} AS live FROM {sessions} AS s WHERE ${which}
    ), condemned AS (
      UPDATE {sessions} SET expires_at = 0 WHERE id = ANY(ARRAY(SELECT id FROM doomed))
    )
    SELECT * FROM doomed`;
}
interface Condemned {
  readonly id: number;
  readonly messageCount: number;
  readonly live: boolean;
}

/** Erased text is removed in transactions of at most so many sessions. */
export const sessionsPerStep = 50;

const server = `current_setting('server_encoding') AS encoding, current_setting('fsync') AS fsync,
  current_setting('synchronous_commit') AS "synchronousCommit",
  current_setting('synchronous_standby_names') AS standbys,
  current_setting('transaction_read_only') AS "readOnly"`;

export const statements = {
  /** Fails while there is no schema. */
  inspect: sql<[], ServerRow>(`SELECT version, compatible, ${server} FROM {meta}`),
  inspectServer: sql<[], ServerRow>(`SELECT 0 AS version, 0 AS compatible, ${server}`),
  /** One for the whole database, since two stores may want to create one schema. */
  lockMigrations: sql<[]>("SELECT pg_advisory_xact_lock(hashtextextended('chatstore schema', 0))"),
  // From the catalog's rows: what a name means, to_regclass() may remember from before it waited for the lock.
  findTable: sql<[name: string, schema: string | null]>(`
    SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE relname = $1
      AND CASE WHEN $2::text IS NULL THEN nspname = ANY(current_schemas(false)) ELSE nspname = $2 END`),
  findSchema: sql<[name: string]>("SELECT FROM pg_namespace WHERE nspname = $1"),

  /** `mayExist`: otherwise the session must be absent. */
  append: sql<
    [...AppendColumns<boolean>, tenant: string, user: string, conversation: string],
    { messageCount: number }
  >(
    append(`
      INSERT INTO {sessions} AS s (key, tenant, user_id, conversation, version, message_count,
        last_seq, created_at, updated_at, expires_at)
      SELECT $1, $10, $11, $12, $2, cardinality($6::text[]), cardinality($6::text[]),
        time.now, time.now, time.now + $4::bigint
      FROM (SELECT ${clock} AS now) AS time WHERE ${lockTimeout}
      ON CONFLICT (key) DO UPDATE SET ${appended} WHERE s.version <> $2 AND $3 AND ${isLive}`),
  ),
  /** To a session that has the version `required`. */
  appendAt: sql<AppendColumns<Version>, { messageCount: number }>(
    append(`
      UPDATE {sessions} AS s SET ${appended}
      WHERE key = $1 AND version = $3 AND version <> $2 AND ${isLive} AND ${lockTimeout}`),
  ),

  /**
   * Lock the session's row, whether it is there or not. An absent one is inserted, without a version, and its id returned.
   * The next statement's snapshot is taken under the lock: what it sees stays as it is.
   */
  claim: sql<KeyColumns, { id: number }>(`
    INSERT INTO {sessions} (key, tenant, user_id, conversation, version, message_count, last_seq,
      created_at, updated_at)
    VALUES ($1, $2, $3, $4, '', 0, 0, 0, 0)
    ON CONFLICT (key) DO UPDATE SET version = excluded.version WHERE false
    RETURNING id`),
  /** How many ids there are is hidden from the planner, which would make a plan for each number. */
  findStanding: sql<
    [key: string, messages: readonly string[], entries: readonly string[]],
    StandingRow
  >(`
    SELECT id, version, message_count AS "messageCount", last_seq AS "lastSeq", title,
      ${isLive} AS live, (SELECT json_object_agg(name, data::text) FROM {state} AS e
        WHERE e.session = s.id AND name = ANY($3::text[]))::text AS state,
      (SELECT json_object_agg(wanted.id, found.digest) FROM unnest((SELECT $2::text[])) AS wanted (id),
        LATERAL (SELECT digest FROM {messages} AS m
          WHERE m.session = s.id AND m.id = wanted.id OFFSET 0) AS found)::text AS digests
    FROM {sessions} AS s WHERE key = $1`),
  /** `createdAt`: not null when `updatedAt` and `expiresAt` are given, too. */
  saveSession: sql<
    [
      id: number,
      next: Version,
      messageCount: number,
      lastSeq: number,
      title: string | null,
      ttlMs: number | null,
      createdAt: number | null,
      updatedAt: number | null,
      expiresAt: number | null,
    ]
  >(`
    UPDATE {sessions} SET version = $2, message_count = $3, last_seq = $4, title = $5,
      created_at = coalesce($7, CASE version WHEN '' THEN time.now ELSE created_at END),
      updated_at = coalesce($8, time.now),
      expires_at = CASE WHEN $7::bigint IS NOT NULL THEN $9::bigint
        WHEN $6::bigint IS NULL THEN expires_at ELSE time.now + $6::bigint END
    FROM (SELECT ${clock} AS now) AS time WHERE id = $1`),
  insertMessages: sql<[session: number, lastSeq: number, ...MessageColumns]>(`
    INSERT INTO {messages} (session, seq, id, digest, data, created_at)
    SELECT $1, $2::bigint + m.place, m.id, m.digest, m.data::json, m.created_at
    FROM unnest($3::text[], $4::text[], $5::text[], $6::bigint[])
      WITH ORDINALITY AS m (id, digest, data, created_at, place)`),
  updateMessage: sql<
    [session: number, id: string, digest: string, data: string, createdAt: number | null]
  >(`
    UPDATE {messages} SET digest = $3, data = $4, created_at = coalesce($5, created_at)
    WHERE session = $1 AND id = $2`),
  findMessages: sql<[session: number, ids: readonly string[]], { id: string }>(`
    SELECT found.id FROM unnest((SELECT $2::text[])) AS wanted (id), LATERAL (
      SELECT id FROM {messages} AS m WHERE m.session = $1 AND m.id = wanted.id OFFSET 0) AS found`),
  deleteMessages: sql<[session: number, ids: readonly string[]]>(
    "DELETE FROM {messages} WHERE session = $1 AND id = ANY($2::text[])",
  ),
  deleteMessagesAfter: sql<[session: number, id: string]>(`
    DELETE FROM {messages} WHERE session = $1
      AND seq > (SELECT seq FROM {messages} WHERE session = $1 AND id = $2)`),
  deleteAllMessages: sql<[session: number]>("DELETE FROM {messages} WHERE session = $1"),
  setState: sql<[session: number, name: string, data: string]>(`
    INSERT INTO {state} (session, name, data) VALUES ($1, $2, $3)
    ON CONFLICT (session, name) DO UPDATE SET data = excluded.data`),
  unsetState: sql<[session: number, name: string]>(
    "DELETE FROM {state} WHERE session = $1 AND name = $2",
  ),

  readAllOldest: read("All", ">", "end"),
  readAllNewest: read("All", ">", "end"),
  readAllAfter: read("All", ">", "anchor"),
  readAllBefore: read("All", "<", "anchor"),
  readPageOldest: read("Page", ">", "end"),
  readPageNewest: read("Page", "<", "end"),
  readPageAfter: read("Page", ">", "anchor"),
  readPageBefore: read("Page", "<", "anchor"),
  readManyOldest: read("Many", ">", "end"),
  readManyNewest: read("Many", "<", "end"),
  readManyAfter: read("Many", ">", "anchor"),
  readManyBefore: read("Many", "<", "anchor"),

  listPageOfUser: listOfUser("Page"),
  listManyOfUser: listOfUser("Many"),
  listPageOfTenant: listOfTenant("Page"),
  listManyOfTenant: listOfTenant("Many"),
  listPage: list("Page"),
  listMany: list("Many"),

  // In the order of their ids: two that condemn the same sessions would otherwise wait for each other.
  condemnSession: sql<[key: string], Condemned>(condemn("key = $1 FOR UPDATE")),
  condemnUser: sql<[tenant: string, user: string], Condemned>(
    condemn("tenant = $1 AND user_id = $2 ORDER BY id FOR UPDATE"),
  ),
  // The time in a subquery: an index is no use for a value that may change from row to row.
  condemnExpired: sql<[], Condemned>(
    condemn(`expires_hour <= (SELECT ${clock} / 3600000) AND expires_at <= (SELECT ${clock})
      ORDER BY expires_hour LIMIT ${sessionsPerStep} FOR UPDATE SKIP LOCKED`),
  ),
  deleteOldestMessages: sql<[session: number, count: number]>(`
    DELETE FROM {messages} WHERE session = $1 AND seq <= (SELECT max(seq) FROM (
      SELECT session, seq FROM {messages} WHERE (session, seq) > ((SELECT $1::bigint), 0)
      ORDER BY session, seq LIMIT $2) AS walk WHERE session = $1)`),
  deleteSessions: sql<[ids: readonly number[]]>(`
    DELETE FROM {sessions} WHERE id = ANY(ARRAY(
      SELECT id FROM {sessions} WHERE id = ANY($1::bigint[]) ORDER BY id FOR UPDATE))`),
} as const;

/** Where the tables are. */
export interface Names {
  /** `undefined`: where the connection's `search_path` leads. */
  readonly schema: string | undefined;
  readonly prefix: string;
}

/** SQL with real names, quoted. An index is named without its schema: it is where its table is. */
export function named(text: string, { schema, prefix }: Names): string {
  const qualifier = schema === undefined ? "" : `${quoted(schema)}.`;
  return text.replace(/\{(name:)?(\w+)\}/g, (_, bare: string | undefined, name: string) =>
    bare === undefined ? qualifier + quoted(prefix + name) : quoted(prefix + name),
  );
}

/** What creates the schema that holds the tables. */
export function schemaCreation(schema: string): string {
  return `CREATE SCHEMA IF NOT EXISTS ${quoted(schema)};\n`;
}

/** What brings the tables from a version (0: nothing there) to the current one, to be run in one transaction. */
export function migrationFrom(version: number, names: Names): string {
  const stamp = `
DELETE FROM {meta};
INSERT INTO {meta} (version, compatible) VALUES (${currentVersion}, ${compatibleVersion});
`;
  return named([...migrations.slice(version), stamp].join(""), names);
}

/**
 * The SQL that creates the tables, or migrates them from an older version: for somebody with the rights, to be run with
 * `psql` when the store itself may not (`migrate: "check"`).
 *
 * @param options `schema` and `prefix` as the store has them; `from`: the version that is there, 0 (default) for none.
 */
export function postgresSchema(
  options: {
    readonly schema?: string | undefined;
    readonly prefix?: string | undefined;
    readonly from?: number | undefined;
  } = {},
): string {
  const { from = 0 } = options;
  if (!Number.isInteger(from) || from < 0 || from >= currentVersion) {
    throw new InvalidOptionsError(
      `from is ${from}; it must be a version before ${currentVersion}, the current one`,
    );
  }
  const names = checkNames(options);
  const creation = names.schema === undefined ? "" : schemaCreation(names.schema);
  return `BEGIN;\n${statements.lockMigrations};\n${creation}${migrationFrom(from, names)}\nCOMMIT;\n`;
}

/** PostgreSQL cuts longer names without a word, and two tables become one. */
const maxNameBytes = 63;
const longestName = "sessions_by_tenant".length;

/** @throws InvalidOptionsError for what PostgreSQL cannot hold in a name. */
export function checkNames(options: {
  readonly schema?: string | undefined;
  readonly prefix?: string | undefined;
}): Names {
  const { schema, prefix = "chatstore_" } = options;
  checkName("prefix", prefix, maxNameBytes - longestName);
  if (schema !== undefined) checkName("schema", schema, maxNameBytes);
  if (schema === "") throw new InvalidOptionsError("schema is empty: leave it out, or name one");
  return { schema, prefix };
}

function checkName(option: string, name: string, maxBytes: number): void {
  if (typeof name !== "string" || name.includes("\0") || !name.isWellFormed()) {
    throw new InvalidOptionsError(
      `${option} must be a string without NUL and lone surrogates: it is part of names in the database`,
    );
  }
  const bytes = Buffer.byteLength(name);
  if (bytes > maxBytes) {
    throw new InvalidOptionsError(
      `${option} is ${bytes} bytes long, at most ${maxBytes} are allowed: PostgreSQL cuts long names`,
    );
  }
}

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
