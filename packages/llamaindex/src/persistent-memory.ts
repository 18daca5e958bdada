import { setImmediate } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import {
  type ChatMessage,
  type ChatStore,
  InvalidOptionsError,
  type MessageContent,
  type NewMessage,
  parseSessionKey,
  QueueFullError,
} from "@chatstore/core";
import {
  filledIn,
  observeKey,
  staysQueued,
  throwFailures,
  type VersionGuard,
  WritePromise,
  warn,
  warnOnce,
  writerOf,
} from "@chatstore/core/bridge";
import { type AgentWorkflow, type RunObserver, stateOfRun } from "./agent-run.js";
import { arrangeToolMessages, textOf, tokenBound, tokenCount } from "./context.js";
import { claimBlocks, load, restoreFacts, type State, stateEntry } from "./restore.js";
import {
  hasLongTerm,
  isFactBlock,
  type MemoryClass,
  memoryClass,
  type UpstreamBlock,
  type UpstreamMemory,
} from "./upstream.js";

/** Failures that are kept for `flush()`. */
const maxKeptFailures = 100;

/** Options of {@link persistentMemory}, beside those of LlamaIndex's own `createMemory`. */
export interface PersistentMemoryOptions {
  /** Where the conversation is stored. */
  readonly store: ChatStore;
  /** Whose conversation it is: made by `sessionKey`, of parts that are the same at the user's next visit. */
  readonly key: string;
  /**
   * Load only the newest n messages, for histories longer than any model reads. With long-term memory blocks also those
   * before that no block has processed yet. Default: all.
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
  /** Hears of what will be lost, or looks wrong, in how memory is used. Default: a process warning. */
  readonly onWarning?: ((warning: string) => void) | undefined;
}

/** What a {@link persistentMemory} has beyond LlamaIndex's `Memory`. */
export interface PersistentMemory {
  /**
   * Wait until all that was added is stored, long-term memory included; what failed before is tried again. Call it
   * before you answer a request: agents and streams never await their writes.
   *
   * @throws what still fails, and what the store refused since the last call while nobody awaited it: the error, or an
   *   `AggregateError` of several.
   */
  flush(): Promise<void>;

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
   * Tool calls and results are stored as they occur, so that a process that is killed in the middle of a turn knows
   * afterwards what was done; LlamaIndex stores them only when the agent has answered.
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
   * @example
   * for await (const chunk of memory.keepPartialReply(await engine.chat({ message, stream: true }))) send(chunk.delta);
   */
  keepPartialReply<Chunk extends { readonly message: { readonly content: MessageContent } }>(
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
 *   queued, and is tried again with the next write, with `flush()`, and by itself after a while; more than 1,000 waiting
 *   messages are a `QueueFullError`. A message whose id memory holds with equal content is not added again.
 * - `getLLM` never fails because of the store, and takes linear time. Tool results follow their calls; a call or a result
 *   without the other is left out.
 * - `clear` also removes what is stored.
 * - Long-term memory continues where it was: what `factExtractionBlock` learnt is stored with the session. Give a
 *   `vectorBlock` an `id` that stays the same; make the blocks of each session anew.
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
  parseSessionKey(key); // refuses what is no key
  checkWindow(window);
  checkStale(stale);
  const PersistentMemory = persistentClass(memoryClass(createMemory));
  claimBlocks(memoryBlocks, store, key);
  // What an earlier memory of this session has not stored yet belongs to the history.
  await writerOf(store, key).attempt();
  const { messages, memoryCursor, state, version } = await load(store, key, window, memoryBlocks);
  const warnings = [
    ...observeKey(store, key, version !== null),
    ...restoreFacts(memoryBlocks, state),
  ];
  for (const warning of warnings) warnOnce(store, warning, onWarning);
  const { tokenLimit = state.tokenLimit } = memoryOptions;
  return new PersistentMemory(
    messages,
    { ...memoryOptions, tokenLimit, memoryCursor },
    {
      store,
      key,
      window,
      refreshes: stale === "refresh",
      guard: stale === "refuse" ? { version } : undefined,
      onError,
      state,
      tokenLimit,
    },
  );
}

/** What the bridge looks at of the options of `createMemory`. */
interface UpstreamOptions {
  readonly tokenLimit?: number;
  readonly memoryBlocks?: readonly UpstreamBlock[];
}

interface Attachment {
  readonly store: ChatStore;
  readonly key: string;
  readonly window: number | undefined;
  /** Whether `getLLM` begins with a refresh. */
  readonly refreshes: boolean;
  /** The version that each write requires, when a stale memory is to be refused. */
  readonly guard: VersionGuard | undefined;
  readonly onError: ((error: Error) => void) | undefined;
  /** As it was read. */
  readonly state: State;
  /** The one in force, unless it is the default. */
  readonly tokenLimit: number | undefined;
}

type PersistentClass = new (
  messages: NewMessage[],
  options: object,
  attachment: Attachment,
) => UpstreamMemory & PersistentMemory;

const classes = new WeakMap<MemoryClass, PersistentClass>();

/** One subclass for each `Memory` class: an application may hold two (ESM and CJS), and engines test `instanceof`. */
function persistentClass(Memory: MemoryClass): PersistentClass {
  const derived = classes.get(Memory) ?? derive(Memory);
  classes.set(Memory, derived);
  return derived;
}

function derive(Memory: MemoryClass): PersistentClass {
  return class extends Memory implements PersistentMemory {
    // Private at run time too: JSON.stringify(memory) must print neither the store nor its password.
    readonly #attachment: Attachment;
    /** By id; from the first `add` on, since who only reads needs none. */
    #known: Map<string, NewMessage> | undefined;
    /** What the store has, or will have, before an agent adds it: the agent's object, and what it became. */
    readonly #storedAhead = new Map<object, CompleteMessage>();
    /** As it is stored, or queued to be. */
    #state: State;
    /** The processing of blocks, one after the other; never rejects. */
    #processing: Promise<void> = Promise.resolve();
    /** Number of `clear` calls: what was begun before one does not count after it. */
    #clears = 0;
    readonly #failures: Error[] = [];
    readonly #reported = new WeakSet<Error>();

    constructor(messages: NewMessage[], options: object, attachment: Attachment) {
      super(messages, options);
      this.#attachment = attachment;
      this.#state = attachment.state;
    }

    /**
     * LlamaIndex reads this option where it takes a memory for the options of a new, empty one: because the class is not
     * its own, or always, in the constructor of CondenseQuestionChatEngine.
     */
    get customAdapters(): never {
      throw new InvalidOptionsError(
        "LlamaIndex does not take this memory for one and would begin with an empty one instead. A " +
          "CondenseQuestionChatEngine is given it as engine.memory, after it was constructed with chatHistory: []. Otherwise " +
          "two copies of @llamaindex/core are at work: import createMemory from where the engine comes from, not one as ESM " +
          "and the other as CommonJS, and see that npm ls @llamaindex/core names one version",
      );
    }

    // Not `async`: the message must be visible when `add` returns.
    override add(input: unknown): Promise<void> {
      return this.#watched(async () => {
        const ahead = this.#storedAhead.get(input as object);
        const message = ahead ?? this.#toMemory(input);
        if (message === undefined) return super.add(input); // which refuses it in its own words
        this.#storedAhead.delete(input as object);
        const held = this.#messagesById.get(message.id);
        if (held !== undefined && sameContent(held, message)) return this.#writer.attempt();
        if (held === undefined) this.#messagesById.set(message.id, message);
        this.messages.push(message);
        const stored =
          ahead === undefined ? this.#writer.addMessage(message, this.#guard) : undefined;
        stored?.catch((error: unknown) => {
          // It may be sent again, and is then no repetition.
          if (held === undefined && !staysQueued(error)) this.#messagesById.delete(message.id);
        });
        await Promise.all([
          stored ?? this.#writer.attempt(),
          this.#storeTokenLimit(),
          this.manageMemoryBlocks(),
        ]);
      });
    }

    override clear(): Promise<void> {
      return this.#watched(async () => {
        const cleared = super.clear();
        this.#clears++;
        this.#known = new Map();
        this.#storedAhead.clear();
        this.#forgetFacts();
        this.#state = {};
        await Promise.all([cleared, this.#writer.clear(stateEntry, this.#guard)]);
      });
    }

    override async getLLM(
      llm?: unknown,
      transientMessages: readonly ChatMessage[] = [],
    ): Promise<ChatMessage[]> {
      if (this.#attachment.refreshes) {
        await this.refresh().catch((error: Error) => this.#report(error));
      }
      const { messages, memoryCursor } = this;
      const recent = arrangeToolMessages(messages.slice(memoryCursor));
      const choose = (count: (some: readonly ChatMessage[]) => number): Promise<ChatMessage[]> =>
        super.getLLM.call(
          Object.create(this, {
            messages: { value: [...messages.slice(0, memoryCursor), ...recent] },
            memoryCursor: { value: memoryCursor },
            countMessagesToken: { value: count },
          }),
          llm,
          transientMessages,
        );
      const tokensOf = (some: readonly ChatMessage[]) => super.countMessagesToken(some);
      // Mostly all of it fits, which is seen without tokenising anything. Blocks are asked once only: that may cost a model.
      if (this.memoryBlocks.length === 0) {
        const all = await choose(tokenBound()).catch(() => undefined);
        if (all?.length === recent.length + transientMessages.length) return all;
      }
      const context = await choose(tokenCount(tokensOf));
      // The token limit may have cut between a call and its results.
      const end = context.length - transientMessages.length;
      return [...arrangeToolMessages(context.slice(0, end)), ...transientMessages];
    }

    /** One at a time, or messages that arrive meanwhile would be processed again. */
    override manageMemoryBlocks(): Promise<void> {
      if (!hasLongTerm(this.memoryBlocks)) return Promise.resolve();
      const processed = this.#processing.then(() => this.#process());
      this.#processing = processed.catch(() => undefined);
      return processed;
    }

    async flush(): Promise<void> {
      await this.#processing;
      const failures: Error[] = [];
      await this.#writer.attempt().catch((error: Error) => failures.push(error));
      // A promise that nobody awaits reports its failure within this turn of the event loop.
      await setImmediate();
      throwFailures([...this.#failures.splice(0), ...failures]);
    }

    refresh(): Promise<void> {
      // Not beside the processing of blocks, which counts on the messages that it began with.
      const refreshed = this.#processing.then(() => this.#refresh());
      this.#processing = refreshed.catch(() => undefined);
      return refreshed;
    }

    runState<State>(
      workflow: AgentWorkflow<State>,
      { saveToolMessages = true }: { readonly saveToolMessages?: boolean | undefined } = {},
    ): State {
      const clears = this.#clears;
      const observer: RunObserver = {
        // After a clear, the agent adds all of the turn in its order.
        occurred: (message) => {
          if (this.#clears === clears) this.#storeAhead(message);
        },
        replaced: (earlier, message) => {
          const ahead = this.#storedAhead.get(earlier);
          if (ahead !== undefined) this.#storedAhead.set(message, ahead);
          this.#storedAhead.delete(earlier);
        },
        failed: (messages) => {
          for (const message of messages) void this.add(message);
        },
      };
      return stateOfRun(workflow, this, saveToolMessages ? observer : undefined) as State;
    }

    async *keepPartialReply<
      Chunk extends { readonly message: { readonly content: MessageContent } },
    >(stream: AsyncIterable<Chunk>): AsyncGenerator<Chunk, void, undefined> {
      let content = "";
      let ended = false;
      try {
        for await (const chunk of stream) {
          content += textOf(chunk.message.content);
          yield chunk;
        }
        ended = true;
      } finally {
        if (!ended && content !== "") {
          void this.add({ role: "assistant", content, annotations: [{ partial: true }] });
        }
      }
    }

    get #writer() {
      return writerOf(this.#attachment.store, this.#attachment.key);
    }

    get #guard() {
      return this.#attachment.guard;
    }

    /** Any format that memory takes, as a message; `undefined` for none. */
    #toMemory(input: unknown): CompleteMessage | undefined {
      const adapter = Object.values(this.adapters).find((one) => one.isCompatible(input));
      if (adapter === undefined) return undefined;
      const converted = adapter.toMemory(input);
      const message = complete(converted);
      const given = input as Partial<NewMessage>;
      const { llamaindex, vercel } = this.adapters;
      // What an adapter of the caller's makes, it may make the same each time.
      const isOurs = adapter === llamaindex || adapter === vercel;
      filledIn.set(message, {
        id: (isOurs ? given : converted).id === undefined,
        createdAt: (isOurs ? given : converted).createdAt === undefined,
      });
      return message;
    }

    /** Store a message that an agent will add, the same object, when it has answered. */
    #storeAhead(original: ChatMessage): void {
      const message = this.#toMemory(original);
      if (message === undefined) return; // add() will refuse it
      this.#storedAhead.set(original, message);
      void this.#watched(() =>
        this.#writer.addMessage(message, this.#guard).catch((error: unknown) => {
          // There may be room for it when the agent adds it.
          if (error instanceof QueueFullError) this.#storedAhead.delete(original);
          throw error;
        }),
      );
    }

    async #refresh(): Promise<void> {
      const { store, key, window } = this.#attachment;
      const clears = this.#clears;
      await this.#writer.attempt();
      const before = new Set(this.messages);
      const waiting = new Set(this.#writer.queuedMessages);
      const loaded = await load(store, key, window, this.memoryBlocks);
      if (this.#clears !== clears) return;
      const { messages, memoryCursor, state } = loaded;
      const stored = byId(messages);
      const own = this.messages.filter(
        (message) =>
          !stored.has(message.id as string) && (waiting.has(message) || !before.has(message)),
      );
      // Their agent still holds them itself.
      const ahead = new Set([...this.#storedAhead.values()].map(({ id }) => id));
      const isAdded = ({ id }: NewMessage) => !ahead.has(id as string);
      this.messages = [...messages.filter(isAdded), ...own];
      this.#known = undefined;
      this.memoryCursor = messages.slice(0, memoryCursor).filter(isAdded).length;
      this.#state = state;
      restoreFacts(this.memoryBlocks, state);
    }

    get #messagesById(): Map<string, NewMessage> {
      this.#known ??= byId(this.messages);
      return this.#known;
    }

    /** A promise that may be dropped: its failure is then reported, and is no unhandled rejection. */
    #watched(write: () => Promise<void>): Promise<void> {
      return WritePromise.of(write, (error) => this.#report(error as Error));
    }

    #report(error: Error): void {
      // One failed attempt rejects all the writes that waited for it.
      if (this.#reported.has(error)) return;
      this.#reported.add(error);
      const queued = staysQueued(error);
      if (!queued && this.#failures.length < maxKeptFailures) this.#failures.push(error);
      const { onError } = this.#attachment;
      if (onError !== undefined) onError(error);
      else {
        warn(`A message could not be stored${queued ? " yet" : ""}: ${error.message}`);
      }
    }

    async #storeTokenLimit(): Promise<void> {
      const { tokenLimit } = this.#attachment;
      if (tokenLimit !== this.#state.tokenLimit) await this.#store({ ...this.#state, tokenLimit });
    }

    async #process(): Promise<void> {
      const clears = this.#clears;
      const { messages, memoryCursor } = this;
      const view: this = Object.create(this, {
        memoryCursor: { value: memoryCursor, writable: true },
      });
      await super.manageMemoryBlocks.call(view);
      if (this.#clears !== clears) this.#forgetFacts();
      else if (view.memoryCursor !== memoryCursor) {
        this.memoryCursor = view.memoryCursor;
        const facts = this.memoryBlocks
          .filter(isFactBlock)
          .map((block) => ({ id: block.id, facts: [...block.facts] }));
        await this.#store({ ...this.#state, cursor: messages[view.memoryCursor - 1]?.id, facts });
      }
    }

    #store(state: State): Promise<void> {
      this.#state = state;
      return this.#writer.setState(stateEntry, state, this.#guard);
    }

    #forgetFacts(): void {
      for (const block of this.memoryBlocks.filter(isFactBlock)) block.facts = [];
    }
  };
}

type CompleteMessage = NewMessage & { id: string };

function byId(messages: readonly NewMessage[]): Map<string, NewMessage> {
  return new Map(messages.map((message) => [message.id as string, message]));
}

/** A message as memory keeps it, now and after a restart: with an id and a time, a real one even when it came as JSON. */
function complete(message: NewMessage): CompleteMessage {
  const { id = crypto.randomUUID(), createdAt = new Date() } = message;
  const time = typeof createdAt === "string" ? new Date(createdAt) : createdAt;
  return { ...message, id, createdAt: time };
}

function sameContent(a: NewMessage, b: NewMessage): boolean {
  const fields = ["role", "content", "options", "annotations"] as const;
  return fields.every((field) => isDeepStrictEqual(a[field], b[field]));
}

function checkWindow(window: number | undefined): void {
  if (window === undefined || (Number.isInteger(window) && window > 0)) return;
  throw new InvalidOptionsError(`window is ${String(window)}; it must be a whole number from 1`);
}

function checkStale(stale: string): void {
  if (["keep", "refuse", "refresh"].includes(stale)) return;
  throw new InvalidOptionsError(
    `stale is ${JSON.stringify(stale)}; it must be "keep", "refuse" or "refresh"`,
  );
}
