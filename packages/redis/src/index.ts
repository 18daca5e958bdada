/**
 * Durable chat memory in Redis or Valkey.
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
import { RedisBackend } from "./backend.js";
import type { ConnectionOptions } from "./client.js";

export * from "@chatstore/core";
export { RedisBackend };

/** Options of {@link redisChatStore}. Give a `url`, a `client`, ioredis's options as `redis`, or the nodes of a `cluster`. */
export interface RedisChatStoreOptions extends ChatStoreOptions, ConnectionOptions {
  /** The names of all keys begin with it; any text without braces. Default: `chatstore:`. */
  readonly prefix?: string | undefined;
}

const ownOptions: OwnOptions<RedisChatStoreOptions> = {
  url: true,
  client: true,
  redis: true,
  cluster: true,
  clusterOptions: true,
  waitReplicas: true,
  prefix: true,
};

/**
 * A chat store in Redis or Valkey: standalone, with Sentinel, or as a Cluster.
 *
 * @throws InvalidOptionsError for options that are missing or contradict each other.
 * @example const store = redisChatStore({ url: "redis://localhost:6379" });
 */
export function redisChatStore<Message extends object = ChatMessage>(
  options: RedisChatStoreOptions,
): ChatStore<Message> {
  return createChatStore("redis", options, ownOptions, (given) => new RedisBackend(given));
}

export { redisChatStore as default };
