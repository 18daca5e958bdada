/**
 * Durable chat memory in PostgreSQL.
 *
 * @packageDocumentation
 */
import { type ChatStore, type ChatStoreOptions, createChatStore } from "@chatstore/core";
import type { Pool, PoolConfig } from "pg";
import { PostgresBackend } from "./backend.js";

export * from "@chatstore/core";
export { postgresSchema } from "./schema.js";
export { PostgresBackend };

/** Options of {@link postgresChatStore}. */
export interface PostgresChatStoreOptions extends ChatStoreOptions {
  /**
   * `postgres://user:password@host:5432/database`, percent-encoded. Default: pg's own, the environment variables
   * `PGHOST`, `PGUSER`, `PGPASSWORD` and so on.
   */
  readonly url?: string | undefined;
  /**
   * A pg pool of your own, which `close()` leaves open; or settings for the pool that the store makes, which win over the
   * URL: `{ ssl: { ca }, password: () => token(), max: 20 }`. An own pool should have a `connectionTimeoutMillis`.
   */
  readonly pool?: Pool | PoolConfig | undefined;
  /** The schema that holds the tables; any text of up to 63 bytes. Default: where the `search_path` leads. */
  readonly schema?: string | undefined;
  /** The names of all tables and indexes begin with it; any text of up to 45 bytes. Default: `chatstore_`. */
  readonly prefix?: string | undefined;
}

/**
 * A chat store in PostgreSQL 13 or later, also behind PgBouncer in transaction mode.
 *
 * @throws InvalidOptionsError for options that contradict each other.
 * @example const store = postgresChatStore({ url: process.env.DATABASE_URL });
 */
export function postgresChatStore<Options extends object = object>(
  options: PostgresChatStoreOptions = {},
): ChatStore<Options> {
  return createChatStore("postgres", options, () => new PostgresBackend(options));
}

export { postgresChatStore as default };
