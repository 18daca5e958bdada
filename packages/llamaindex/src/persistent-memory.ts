import { type ChatStore, InvalidOptionsError, parseSessionKey } from "@chatstore/core";
import { observeKey, warn, warnOnce, writerOf } from "@chatstore/core/bridge";
import type { AgentWorkflow } from "./agent-run.js";
import { persistentClass } from "./memory-class.js";
import { checkStore } from "./options.js";
import type { ReplyChunk } from "./partial-reply.js";
import { claimBlocks, load, lossesOf, restoreFacts } from "./restore.js";
import { memoryClass, type UpstreamBlock } from "./upstream.js";

/** Options of {@link persistentMemory}, beside those of LlamaIndex's own `createMemory`. */
export interface PersistentMemoryOptions {
  /** Where the conversation is stored. */
  readonly store: ChatStore;
  /** Whose conversation it is: made by `sessionKey`, of parts that are the same at the user's next visit. */
  readonly key: string;
  /**
   * Load only the newest n messages, for histories longer than any model reads, with the system messages at the beginning and
   * the user's newest message. With long-term memory blocks also those before that no block has processed yet. Default: all.
   */
  readonly window?: number | undefined;
  /**
   * What happens when somebody else (another request, another tab) has changed the session since this memory was opened.
   * All of them see one order in the store in any case.
   *
   * - `"keep"` (default): this memory goes on with what it began with and what was added to it; both are stored.
   * - `"refuse"`: it writes nothing any more; each write is a `VersionConflictError`. Open a new memory and decide again.
   * - `"refresh"`: `getLLM` begins with {@link PersistentMemory.refresh}; costs one read each time.
   */
  readonly stale?: "keep" | "refuse" | "refresh" | undefined;
  /** Hears once of each write that fails and that nobody awaits. Default: a process warning. */
  readonly onError?: ((error: Error) => void) | undefined;
  /** Hears, once per store, of what will be lost, or looks wrong, in how memory is used. Default: a process warning. */
  readonly onWarning?: ((warning: string) => void) | undefined;
}

/** What {@link PersistentMemory.flush} waits for. */
export interface FlushOptions {
  /**
   * Whether to wait for long-term memory blocks, too. false waits for messages only: what no block has taken yet stays where the
   * model sees it. Default: true.
   */
  readonly longTerm?: boolean | undefined;
  /** Milliseconds after which it waits for blocks no longer, and warns instead. Default: 30,000. */
  readonly timeout?: number | undefined;
}

/** What a {@link persistentMemory} has beyond LlamaIndex's `Memory`. */
export interface PersistentMemory {
  /**
   * Wait until all that was added is stored, and, for a while, until long-term memory blocks have processed it; what failed
   * before is tried again. Call it before you answer a request: agents and streams never await their writes.
   *
   * @throws what still fails, and what the store refused since the last call while nobody awaited it: the error, or an
   *   `AggregateError` of several.
   */
  flush(options?: FlushOptions): Promise<void>;

  /**
   * Read the session (or its `window`) again, so that what others have stored since is seen; what waits to be stored
   * stays at the end.
   *
   * @throws what reading the session throws. Memory is then as it was.
   */
  refresh(): Promise<void>;

  /**
   * The `state` with which one run of an agent uses this memory: for agents that many users share, since the memory given
   * to `agent()` or `multiAgent()` itself is shared by all runs.
   *
   * A tool's call is stored before the tool runs, and its result as soon as it has returned, so that a process that is
   * killed in the middle of a turn knows afterwards what was begun and what was done; LlamaIndex stores them only when the
   * agent has answered. While the store fails, the tool runs after the attempt to store its call has failed; the call stays queued.
   *
   * @param options `saveToolMessages`: false leaves tool messages to LlamaIndex. Default: true, one append for each step
   *   of the model and each result of a tool.
   * @throws InvalidOptionsError when this is no agent workflow.
   * @example
   * const { data } = await workflow.run("How is the weather?", { state: memory.runState(workflow) });
   */
  runState<State>(
    workflow: AgentWorkflow<State>,
    options?: { readonly saveToolMessages?: boolean | undefined },
  ): State;

  /**
   * Pass a chat engine's streamed response through, and keep what was said when the reader stops early or the stream
   * fails: as an assistant message with the annotation `{ partial: true }`. LlamaIndex stores only replies that were
   * read to their end. (An agent finishes and stores its reply whether or not anybody reads it.)
   *
   * @throws InvalidOptionsError, to the reader, for what is no chat engine's stream.
   * @example
   * for await (const chunk of memory.keepPartialReply(await engine.chat({ message, stream: true }))) send(chunk.delta);
   */
  keepPartialReply<Chunk extends ReplyChunk>(
    stream: AsyncIterable<Chunk>,
  ): AsyncGenerator<Chunk, void, undefined>;
}

/**
 * A LlamaIndex `Memory` that remembers: it begins with what the session holds and stores what is added to it.
 *
 * Give your own `createMemory`, from the package that your engine comes from: the result is an instance of that very
 * `Memory`, so that engines recognise it. It also takes all options of `createMemory`.
 *
 * - `add` shows the message at once, so a `getLLM` right after it sees it, and stores it in the background, in call
 *   order. Awaited, it rejects when that failed; un-awaited, `onError` hears of it. Either way the message stays visible and
 *   queued, and is tried again with the next write, with `flush()`, and by itself after a while. Not so a message that the
 *   store refuses itself, or, with a `QueueFullError`, behind more than 1,000 waiting ones: it is no longer shown. A message whose id memory holds with equal content is not added again, also where it
 *   comes back in a format that can say less. Annotations that are objects of classes are kept in their plain form.
 * - `getLLM` never fails because of the store, and takes linear time. What it gives is accepted by every provider, as
 *   `modelContext` of core says; system messages at the beginning and the user's newest message are always in it.
 * - `clear` also removes what is stored.
 * - Long-term memory continues where it was: what `factExtractionBlock` learnt is stored with the session. Give a
 *   `vectorBlock` an `id` that stays the same; make the blocks of each session anew. The user's newest message and what follows it
 *   are not processed, so that a model always sees what it is to answer; what a block fails to take is given to it again.
 * - Messages that other frameworks stored as they are, are translated; those that say nothing to a LlamaIndex engine are left
 *   out, with a warning.
 *
 * @throws InvalidSessionKeyError, InvalidOptionsError; and what reading the session throws.
 * @example
 * const memory = await persistentMemory(createMemory, { store, key });
 * const engine = new ContextChatEngine({ retriever, chatHistory: memory });
 */
export async function persistentMemory<
  Memory extends { add(message: unknown): Promise<void> },
  MemoryOptions extends object,
>(
  createMemory: (messages: never[], options: MemoryOptions) => Memory,
  options: PersistentMemoryOptions & Omit<NoInfer<MemoryOptions>, "memoryCursor">,
): Promise<Memory & PersistentMemory>;
export async function persistentMemory(
  createMemory: unknown,
  options: PersistentMemoryOptions & UpstreamOptions,
): Promise<PersistentMemory> {
  checkOptions(options);
  const {
    store,
    key,
    window,
    stale = "keep",
    onError,
    onWarning = warn,
    ...memoryOptions
  } = options;
  const { memoryBlocks = [] } = memoryOptions;
  const PersistentMemory = persistentClass(memoryClass(createMemory));
  claimBlocks(memoryBlocks, store, key);
  // What an earlier memory of this session has not stored yet belongs to the history.
  await writerOf(store, key).attempt();
  const loaded = await load(store, key, window, memoryBlocks);
  const { messages, memoryCursor, state, version } = loaded;
  restoreFacts(memoryBlocks, state);
  const { tokenLimit = state.tokenLimit } = memoryOptions;
  const memory = new PersistentMemory(
    messages,
    { ...memoryOptions, tokenLimit, memoryCursor },
    {
      store,
      key,
      window,
      refreshes: stale === "refresh",
      guard: stale === "refuse" ? { version } : undefined,
      onError,
      onWarning,
      tokenLimit,
      storedTokenLimit: state.tokenLimit,
      isLimited: memoryOptions.tokenLimit !== undefined,
    },
  );
  const warnings = [...observeKey(store, key, version !== null), ...lossesOf(memoryBlocks)];
  if (loaded.leftOut > 0) {
    warnings.push(
      `${loaded.leftOut} messages of session ${key} say nothing that a LlamaIndex engine could show its model, and were left out of its memory; they stay stored`,
    );
  }
  for (const warning of warnings) warnOnce(store, warning, onWarning);
  return memory;
}

/** What the bridge looks at of the options of `createMemory`. */
interface UpstreamOptions {
  readonly tokenLimit?: number;
  readonly memoryBlocks?: readonly UpstreamBlock[];
}

const optionNames: ReadonlySet<string> = new Set<
  keyof PersistentMemoryOptions | keyof UpstreamOptions | (string & {})
>([
  ...["store", "key", "window", "stale", "onError", "onWarning"],
  // LlamaIndex's own
  ...["tokenLimit", "shortTermTokenLimitRatio", "memoryBlocks", "customAdapters", "llm", "logger"],
]);

function checkOptions(options: PersistentMemoryOptions & UpstreamOptions): void {
  if (typeof options !== "object" || options === null) {
    throw new InvalidOptionsError(
      "persistentMemory needs options: persistentMemory(createMemory, { store, key })",
    );
  }
  const unknown = Object.keys(options).filter((name) => !optionNames.has(name));
  if (unknown.length > 0) {
    throw new InvalidOptionsError(
      `persistentMemory has no option ${unknown.join(", ")}; known: ${[...optionNames].join(", ")}`,
    );
  }
  const { store, key, window, stale, memoryBlocks = [] } = options;
  checkStore(store);
  parseSessionKey(key); // refuses what is no key
  if (window !== undefined && !(Number.isInteger(window) && window > 0)) {
    throw new InvalidOptionsError(`window is ${String(window)}; it must be a whole number from 1`);
  }
  if (stale !== undefined && !["keep", "refuse", "refresh"].includes(stale)) {
    throw new InvalidOptionsError(
      `stale is ${JSON.stringify(stale)}; it must be "keep", "refuse" or "refresh"`,
    );
  }
  if (!Array.isArray(memoryBlocks)) {
    throw new InvalidOptionsError("memoryBlocks must be an array of memory blocks");
  }
}
