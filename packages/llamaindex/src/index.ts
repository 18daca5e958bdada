/**
 * LlamaIndex.TS with a memory that outlives its process, over any Chatstore store.
 *
 * @packageDocumentation
 */
export type { AgentWorkflow } from "./agent-run.js";
export {
  type PersistentChatMemoryBuffer,
  type PersistentChatMemoryBufferOptions,
  persistentChatMemoryBuffer,
} from "./chat-memory-buffer.js";
export type { ReplyChunk } from "./partial-reply.js";
export {
  type FlushOptions,
  type PersistentMemory,
  type PersistentMemoryOptions,
  persistentMemory,
} from "./persistent-memory.js";
