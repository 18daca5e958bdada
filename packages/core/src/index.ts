/**
 * Durable chat memory: the contract, session keys, and what applications and backends share.
 *
 * @packageDocumentation
 */
export * from "./backend.js";
export { type ModelContextOptions, modelContext } from "./bridge/context.js";
export { nativeContext } from "./bridge/native-context.js";
export * from "./chat-store.js";
export { recordDigest } from "./codec.js";
export { createChatStore, type OwnOptions } from "./create.js";
export { decodeCursor, encodeCursor } from "./cursor.js";
export * from "./errors.js";
export { MemoryBackend, type MemoryChatStoreOptions, memoryChatStore } from "./memory-backend.js";
export type * from "./messages.js";
export { type ChatStoreConfig, type ChatStoreFactory, openChatStore } from "./open.js";
export {
  type ParsedSessionKey,
  parseSessionKey,
  rawSessionKey,
  type SessionKey,
  type SessionKeyParts,
  sessionKey,
} from "./session-key.js";
export type * from "./store-types.js";
export {
  parsePathUrl,
  parseServerUrl,
  refuseUrl,
  type ServerUrl,
  type ServerUrlRules,
} from "./url.js";
export type { Damage } from "./verify.js";
