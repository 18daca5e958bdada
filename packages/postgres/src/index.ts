/**
 * Durable chat memory in PostgreSQL.
 *
 * @packageDocumentation
 */
import {
  type ChatMessage,
  type ChatStore,
  createChatStore,
  type OwnOptions,
} from "@chatstore/core";
import { PostgresBackend } from "./backend.js";
import type { PostgresChatStoreOptions } from "./options.js";

export * from "@chatstore/core";
export type { PostgresChatStoreOptions } from "./options.js";
export { postgresSchema } from "./schema.js";
export { PostgresBackend };

const ownOptions: OwnOptions<PostgresChatStoreOptions> = {
  url: true,
  pool: true,
  schema: true,
  prefix: true,
};

/**
 * A chat store in PostgreSQL 13 or later, also behind PgBouncer in transaction mode.
 *
 * @throws InvalidOptionsError for options that contradict each other.
 * @example const store = postgresChatStore({ url: process.env.DATABASE_URL });
 */
export function postgresChatStore<Message extends object = ChatMessage>(
  options: PostgresChatStoreOptions = {},
): ChatStore<Message> {
  return createChatStore("postgres", options, ownOptions, (given) => new PostgresBackend(given));
}

export { postgresChatStore as default };
