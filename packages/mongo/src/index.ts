/**
 * Durable chat memory in MongoDB.
 *
 * @packageDocumentation
 */
import { type ChatStore, type ChatStoreOptions, createChatStore } from "@chatstore/core";
import { MongoBackend } from "./backend.js";
import type { ConnectionOptions } from "./connection.js";

export * from "@chatstore/core";
export { mongoSchema } from "./schema.js";
export { MongoBackend };

/** Options of {@link mongoChatStore}. Give a `url`, a `client` or a `db`. */
export interface MongoChatStoreOptions extends ChatStoreOptions, ConnectionOptions {
  /** The names of the collections begin with it, followed by a dot. Default: `chatstore`. */
  readonly collection?: string | undefined;
}

/**
 * A chat store in MongoDB 4.4 or later: a standalone server, a replica set, or a sharded cluster (5.1 or later).
 *
 * @throws InvalidOptionsError for options that are missing or contradict each other.
 * @example const store = mongoChatStore({ url: "mongodb://localhost:27017/app" });
 */
export function mongoChatStore<Options extends object = object>(
  options: MongoChatStoreOptions,
): ChatStore<Options> {
  return createChatStore("mongo", options, () => new MongoBackend(options));
}

export { mongoChatStore as default };
