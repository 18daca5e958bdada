/**
 * The stored format: tables, migrations, and every statement that runs on them. `{sessions}` stands for the quoted name
 * of a table or index, see {@link named}. All times are milliseconds since 1970.
 */
import { InvalidOptionsError, type Key, type Scope, type SessionRecord } from "@chatstore/core";

/**
 * The schema's history. A migration's position is the version that it leads from; what was released never changes.
 * Within a major version they are additive: processes of the version before go on beside the new schema.
 */
const migrations = [
  `
CREATE TABLE {meta} (
  version INTEGER NOT NULL,    -- the number of migrations that have run
  compatible INTEGER NOT NULL  -- the oldest version whose code may use this schema
) STRICT;

CREATE TABLE {sessions} (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,    -- t:acme/u:alice/c:support
  tenant TEXT NOT NULL,        -- empty: the key has none
  user TEXT NOT NULL,          -- empty: a raw key
  conversation TEXT NOT NULL,  -- empty: the key has none
  version TEXT NOT NULL,       -- replaced by every change
  message_count INTEGER NOT NULL,
  last_seq INTEGER NOT NULL,   -- the highest seq that a message of this session ever had
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  updated_hour INTEGER NOT NULL,  -- since 1970; indexed in place of the time, so that few changes touch the index
  expires_at INTEGER,
  title TEXT
) STRICT;

CREATE INDEX {sessions_by_user} ON {sessions} (tenant, user, updated_hour DESC);
CREATE INDEX {sessions_by_tenant} ON {sessions} (tenant);
CREATE INDEX {sessions_by_expiry} ON {sessions} (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE {messages} (
  -- session << 32 | seq: a session's rows lie together, in their order, and inner pages hold no text
  place INTEGER PRIMARY KEY,
  session INTEGER NOT NULL GENERATED ALWAYS AS (place >> 32) VIRTUAL,     -- the id of its session
  seq INTEGER NOT NULL GENERATED ALWAYS AS (place & 0xffffffff) VIRTUAL,  -- the order; gaps are ordinary
  id TEXT NOT NULL,
  digest TEXT NOT NULL,        -- of the content, for idempotence
  data TEXT NOT NULL,          -- {"v":1,"role":"user","content":"hi",...}
  created_at INTEGER NOT NULL,
  UNIQUE (session, id)
) STRICT;

CREATE TABLE {state} (
  session INTEGER NOT NULL,    -- the id of its session
  name TEXT NOT NULL,
  data TEXT NOT NULL,          -- {"v":1,"value":...}
  PRIMARY KEY (session, name)
) WITHOUT ROWID, STRICT;
`,
] as const;

/** The version of a schema with all migrations. */
export const currentVersion = migrations.length;
/** The oldest version whose code may use the current schema: raised only by a migration that is not additive. */
const compatibleVersion = 1;

/** A session's row. */
export type SessionRow = readonly [
  key: string,
  version: string,
  messageCount: number,
  createdAt: number,
  updatedAt: number,
  expiresAt: number | null,
  title: string | null,
  id: number,
  lastSeq: number,
];
type LookRow =
  | readonly [...SessionRow, now: number]
  | readonly [key: null, ...others: null[], now: number];
const sessionColumns = `key, version, message_count, created_at, updated_at, expires_at, title,
  id, last_seq`;
/** A message's row. */
export type MessageRow = readonly [id: string, digest: string, data: string, createdAt: number];
const messageColumns = "id, digest, data, created_at";

declare const types: unique symbol;
/**
 * The SQL of a statement, with the types of its parameters and rows. Rows are arrays: better-sqlite3 takes a third longer to
 * make objects.
 */
export type Sql<Parameters extends unknown[] = unknown[], Row = readonly unknown[]> = string & {
  readonly [types]?: (...parameters: Parameters) => Row;
};
const sql = <Parameters extends unknown[], Row extends readonly unknown[] = never>(
  text: string,
): Sql<Parameters, Row> => text;

// A function hides the condition from the planner, which would otherwise look for an index that serves it.
const isLive = "ifnull(expires_at > @now, TRUE)";
type Place = { readonly session: number; readonly seq: number };
type Page = { readonly limit: number; readonly now: number };

/** What `updated_hour` holds. */
export function hourOf(time: number): number {
  return Math.floor(time / 3_600_000);
}

/** The engine's clock: no other stamps sessions and judges expiry. */
const now = "CAST(round(unixepoch('subsec') * 1000) AS INTEGER)";

/** What runs once the schema is there. */
export const statements = {
  clock: sql<[], [now: number]>(`SELECT ${now}`),

  /** Always one row; all but the time is null when there is no such session. */
  findSession: sql<[key: string], LookRow>(
    `SELECT ${sessionColumns}, ${now} FROM (SELECT 1) LEFT JOIN {sessions} ON key = ?`,
  ),
  findSessionsOfUser: sql<[tenant: string, user: string], SessionRow>(
    `SELECT ${sessionColumns} FROM {sessions} WHERE tenant = ? AND user = ?`,
  ),
  findExpired: sql<[now: number, limit: number], [id: number]>(
    "SELECT id FROM {sessions} WHERE expires_at <= ? LIMIT ?",
  ),
  createSession: sql<
    [Omit<SessionRecord, "state"> & Omit<Key, "id"> & { readonly lastSeq: number; hour: number }]
  >(`
    INSERT INTO {sessions} (key, tenant, user, conversation, version, message_count, last_seq,
      created_at, updated_at, updated_hour, expires_at, title)
    VALUES (@key, @tenant, @user, @conversation, @version, @messageCount, @lastSeq,
      @createdAt, @updatedAt, @hour, @expiresAt, @title)`),
  updateSession: sql<
    [
      version: string,
      messageCount: number,
      lastSeq: number,
      createdAt: number,
      updatedAt: number,
      expiresAt: number | null,
      title: string | null,
      id: number,
    ]
  >(`
    UPDATE {sessions} SET version = ?, message_count = ?, last_seq = ?,
      created_at = ?, updated_at = ?, expires_at = ?, title = ?
    WHERE id = ?`),
  /** An update that names an indexed column rewrites the index, whether that changes or not. */
  setHour: sql<[hour: number, id: number]>("UPDATE {sessions} SET updated_hour = ? WHERE id = ?"),
  deleteSession: sql<[id: number]>("DELETE FROM {sessions} WHERE id = ?"),

  messagesAfter: sql<[Place & { readonly limit: number }], MessageRow>(`
    SELECT ${messageColumns} FROM {messages}
    WHERE place > (@session << 32 | @seq) AND place < (@session + 1) << 32 ORDER BY place LIMIT @limit`),
  messagesBefore: sql<[Place & { readonly limit: number }], MessageRow>(`
    SELECT ${messageColumns} FROM {messages}
    WHERE place < (@session << 32 | @seq) AND place >= @session << 32 ORDER BY place DESC LIMIT @limit`),
  findMessage: sql<[session: number, id: string], [seq: number, digest: string]>(
    "SELECT seq, digest FROM {messages} WHERE session = ? AND id = ?",
  ),
  insertMessage: sql<
    [session: number, seq: number, id: string, digest: string, data: string, createdAt: number]
  >(`
    INSERT INTO {messages} (place, id, digest, data, created_at)
    VALUES (? << 32 | ?, ?, ?, ?, ?)`),
  updateMessage: sql<
    [digest: string, data: string, createdAt: number | null, session: number, seq: number]
  >(`
    UPDATE {messages} SET digest = ?, data = ?, created_at = ifnull(?, created_at)
    WHERE place = (? << 32 | ?)`),
  deleteMessage: sql<[session: number, id: string]>(
    "DELETE FROM {messages} WHERE session = ? AND id = ?",
  ),
  deleteMessagesAfter: sql<[Place]>(
    "DELETE FROM {messages} WHERE place > (@session << 32 | @seq) AND place < (@session + 1) << 32",
  ),

  findState: sql<[session: number], [name: string, data: string]>(
    "SELECT name, data FROM {state} WHERE session = ?",
  ),
  setState: sql<[session: number, name: string, data: string]>(`
    INSERT INTO {state} (session, name, data) VALUES (?, ?, ?)
    ON CONFLICT (session, name) DO UPDATE SET data = excluded.data`),
  unsetState: sql<[session: number, name: string]>(
    "DELETE FROM {state} WHERE session = ? AND name = ?",
  ),
  deleteState: sql<[session: number]>("DELETE FROM {state} WHERE session = ?"),

  /** Sorts no more than one hour's sessions at a time. */
  listOfUser: sql<[Page & Scope & { hour: number; updatedAt: number; key: string }], SessionRow>(`
    SELECT ${sessionColumns} FROM {sessions}
    WHERE tenant = @tenant AND user = @user AND updated_hour <= @hour AND updated_at <= @updatedAt
      AND (updated_at < @updatedAt OR key > @key) AND ${isLive}
    ORDER BY updated_hour DESC, updated_at DESC, key LIMIT @limit`),
  listOfTenant: sql<[Page & { id: number; tenant: string }], SessionRow>(`
    SELECT ${sessionColumns} FROM {sessions}
    WHERE tenant = @tenant AND id > @id AND ${isLive} ORDER BY id LIMIT @limit`),
  listAll: sql<[Page & { id: number }], SessionRow>(`
    SELECT ${sessionColumns} FROM {sessions}
    WHERE id > @id AND ${isLive} ORDER BY id LIMIT @limit`),
} as const;

/** The schema's version; there is none before the first migration. */
export const schemaVersion = sql<[], [version: number, compatible: number]>(
  "SELECT version, compatible FROM {meta}",
);

/** SQL with the names that begin with `prefix`, quoted, in place of `{name}`. */
export function named(sql: string, prefix: string): string {
  const quoted = prefix.replaceAll('"', '""');
  return sql.replace(/\{(\w+)\}/g, (_, name: string) => `"${quoted}${name}"`);
}

/** What brings a schema from a version (0: nothing there) to the current one, to be run in one transaction. */
export function migrationFrom(version: number, prefix: string): string {
  const stamp = `
DELETE FROM {meta};
INSERT INTO {meta} (version, compatible) VALUES (${currentVersion}, ${compatibleVersion});
`;
  return named([...migrations.slice(version), stamp].join(""), prefix);
}

/**
 * The SQL that creates the tables, or migrates them from an older version: for somebody with the rights, to be run with
 * the `sqlite3` program when the store itself may not (`migrate: "check"`).
 *
 * @param options `prefix` as the store has it; `from`: the version that is there, 0 (default) for none.
 */
export function sqliteSchema(
  options: { readonly prefix?: string | undefined; readonly from?: number | undefined } = {},
): string {
  const { prefix, from = 0 } = options;
  if (!Number.isInteger(from) || from < 0 || from >= currentVersion) {
    throw new InvalidOptionsError(
      `from is ${from}; it must be a version before ${currentVersion}, the current one`,
    );
  }
  const migration = migrationFrom(from, checkPrefix(prefix));
  return `PRAGMA journal_mode = WAL;\nBEGIN IMMEDIATE;\n${migration}\nCOMMIT;\n`;
}

export const schemaAdvice =
  'let somebody with the rights run the SQL of sqliteSchema(), or open with migrate: "auto"';

/** @throws InvalidOptionsError for what SQLite cannot hold in a name. */
export function checkPrefix(prefix = "chatstore_"): string {
  if (typeof prefix !== "string" || prefix.includes("\0") || !prefix.isWellFormed()) {
    throw new InvalidOptionsError(
      "prefix must be a string without NUL and lone surrogates: it begins the names of tables",
    );
  }
  if (/^sqlite_/i.test(prefix)) {
    throw new InvalidOptionsError('prefix must not begin with "sqlite_": SQLite reserves it');
  }
  return prefix;
}
