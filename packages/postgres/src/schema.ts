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

/** The session, in the row without `seq`, as JSON in `data`; then messages. */
export interface ReadRow extends Omit<MessageRecord, "fresh"> {
  readonly seq: number | null;
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

/** The engine's clock, not now(): that is when the transaction began, and it may have waited for a lock since. */
const clock = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
const isLive = `(expires_at IS NULL OR expires_at > ${clock})`;
const sessionColumns = `id, key, version, message_count AS "messageCount", created_at AS "createdAt",
  updated_at AS "updatedAt", expires_at AS "expiresAt", title`;
const maxSeq = 2n ** 63n - 1n;
const stateOf = (condition: string) => `
    (SELECT json_object_agg(name, data::text) FROM {state} AS e WHERE e.session = s.id${condition})`;

/**
 * One statement, and so one snapshot: the session, and its messages on one side of a point.
 *
 * A limited page is a walk along the primary key, past the end of the session, cut to the session afterwards. Asked for
 * one session in order, a planner that expects it to be short would fetch all of it and sort.
 *
 * @param point The sequence number to begin next to. `anchor` is that of the message $3.
 */
function read(direction: ">" | "<", point: string, limited: boolean): string {
  const order = direction === ">" ? "ASC" : "DESC";
  const id = "(SELECT id FROM session)";
  const rows = limited
    ? `(SELECT * FROM {messages} WHERE (session, seq) ${direction} (${id}, ${point})
        ORDER BY session ${order}, seq ${order} LIMIT $2) AS walk WHERE session = ${id}`
    : `{messages} WHERE session = ${id} AND seq ${direction} ${point} AND $2::bigint IS NULL`;
  return `
    WITH session AS (
      SELECT ${sessionColumns}, ${stateOf("")} AS state
      FROM {sessions} AS s WHERE key = $1 AND ${isLive}
    ), anchor AS (
      SELECT seq FROM {messages} WHERE session = ${id} AND id = $3::text
    )
    SELECT NULL::bigint AS seq, NULL AS id, NULL AS digest, row_to_json(one)::text AS data,
      NULL::bigint AS "createdAt"
    FROM (SELECT session.*, (SELECT seq FROM anchor) AS anchor FROM session) AS one
    UNION ALL
    SELECT seq, id, digest, data::text, created_at FROM ${rows}`;
}
type ReadParameters = [key: string, limit: number | null, anchor: string | null];
const anchor = "(SELECT seq FROM anchor)";

/**
 * Take sessions out of everybody's sight, by expiring them: what then happens to their messages, nobody sees. An append
 * that waits for such a row finds it expired and begins a new one.
 */
function condemn(which: string): string {
  return `
    WITH doomed AS (
      SELECT id, message_count AS "messageCount", ${isLive} AS live FROM {sessions} WHERE ${which}
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

  /**
   * An append in one statement. The update waits for the row's lock, then looks at the row again and counts on from what
   * is there, so numbers become visible in their order. No row comes back, and nothing is written, when the session is
   * not as required; an id that is there already is a unique violation. Both need a closer look: see `claim`.
   *
   * $6 is the version required; empty: none, the session must be absent. The lock's timeout holds for this statement.
   */
  append: sql<
    [
      ...KeyColumns,
      next: Version,
      required: Version | null,
      ttlMs: number | null,
      lockTimeout: string,
      ...MessageColumns,
    ],
    { messageCount: number }
  >(`
    WITH updated AS (
      UPDATE {sessions} SET version = $5, updated_at = ${clock},
        message_count = message_count + cardinality($9::text[]),
        last_seq = last_seq + cardinality($9::text[]),
        expires_at = CASE WHEN $7::bigint IS NULL THEN expires_at ELSE ${clock} + $7::bigint END
      WHERE key = $1 AND version <> $5 AND ($6::text IS NULL OR version = $6::text) AND ${isLive}
        AND (SELECT set_config('lock_timeout', $8, true)) IS NOT NULL
      RETURNING id, message_count, last_seq
    ), created AS (
      INSERT INTO {sessions} (key, tenant, user_id, conversation, version, message_count, last_seq,
        created_at, updated_at, expires_at)
      SELECT $1, $2, $3, $4, $5, cardinality($9::text[]), cardinality($9::text[]),
        time.now, time.now, time.now + $7::bigint
      FROM (SELECT ${clock} AS now) AS time
      WHERE ($6::text IS NULL OR $6::text = '') AND NOT EXISTS (SELECT FROM updated)
        AND (SELECT set_config('lock_timeout', $8, true)) IS NOT NULL
      ON CONFLICT (key) DO NOTHING
      RETURNING id, message_count, last_seq
    ), session AS (
      SELECT * FROM updated UNION ALL SELECT * FROM created
    ), added AS (
      INSERT INTO {messages} (session, seq, id, digest, data, created_at)
      SELECT session.id, session.last_seq - cardinality($9::text[]) + m.place,
        m.id, m.digest, m.data::json, m.created_at
      FROM session, unnest($9::text[], $10::text[], $11::text[], $12::bigint[])
        WITH ORDINALITY AS m (id, digest, data, created_at, place)
    )
    SELECT message_count AS "messageCount" FROM session`),

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
  findStanding: sql<
    [key: string, messages: readonly string[], entries: readonly string[]],
    StandingRow
  >(`
    SELECT id, version, message_count AS "messageCount", last_seq AS "lastSeq", title,
      ${isLive} AS live, ${stateOf(" AND name = ANY($3::text[])")}::text AS state,
      (SELECT json_object_agg(wanted.id, found.digest) FROM unnest($2::text[]) AS wanted (id),
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

  readAll: sql<ReadParameters, ReadRow>(read(">", "0", false)),
  readAllAfter: sql<ReadParameters, ReadRow>(read(">", anchor, false)),
  readAllBefore: sql<ReadParameters, ReadRow>(read("<", anchor, false)),
  readOldest: sql<ReadParameters, ReadRow>(read(">", "0", true)),
  readNewest: sql<ReadParameters, ReadRow>(read("<", `${maxSeq}`, true)),
  readAfter: sql<ReadParameters, ReadRow>(read(">", anchor, true)),
  readBefore: sql<ReadParameters, ReadRow>(read("<", anchor, true)),

  // Walks, as above. The planner is not to know where they begin: it would think little to be left there.
  listOfUser: sql<
    [tenant: string, user: string, updatedAt: number, key: string, limit: number],
    SessionRow
  >(`
    SELECT ${sessionColumns} FROM (
      SELECT * FROM {sessions}
      WHERE (tenant, user_id, updated_hour) <=
          ((SELECT $1::text), (SELECT $2::text), (SELECT $3::bigint / 3600000))
        AND ((tenant, user_id) <> ($1, $2)
          OR (updated_at < $3 OR updated_at = $3 AND key > $4) AND ${isLive})
      ORDER BY tenant DESC, user_id DESC, updated_hour DESC, updated_at DESC, key LIMIT $5
    ) AS walk WHERE tenant = $1 AND user_id = $2 ORDER BY updated_at DESC, key`),
  listOfTenant: sql<[tenant: string, after: number, limit: number], SessionRow>(`
    SELECT ${sessionColumns} FROM (
      SELECT * FROM {sessions} WHERE (tenant, id) > ((SELECT $1::text), (SELECT $2::bigint))
        AND (tenant <> $1 OR ${isLive})
      ORDER BY tenant, id LIMIT $3
    ) AS walk WHERE tenant = $1 ORDER BY id`),
  listAll: sql<[after: number, limit: number], SessionRow>(`
    SELECT ${sessionColumns} FROM {sessions}
    WHERE id > $1 AND ${isLive} ORDER BY id LIMIT $2`),

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
