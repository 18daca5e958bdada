import { randomUUID } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import type { ChatStore } from "../chat-store.js";
import { InvalidOptionsError, MessageNotFoundError } from "../errors.js";
import type { ChatMessage, MessageContent, NewMessage } from "../messages.js";
import { toKey } from "../session-key.js";
import { WritePromise } from "../write-promise.js";
import { stateEntry, staysQueued, writerOf } from "./session-writer.js";
import { arrangeToolMessages } from "./tool-messages.js";
import {
  hasRandomId,
  isFactBlock,
  isVectorBlock,
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
 *   queued, and is tried again with the next write, with `flush()`, and by itself after a while.
 *   A message whose id memory holds with equal content is added once.
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
  const { store, key, window, onError, onWarning = warn, ...memoryOptions } = options;
  const { memoryBlocks = [] } = memoryOptions;
  toKey(key);
  checkWindow(window);
  const PersistentMemory = persistentClass(memoryClass(createMemory));
  claimBlocks(memoryBlocks, store, key);
  // What an earlier memory of this session has not stored yet belongs to the history.
  await writerOf(store, key).attempt();
  const { messages, memoryCursor, state, existed } = await load(store, key, window, memoryBlocks);
  const warnings = [...observeKey(store, key, existed), ...restoreFacts(memoryBlocks, state)];
  for (const warning of warnings) warnOnce(store, warning, onWarning);
  const { tokenLimit = state.tokenLimit } = memoryOptions;
  return new PersistentMemory(
    messages,
    { ...memoryOptions, tokenLimit, memoryCursor },
    { store, key, onError, state, tokenLimit },
  );
}

/** What the bridge looks at of the options of `createMemory`. */
interface UpstreamOptions {
  readonly tokenLimit?: number;
  readonly memoryBlocks?: readonly UpstreamBlock[];
}

/** What the bridge keeps in the session's state, under {@link stateEntry}. */
interface State {
  readonly tokenLimit?: number | undefined;
  /** Id of the newest message that the long-term memory blocks have processed. */
  readonly cursor?: string | undefined;
  /** What each `factExtractionBlock` has learnt, in the order of the blocks. */
  readonly facts?: readonly StoredFacts[] | undefined;
}

interface StoredFacts {
  readonly id: string;
  readonly facts: readonly unknown[];
}

interface Attachment {
  readonly store: ChatStore;
  readonly key: string;
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
    readonly #messagesById: Map<string, NewMessage>;
    /** As it is stored, or queued to be. */
    #state: State;
    /** The processing of blocks, one after the other; never rejects. */
    #processing: Promise<void> = Promise.resolve();
    /** Number of `clear` calls: what was begun before one does not count after it. */
    #clears = 0;
    #failures: Error[] = [];
    readonly #reported = new WeakSet<Error>();

    constructor(messages: NewMessage[], options: object, attachment: Attachment) {
      super(messages, options);
      this.#attachment = attachment;
      this.#messagesById = new Map(messages.map((message) => [message.id as string, message]));
      this.#state = attachment.state;
    }

    // Not `async`: the message must be visible when `add` returns.
    override add(input: unknown): Promise<void> {
      return this.#watched(async () => {
        const adapter = Object.values(this.adapters).find((one) => one.isCompatible(input));
        if (adapter === undefined) return super.add(input); // which refuses it in its own words
        const message = complete(adapter.toMemory(input));
        const held = this.#messagesById.get(message.id);
        if (held !== undefined && sameContent(held, message)) return this.#writer.attempt();
        if (held === undefined) this.#messagesById.set(message.id, message);
        this.messages.push(message);
        const stored = this.#writer.addMessage(message).catch((error: unknown) => {
          // It may be sent again, and is then no repetition.
          if (held === undefined && !staysQueued(error)) this.#messagesById.delete(message.id);
          throw error;
        });
        await Promise.all([stored, this.#storeTokenLimit(), this.manageMemoryBlocks()]);
      });
    }

    override clear(): Promise<void> {
      return this.#watched(async () => {
        const cleared = super.clear();
        this.#clears++;
        this.#messagesById.clear();
        this.#forgetFacts();
        this.#state = {};
        await Promise.all([cleared, this.#writer.clear()]);
      });
    }

    override async getLLM(
      llm?: unknown,
      transientMessages: readonly ChatMessage[] = [],
    ): Promise<ChatMessage[]> {
      const { messages, memoryCursor } = this;
      const recent = arrangeToolMessages(messages.slice(memoryCursor));
      const view: this = Object.create(this, {
        messages: { value: [...messages.slice(0, memoryCursor), ...recent] },
        memoryCursor: { value: memoryCursor },
        countMessagesToken: { value: growingCount((some) => super.countMessagesToken(some)) },
      });
      const context = await super.getLLM.call(view, llm, transientMessages);
      // The token limit may have cut between a call and its results.
      const end = context.length - transientMessages.length;
      return [...arrangeToolMessages(context.slice(0, end)), ...transientMessages];
    }

    /** One at a time, or messages that arrive meanwhile would be processed again. */
    override manageMemoryBlocks(): Promise<void> {
      if (!this.memoryBlocks.some(({ isLongTerm }) => isLongTerm)) return Promise.resolve();
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
      failures.unshift(...this.#failures.splice(0));
      if (failures.length === 1) throw failures[0];
      if (failures.length > 1) {
        throw new AggregateError(
          failures,
          `${failures.length} writes failed; the first: ${failures[0]?.message}`,
        );
      }
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
        messages: { value: messages },
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
      return this.#writer.setState(state);
    }

    #forgetFacts(): void {
      for (const block of this.memoryBlocks.filter(isFactBlock)) block.facts = [];
    }
  };
}

/** A message as memory keeps it: with an id, and a real time even when it went over the network as JSON. */
function complete(message: NewMessage): NewMessage & { id: string } {
  const { id = randomUUID(), createdAt } = message;
  const time = typeof createdAt === "string" ? new Date(createdAt) : createdAt;
  return { ...message, id, ...(time !== undefined && { createdAt: time }) };
}

function sameContent(a: NewMessage, b: NewMessage): boolean {
  const fields = ["role", "content", "options", "annotations"] as const;
  return fields.every((field) => isDeepStrictEqual(a[field], b[field]));
}

/**
 * Counts the tokens of an array that grows by one message at a time, as `getLLM` does with what it has chosen so far, in
 * the time that the new message takes. LlamaIndex tokenises all texts anew, with a space in between; but no token reaches
 * over a space behind a word, so only what follows the last such place has to be tokenised together.
 */
function growingCount(count: (messages: readonly ChatMessage[]) => number) {
  const nothing = { length: 0, tokens: 0, settled: 0, tail: [] as readonly ChatMessage[] };
  const counts = new WeakMap<readonly ChatMessage[], typeof nothing>();
  return (messages: readonly ChatMessage[]): number => {
    let { length, tokens, settled, tail } = counts.get(messages) ?? nothing;
    for (const message of messages.slice(length)) {
      const last = tail.at(-1);
      if (last !== undefined && (endsInWord(last) || tail.length > maxTailLength)) {
        settled = tokens;
        tail = [{ role: "user", content: "" }];
      }
      tail = [...tail, message];
      tokens = settled + count(tail);
      length++;
    }
    counts.set(messages, { length, tokens, settled, tail });
    return tokens;
  };
}

/** Keeps the count linear where many texts end in white space, at the price of a token more or less. */
const maxTailLength = 16;

function endsInWord({ content }: ChatMessage): boolean {
  return /\S$/.test(typeof content === "string" ? content : textOf(content));
}

function textOf(content: MessageContent): string {
  if (typeof content === "string") return content;
  return content.map((part) => (part.type === "text" ? part.text : "")).join("");
}

/** What memory begins with. */
async function load(
  store: ChatStore,
  key: string,
  window: number | undefined,
  blocks: readonly UpstreamBlock[],
) {
  const { session, messages } = await store.readSession(key, { last: window });
  const state = (session?.state[stateEntry] ?? {}) as State;
  const loaded = { state, existed: session !== undefined };
  // Without long-term memory nothing stands for the messages before the cursor.
  if (!blocks.some(({ isLongTerm }) => isLongTerm)) return { ...loaded, messages, memoryCursor: 0 };
  const processed = messages.findIndex(({ id }) => id === state.cursor) + 1;
  if (processed > 0 || messages.length === (session?.messageCount ?? 0)) {
    return { ...loaded, messages, memoryCursor: processed };
  }
  const unprocessed = await readAfter(store, key, state.cursor);
  return { ...loaded, messages: unprocessed, memoryCursor: 0 };
}

/** Everything after the message; everything, when it is gone. */
async function readAfter(store: ChatStore, key: string, id: string | undefined) {
  try {
    return await store.getMessages(key, { after: id });
  } catch (error) {
    if (error instanceof MessageNotFoundError) return store.getMessages(key);
    throw error;
  }
}

const owners = new WeakMap<UpstreamBlock, { readonly store: ChatStore; readonly key: string }>();

/** A block holds what it has learnt: shared, it would tell one user what another one said. */
function claimBlocks(blocks: readonly UpstreamBlock[], store: ChatStore, key: string): void {
  for (const block of blocks.filter((one) => isFactBlock(one) || isVectorBlock(one))) {
    const owner = owners.get(block);
    if (owner !== undefined && (owner.store !== store || owner.key !== key)) {
      throw new InvalidOptionsError(
        `The memory block ${block.id} belongs to session ${owner.key} and would tell ${key} of it: make the blocks of each session anew`,
      );
    }
    owners.set(block, { store, key });
  }
}

/** Give blocks back what they knew. Returns what they will lose all the same. */
function restoreFacts(blocks: readonly UpstreamBlock[], state: State): string[] {
  const stored = state.facts ?? [];
  for (const [index, block] of blocks.filter(isFactBlock).entries()) {
    // A block that was given no id has another one each time, but the same place.
    const inPlace = hasRandomId(block.id) ? stored[index] : undefined;
    block.facts = [...((stored.find(({ id }) => id === block.id) ?? inPlace)?.facts ?? [])];
  }
  const warnings: string[] = [];
  if (blocks.some((block) => "maxFacts" in block && !isFactBlock(block))) {
    warnings.push(
      "What a factExtractionBlock of this version of LlamaIndex learns cannot be stored: use the version that Chatstore names",
    );
  }
  if (blocks.some((block) => isVectorBlock(block) && hasRandomId(block.id))) {
    warnings.push(
      "A vectorBlock without an id finds nothing of what it stored before a restart: give it an id that belongs to the session, for example vectorBlock({ id: key, … })",
    );
  }
  return warnings;
}

/** What was seen of a store handle. */
interface Observation {
  /** The sessions that were opened, while none of them existed; `undefined` once one did, or after the warning. */
  newKeys: Set<string> | undefined;
  readonly warnings: Set<string>;
}

const observations = new WeakMap<ChatStore, Observation>();

/** So many different sessions, all new, are suspicious. */
const suspiciouslyMany = 20;

function observationOf(store: ChatStore): Observation {
  const observation = observations.get(store) ?? { newKeys: new Set(), warnings: new Set() };
  observations.set(store, observation);
  return observation;
}

/** A key that is made anew for each request is the commonest cause of lost memory. Returns what to warn of. */
function observeKey(store: ChatStore, key: string, existed: boolean): string[] {
  const observation = observationOf(store);
  const { newKeys } = observation;
  newKeys?.add(key);
  const many = newKeys?.size === suspiciouslyMany && !existed;
  if (existed || many) observation.newKeys = undefined;
  if (!many) return [];
  return [
    `The first ${suspiciouslyMany} sessions that were opened did not exist before (the last one: ${key}). ` +
      "If some of these users have been here before, their memory is lost: check that the session key is made of ids " +
      "that stay the same (a user's id from your database; not a random id, a time or a socket's id made for each " +
      "request), and that the store is the same at each start (path, URL, prefix)",
  ];
}

function warnOnce(store: ChatStore, warning: string, onWarning: (warning: string) => void): void {
  const { warnings } = observationOf(store);
  if (warnings.has(warning)) return;
  warnings.add(warning);
  onWarning(warning);
}

function warn(message: string): void {
  process.emitWarning(message, "ChatstoreWarning");
}

function checkWindow(window: number | undefined): void {
  if (window === undefined || (Number.isInteger(window) && window > 0)) return;
  throw new InvalidOptionsError(`window is ${String(window)}; it must be a whole number from 1`);
}
