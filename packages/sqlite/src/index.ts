/**
 * Durable chat memory in a SQLite file: the embedded default.
 *
 * @packageDocumentation
 */
import {
  type ChatMessage,
  type ChatStore,
  type ChatStoreOptions,
  createChatStore,
  type OwnOptions,
} from "@chatstore/core";
import type { Database } from "better-sqlite3";
import { SqliteBackend } from "./backend.js";

export * from "@chatstore/core";
export { sqliteSchema } from "./schema.js";
export { SqliteBackend };

/** Options of {@link sqliteChatStore}. Of `path`, `url` and `database` give one, or none. */
export interface SqliteChatStoreOptions extends ChatStoreOptions {
  /**
   * The database file. It is created when absent, its directory is not. `:memory:` is a database that ends with the
   * handle. Default: `chatstore.db` in the working directory.
   */
  readonly path?: string | undefined;
  /**
   * `path` as a URL: `sqlite:./chat.db` (relative to the working directory), `sqlite:///var/lib/app/chat.db` or
   * `sqlite::memory:`. Percent-encoded. A file in the root directory is refused: give its `path`.
   */
  readonly url?: string | undefined;
  /**
   * A better-sqlite3 database of your own, for example the one that holds the rest of your data. Its settings stay as they
   * are and `close()` leaves it open. While it is in a transaction of yours, the store waits.
   */
  readonly database?: Database | undefined;
  /** The names of all tables and indexes begin with it; any text. Default: `chatstore_`. */
  readonly prefix?: string | undefined;
  /**
   * What an acknowledged write survives. `host` (default): a power failure, at the price of one sync to disk for each
   * transaction. `process`: the end of this process, however sudden; a power failure may take the last seconds, whole
   * writes at a time. Not with `database`: its own `PRAGMA synchronous` decides.
   */
  readonly survives?: "host" | "process" | undefined;
}

const ownOptions: OwnOptions<SqliteChatStoreOptions> = {
  path: true,
  url: true,
  database: true,
  prefix: true,
  survives: true,
};

/**
 * A chat store in a SQLite file. Any number of processes of one machine may use the file at once.
 *
 * @throws InvalidOptionsError for options that contradict each other.
 * @example const store = sqliteChatStore({ path: "./chat.db" });
 */
export function sqliteChatStore<Message extends object = ChatMessage>(
  options: SqliteChatStoreOptions = {},
): ChatStore<Message> {
  return createChatStore("sqlite", options, ownOptions, (given) => new SqliteBackend(given));
}

export { sqliteChatStore as default };
