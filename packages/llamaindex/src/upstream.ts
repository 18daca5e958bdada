/**
 * What the bridge uses of LlamaIndex's `Memory`, structurally: it imports nothing of LlamaIndex, whose class is the caller's own. Some members are private,
 * though in TypeScript only; tests hold them for the supported version, and {@link memoryClass} checks them at run time.
 */
import { type ChatMessage, InvalidOptionsError, type NewMessage } from "@chatstore/core";

/** Turns messages of one format into memory's own. */
export interface UpstreamAdapter {
  isCompatible(message: unknown): boolean;
  toMemory(message: unknown): NewMessage;
  fromMemory(message: NewMessage): unknown;
}

/** A block of LlamaIndex's memory: static, facts, vectors, or the user's own. */
export interface UpstreamBlock {
  readonly id: string;
  readonly isLongTerm: boolean;
  put(messages: readonly NewMessage[]): Promise<void>;
}

/** An instance of LlamaIndex's `Memory`. */
export interface UpstreamMemory {
  messages: NewMessage[];
  tokenLimit: number;
  readonly shortTermTokenLimitRatio: number;
  /** Since 0.12. */
  readonly logger?: { warn(...args: unknown[]): void };
  /** How many of the messages have been processed into long-term memory. */
  memoryCursor: number;
  /** Since 0.12: the model that `getLLM` is for when it is given none. */
  readonly llm?: unknown;
  readonly memoryBlocks: readonly UpstreamBlock[];
  readonly adapters: {
    readonly llamaindex: { fromMemory(message: NewMessage): ChatMessage } & UpstreamAdapter;
  } & Readonly<Record<string, UpstreamAdapter>>;
  add(message: unknown): Promise<void>;
  getLLM(llm?: unknown, transientMessages?: readonly ChatMessage[]): Promise<ChatMessage[]>;
  manageMemoryBlocks(): Promise<void>;
  getMemoryBlockMessages(
    blocks: readonly UpstreamBlock[],
    tokenLimit?: number,
    messages?: readonly NewMessage[],
  ): Promise<ChatMessage[]>;
  clear(): Promise<void>;
  countMessagesToken(messages: readonly ChatMessage[]): number;
  countMemoryMessagesToken(messages: readonly NewMessage[]): number;
}

/** LlamaIndex's class `Memory`. */
export type MemoryClass = new (messages: NewMessage[], options: object) => UpstreamMemory;

/**
 * The class behind the caller's own `createMemory`.
 *
 * @throws InvalidOptionsError when it is not LlamaIndex's, or of a version that works differently.
 */
export function memoryClass(createMemory: unknown): MemoryClass {
  const known = memoryClasses.get(createMemory as object);
  if (known !== undefined) return known;
  let memory: unknown;
  let cause: unknown;
  try {
    memory = typeof createMemory === "function" ? createMemory() : undefined;
  } catch (error) {
    cause = error; // such as a class, which is no function to call
  }
  if (!isMemory(memory)) {
    throw new InvalidOptionsError(
      "createMemory is not the one that this Chatstore knows: give it LlamaIndex's own function, no class and no memory, " +
        'as in import { createMemory } from "llamaindex" (0.12)',
      { cause },
    );
  }
  const found = memory.constructor as MemoryClass;
  memoryClasses.set(createMemory as object, found);
  return found;
}

/** By `createMemory`: an application has one or two. */
const memoryClasses = new WeakMap<object, MemoryClass>();

function isMemory(value: unknown): value is UpstreamMemory {
  if (typeof value !== "object" || value === null) return false;
  const memory = value as Record<keyof UpstreamMemory, unknown>;
  const methods = ["add", "getLLM", "manageMemoryBlocks", "clear", "countMessagesToken"] as const;
  return (
    Array.isArray(memory.messages) &&
    Array.isArray(memory.memoryBlocks) &&
    typeof memory.adapters === "object" &&
    typeof memory.tokenLimit === "number" &&
    typeof memory.memoryCursor === "number" &&
    methods.every((name) => typeof memory[name] === "function")
  );
}

/** Whether any block takes over what it has processed. A static block takes nothing. */
export function hasLongTerm(blocks: readonly UpstreamBlock[]): boolean {
  return blocks.some(({ isLongTerm }) => isLongTerm);
}

/** A `factExtractionBlock`: keeps what it has learnt in a private field. */
export interface FactBlock extends UpstreamBlock {
  facts: unknown[];
}

/** Whether a block is a `factExtractionBlock`. */
export function isFactBlock(block: UpstreamBlock): block is FactBlock {
  return "facts" in block && Array.isArray(block.facts);
}

/** Whether a block is a `vectorBlock`. */
export function isVectorBlock(block: UpstreamBlock): boolean {
  return "vectorStore" in block;
}

/** Whether the block made its id by itself, so that it has another one after a restart. */
export function hasRandomId(id: string): boolean {
  return /^memory-block-[0-9a-f]{8}-[0-9a-f-]{27}$/.test(id);
}
