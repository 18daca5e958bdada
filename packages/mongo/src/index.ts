/**
 * Durable chat memory in MongoDB.
 *
 * @packageDocumentation
 */
import {
  type ChatMessage,
  type ChatStore,
  createChatStore,
  type OwnOptions,
} from "@chatstore/core";
import { MongoBackend } from "./backend.js";
import type { MongoChatStoreOptions } from "./options.js";

export * from "@chatstore/core";
export type { MongoChatStoreOptions } from "./options.js";
export { mongoSchema } from "./schema.js";
export { MongoBackend };

const ownOptions: OwnOptions<MongoChatStoreOptions> = {
  url: true,
  client: true,
  db: true,
  mongo: true,
  database: true,
  collection: true,
};

/**
 * A chat store in MongoDB 4.4 or later: a standalone server, a replica set, or a sharded cluster (5.1 or later).
 *
 * @throws InvalidOptionsError for options that are missing or contradict each other.
 * @example const store = mongoChatStore({ url: "mongodb://localhost:27017/app" });
 */
export function mongoChatStore<Message extends object = ChatMessage>(
  options: MongoChatStoreOptions,
): ChatStore<Message> {
  return createChatStore("mongo", options, ownOptions, (given) => new MongoBackend(given));
}

export { mongoChatStore as default };
