/**
 * Durable chat memory in MongoDB.
 *
 * @packageDocumentation
 */
import { type ChatStore, createChatStore } from "@chatstore/core";
import { MongoBackend } from "./backend.js";
import type { MongoChatStoreOptions } from "./options.js";

export * from "@chatstore/core";
export type { MongoChatStoreOptions } from "./options.js";
export { mongoSchema } from "./schema.js";
export { MongoBackend };

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
