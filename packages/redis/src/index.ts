/**
 * Durable chat memory in Redis or Valkey.
 *
 * @packageDocumentation
 */
import { type ChatStore, type ChatStoreOptions, createChatStore } from "@chatstore/core";
import { RedisBackend } from "./backend.js";
import type { ConnectionOptions } from "./client.js";

export * from "@chatstore/core";
export { RedisBackend };

/** Options of {@link redisChatStore}. Give a `url`, a `client`, ioredis's options as `redis`, or the nodes of a `cluster`. */
export interface RedisChatStoreOptions extends ChatStoreOptions, ConnectionOptions {
  /** The names of all keys begin with it; any text without braces. Default: `chatstore:`. */
  readonly prefix?: string | undefined;
}

/**
 * A chat store in Redis or Valkey: standalone, with Sentinel, or as a Cluster.
 *
 * @throws InvalidOptionsError for options that are missing or contradict each other.
 * @example const store = redisChatStore({ url: "redis://localhost:6379" });
 */
export function redisChatStore<Options extends object = object>(
  options: RedisChatStoreOptions,
): ChatStore<Options> {
  return createChatStore("redis", options, () => new RedisBackend(options));
}

export { redisChatStore as default };
