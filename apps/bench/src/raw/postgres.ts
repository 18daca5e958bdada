/**
 * The least that could work on PostgreSQL: one prepared statement that upserts the session's row and inserts the messages,
 * through a pool of the same client library.
 *
 * - Order: `seq` counts on from the row's count, under the row's lock. Unique ids: an index. Atomic: one statement.
 * - Sessions are indexed by user only, so that an append moves no entry of an index.
 * - Left out: digests, compare-and-set, expiry, state, title, giving up on a server that does not answer.
 */
import { randomUUID } from "node:crypto";
import pg from "pg";
import type {
  Contestant,
  Conversation,
  Durability,
  Filling,
  Message,
  Place,
} from "../contestant.js";
import { encode, keyOf } from "./encoding.js";

const schema = (name: string) => `
CREATE SCHEMA IF NOT EXISTS ${name};
CREATE TABLE IF NOT EXISTS ${name}.sessions (
  id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  key text COLLATE "C" NOT NULL UNIQUE,
  user_id text COLLATE "C" NOT NULL,
  name text NOT NULL,
  version text NOT NULL,
  count bigint NOT NULL,
  updated timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS sessions_by_user ON ${name}.sessions (user_id);
CREATE TABLE IF NOT EXISTS ${name}.messages (
  session bigint NOT NULL,
  seq bigint NOT NULL,
  id text COLLATE "C" NOT NULL,
  data json NOT NULL,
  created timestamptz NOT NULL,
  PRIMARY KEY (session, seq),
  UNIQUE (session, id)
);`;

export async function open({ at, namespace }: Place): Promise<Contestant> {
  const pool = openPool({ connectionString: at });
  await pool.query(schema(namespace));

  const messages = `${namespace}.messages`;
  const sessions = `${namespace}.sessions`;
  const appendMessages = {
    name: `${namespace}_append`,
    text: `
    WITH session AS (
      INSERT INTO ${sessions} AS s (key, user_id, name, version, count, updated)
      VALUES ($1, $2, $3, $4, cardinality($5::text[]), now())
      ON CONFLICT (key) DO UPDATE SET version = excluded.version, updated = excluded.updated,
        count = s.count + excluded.count
      RETURNING id, count
    )
    INSERT INTO ${messages} (session, seq, id, data, created)
    SELECT session.id, session.count - cardinality($5::text[]) + m.place - 1, m.id, m.data::json, now()
    FROM session, unnest($5::text[], $6::text[]) WITH ORDINALITY AS m (id, data, place)`,
  };
  const ofSession = `FROM ${messages} WHERE session = (SELECT id FROM ${sessions} WHERE key = $1)`;
  const columns = "SELECT id, created, data";
  const selectAll = {
    name: `${namespace}_all`,
    text: `${columns} ${ofSession} ORDER BY seq`,
  };
  const selectNewest = {
    name: `${namespace}_newest`,
    text: `${columns} ${ofSession} ORDER BY seq DESC LIMIT $2`,
  };
  const selectPage = {
    name: `${namespace}_page`,
    text: `${columns} ${ofSession} AND seq < (SELECT seq ${ofSession} AND id = $3)
      ORDER BY seq DESC LIMIT $2`,
  };
  const selectSessions = {
    name: `${namespace}_list`,
    text: `SELECT name, version, count, updated FROM ${sessions} WHERE user_id = $1
      ORDER BY updated DESC LIMIT $2`,
  };

  const append = (conversation: Conversation, batch: readonly Message[]) => {
    const { user, name } = conversation;
    const ids = batch.map(({ id }) => id ?? randomUUID());
    const values = [keyOf(conversation), user, name, randomUUID(), ids, batch.map(encode)];
    return pool.query({ ...appendMessages, values });
  };
  return {
    durability: await durabilityOf(at),
    async fill(fillings: Iterable<Filling>) {
      const client = await pool.connect();
      await client.query("BEGIN");
      for (const [conversation, batch] of fillings) {
        const { user, name } = conversation;
        const { text } = appendMessages;
        const ids = batch.map(({ id }) => id ?? randomUUID());
        const data = batch.map(encode);
        await client.query(text, [keyOf(conversation), user, name, randomUUID(), ids, data]);
      }
      await client.query("COMMIT");
      client.release();
    },
    append,
    all: async (conversation) =>
      (await pool.query({ ...selectAll, values: [keyOf(conversation)] })).rows.map(decodeRow),
    async newest(conversation, count) {
      const { rows } = await pool.query({ ...selectNewest, values: [keyOf(conversation), count] });
      return rows.reverse().map(decodeRow);
    },
    async page(conversation, { id }, count) {
      const values = [keyOf(conversation), count, id];
      const { rows } = await pool.query({ ...selectPage, values });
      return rows.reverse().map(decodeRow);
    },
    list: async (user, count) =>
      (await pool.query({ ...selectSessions, values: [user, count] })).rows.map(({ name }) => name),
    close: () => pool.end(),
  };
}

/** pg has parsed the JSON already. */
function decodeRow({ id, data }: { id: string; data: Message }): Message {
  return Object.assign(data, { id });
}

/** A pool that does not mind when the server ends before its goodbyes have arrived. */
export function openPool(config: pg.PoolConfig): pg.Pool {
  return new pg.Pool(config).on("error", () => {});
}

/** What the server makes of a commit. */
export async function durabilityOf(at: string): Promise<Durability> {
  const client = new pg.Client(at);
  await client.connect();
  const { rows } = await client.query(
    "SELECT current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS commit",
  );
  await client.end();
  const { fsync, commit } = rows[0] as { fsync: string; commit: string };
  return {
    survives: commit === "off" ? "process" : fsync === "on" ? "host" : "engine",
    settings: `fsync=${fsync}, synchronous_commit=${commit}`,
  };
}

/** Bytes of tables and indexes. */
export async function bytes({ at, namespace }: Place): Promise<number> {
  const client = new pg.Client(at);
  await client.connect();
  const { rows } = await client.query(
    `SELECT sum(pg_total_relation_size(c.oid)) AS bytes FROM pg_class AS c
      JOIN pg_namespace AS n ON n.oid = relnamespace WHERE nspname = $1 AND relkind = 'r'`,
    [namespace],
  );
  await client.end();
  return Number(rows[0].bytes);
}

/** Autovacuum would, within a minute: until then the planner knows nothing of the tables. */
export async function settle(at: string): Promise<void> {
  const client = new pg.Client(at);
  await client.connect();
  await client.query("VACUUM ANALYZE");
  await client.query("CHECKPOINT");
  await client.end();
}
