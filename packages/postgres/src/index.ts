/**
 * Durable chat memory in PostgreSQL.
 *
 * @packageDocumentation
 */
import { type ChatStore, createChatStore } from "@chatstore/core";
import { PostgresBackend } from "./backend.js";
import type { PostgresChatStoreOptions } from "./options.js";

export * from "@chatstore/core";
export type { PostgresChatStoreOptions } from "./options.js";
export { postgresSchema } from "./schema.js";
export { PostgresBackend };

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
