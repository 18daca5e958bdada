import { setTimeout as delay } from "node:timers/promises";
import type { ConformanceHooks } from "@chatstore/core/conformance";
import type { Engine, TcpProxy } from "@chatstore/engines";
import { Client, escapeIdentifier, escapeLiteral, type QueryResultRow } from "pg";

/** Run statements beside the store, on a connection of their own. */
export async function sql<Row extends QueryResultRow>(
  url: string,
  text: string,
  values: unknown[] = [],
): Promise<Row[]> {
  const client = new Client(url);
  client.on("error", () => {}); // a server that is killed says goodbye to it, too
  await client.connect();
  try {
    return (await client.query<Row>(text, values)).rows;
  } finally {
    await client.end();
  }
}

/** What the suite sees beside the store, whose stores go through the proxy and have a schema for each namespace. */
export function hooksOf({ url, crash }: Engine, proxy: TcpProxy): ConformanceHooks {
  return {
    async dump(schema) {
      const tables = await sql<{ tablename: string }>(
        url,
        "SELECT tablename FROM pg_tables WHERE schemaname = $1",
        [schema],
      );
      const rows = tables.map(({ tablename }) =>
        sql<{ row: string }>(
          url,
          `SELECT row_to_json(t)::text AS row FROM ${tableOf(schema, tablename)} AS t`,
        ),
      );
      return (await Promise.all(rows))
        .flat()
        .map(({ row }) => row)
        .join("\n");
    },

    async tamper(schema, search, replacement) {
      const [from, to] = [search, replacement].map(escapeLiteral);
      // The column's type refuses what is not JSON; a damaged disk does not ask it.
      await sql(
        url,
        `BEGIN; CREATE CAST (text AS json) WITHOUT FUNCTION;
        UPDATE ${tableOf(schema, "chatstore_messages")} SET data = replace(data::text, ${from}, ${to})::json;
        DROP CAST (text AS json); COMMIT`,
      );
    },

    async cutConnections() {
      proxy.cutAll();
    },

    async outage(_, during) {
      proxy.blackHole();
      proxy.cutAll();
      await during();
      proxy.heal();
    },

    loseAnswer: (_, nth, run, meanwhile) => proxy.loseReply(nth, run, meanwhile),

    async roundTrips(_, run) {
      const before = proxy.roundTrips;
      await run();
      return proxy.roundTrips - before;
    },

    connections: async () => proxy.connections,
    ...(crash !== undefined && { crash: () => crash() }),

    async schema(schema) {
      const names = await sql<{ name: string }>(
        url,
        `SELECT 'schema ' || nspname AS name FROM pg_namespace WHERE nspname = $1
          UNION SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace($1) ORDER BY name`,
        [schema],
      );
      return names.map(({ name }) => name).join("\n");
    },

    async newerSchema(schema) {
      await sql(
        url,
        `UPDATE ${tableOf(schema, "chatstore_meta")} SET version = 1000, compatible = 1000`,
      );
    },

    async drop(schema) {
      await sql(url, `DROP SCHEMA IF EXISTS ${escapeIdentifier(schema)} CASCADE`);
    },

    async work(schema, run) {
      const before = await rowsRead(url, schema);
      await run();
      return (await rowsRead(url, schema)) - before;
    },
  };
}

/** How many rows of the schema's tables statements have looked at, ever. */
async function rowsRead(url: string, schema: string): Promise<number> {
  // A connection reports what it did at its leisure, or when it ends.
  const others =
    "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
  await sql(url, `SELECT pg_terminate_backend(pid) ${others}`);
  while ((await sql(url, `SELECT 1 ${others} LIMIT 1`)).length > 0) await delay(5);
  const [row] = await sql<{ rows: string }>(
    url,
    `SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0) AS rows
      FROM pg_stat_user_tables WHERE schemaname = $1`,
    [schema],
  );
  return Number(row?.rows);
}

function tableOf(schema: string, name: string): string {
  return `${escapeIdentifier(schema)}.${escapeIdentifier(name)}`;
}
