/** What a memory's long-term blocks make of its messages, and how far they have come. */
import { isDeepStrictEqual } from "node:util";
import type { ChatStoreError, NewMessage } from "@chatstore/core";
import { isFromUser } from "@chatstore/core/bridge";
import { isPart, translate } from "./incoming.js";
import { eachAfter, placeOf, restoreFacts, type State, type StoredFacts } from "./restore.js";
import type { Session } from "./session.js";
import {
  type FactBlock,
  hasLongTerm,
  isFactBlock,
  type UpstreamBlock,
  type UpstreamMemory,
} from "./upstream.js";

/** A block is given at least so many tokens at once, if there are so many: small limits need not cost many requests. */
const minPortion = 2_000;
/** Of the limit. Mostly one portion is all that there is to process: what fitted before this turn. */
const fullPortion = 1.25;
/** So many times the limit in single messages is more than the limit in one text, however that is tokenised. */
const farBeyond = 4;

/**
 * Processes the messages of one memory. LlamaIndex's own way hides the message that a model is to answer, forgets what a
 * block failed to take, and hands a long history over at once.
 */
export class LongTerm {
  readonly #memory: UpstreamMemory;
  readonly #session: Session;
  readonly #storeState: () => Promise<void>;
  /** The first portion of what is being processed. */
  #first: Promise<void> | undefined;
  /** All that is being processed; never rejects. */
  #work: Promise<void> = Promise.resolve();
  /** Ids of what each block has taken. */
  readonly #taken = new Map<UpstreamBlock, Set<string>>();
  /** Ids of what all blocks have taken. */
  readonly #processed = new Set<string>();
  #newest: string | undefined;
  /** What each block knew when that was last stored: what it has learnt since is the difference. */
  readonly #known = new Map<FactBlock, readonly unknown[]>();
  #busy = false;
  readonly #tokens = new WeakMap<NewMessage, number>();
  /** Portions that were processed. */
  #rounds = 0;
  /** Number of `clear` calls: what was begun before one does not count after it. */
  #clears = 0;

  /** @param storeState Writes the session's state, with what {@link addTo} adds. */
  constructor(memory: UpstreamMemory, session: Session, storeState: () => Promise<void>) {
    this.#memory = memory;
    this.#session = session;
    this.#storeState = storeState;
    this.#noteFacts();
  }

  /**
   * Process what no longer fits into short-term memory, in portions. Resolves when the first of them is stored: a turn is not
   * to wait for a long history.
   */
  process(): Promise<void> {
    if (!hasLongTerm(this.#memory.memoryBlocks)) return Promise.resolve();
    if (this.#first !== undefined) return this.#first;
    const next = this.#next();
    if (next.length === 0) return Promise.resolve();
    const first = this.#process(next);
    this.#first = first.then(() => undefined);
    // A failure of the first is add()'s to tell.
    this.#work = first.then(
      (isDone) => this.#rest(isDone),
      () => this.#rest(false),
    );
    return this.#first;
  }

  /** Resolves when nothing is being processed. */
  get idle(): Promise<void> {
    return this.#work;
  }

  /** Make use of what was read of the session: call what it returns once that has been read. */
  reload(): (state: State) => void {
    const rounds = this.#rounds;
    return (state) => {
      this.#advance();
      // What is being learnt has not been stored yet; the next time brings the others' facts.
      if (this.#busy || this.#rounds !== rounds) return;
      restoreFacts(this.#memory.memoryBlocks, state);
      this.#noteFacts();
    };
  }

  forget(): void {
    this.#clears++;
    this.#newest = undefined;
    this.#processed.clear();
    this.#taken.clear();
    for (const block of this.#factBlocks) block.facts = [];
    this.#noteFacts();
  }

  /** A message is gone that the store has refused. */
  withdraw(id: string): void {
    this.#processed.delete(id);
    const { messages, memoryCursor } = this.#memory;
    if (this.#newest === id) this.#newest = messages[memoryCursor - 1]?.id;
  }

  /** One portion after the other, or messages that arrive meanwhile would be processed again. */
  async #rest(isDone: boolean): Promise<void> {
    try {
      while (isDone) {
        const next = this.#next();
        if (next.length === 0) return;
        isDone = await this.#process(next);
      }
    } catch (error) {
      this.#session.report(error as Error);
    } finally {
      this.#first = undefined;
    }
  }

  /** @returns Whether all blocks have taken it. */
  async #process(portion: readonly string[]): Promise<boolean> {
    const clears = this.#clears;
    this.#busy = true;
    try {
      const blocks = this.#memory.memoryBlocks.filter(({ isLongTerm }) => isLongTerm);
      const outcomes = await Promise.all(blocks.map((block) => this.#give(block, portion)));
      if (this.#clears !== clears) {
        this.forget();
        return false;
      }
      // What a block could not take stays where the model sees it, and is given to it again.
      if (outcomes.includes(false)) return false;
      for (const id of portion) this.#processed.add(id);
      // What the store has refused meanwhile is gone.
      const present = new Set(this.#memory.messages.map(({ id }) => id));
      this.#newest = portion.findLast((id) => present.has(id)) ?? this.#newest;
      this.#advance();
      this.#rounds++;
      await this.#store();
      return true;
    } finally {
      this.#busy = false;
    }
  }

  /** Ids of the messages to process next: up to the user's newest one, which is being answered. */
  #next(): string[] {
    const { messages, memoryCursor, tokenLimit, shortTermTokenLimitRatio } = this.#memory;
    const unprocessed = messages.slice(memoryCursor);
    const limit = Math.ceil(tokenLimit * shortTermTokenLimitRatio);
    if (!this.#exceeds(unprocessed, limit)) return [];
    const turn = unprocessed.findLastIndex(isFromUser);
    const ended = turn === -1 ? unprocessed : unprocessed.slice(0, turn);
    const most = Math.max(fullPortion * limit, minPortion);
    let tokens = 0;
    const end = ended.findIndex((message, index) => {
      tokens += this.#tokensOf(message);
      const before = ended[index - 1];
      return before !== undefined && tokens > most && !isPart(before);
    });
    return ended.slice(0, end === -1 ? undefined : end).map(({ id }) => id as string);
  }

  /** As LlamaIndex counts, but a history that is far longer is not tokenised whole for each of its portions. */
  #exceeds(messages: readonly NewMessage[], limit: number): boolean {
    let tokens = 0;
    for (const message of messages) {
      tokens += this.#tokensOf(message);
      if (tokens > farBeyond * limit) return true;
    }
    return this.#memory.countMemoryMessagesToken(messages) > limit;
  }

  #tokensOf(message: NewMessage): number {
    let tokens = this.#tokens.get(message);
    if (tokens === undefined) {
      tokens = this.#memory.countMemoryMessagesToken([message]);
      this.#tokens.set(message, tokens);
    }
    return tokens;
  }

  /** @returns Whether the block has taken all of it. */
  async #give(block: UpstreamBlock, portion: readonly string[]): Promise<boolean> {
    const taken = this.#taken.get(block) ?? new Set();
    this.#taken.set(block, taken);
    const wanted = new Set(portion.filter((id) => !taken.has(id)));
    const messages = this.#memory.messages.filter(({ id }) => wanted.has(id as string));
    if (messages.length === 0) return true;
    const facts = isFactBlock(block) ? [...block.facts] : [];
    try {
      await block.put(messages);
    } catch (error) {
      // It may have learnt half of it, and would learn that twice.
      if (isFactBlock(block)) block.facts = facts;
      const { logger = console } = this.#memory;
      logger.warn(`Failed to process messages into memory block ${block.id}:`, error);
      return false;
    }
    for (const id of wanted) taken.add(id);
    return true;
  }

  /** Move memory's cursor over what has been processed. */
  #advance(): void {
    const { messages } = this.#memory;
    while (this.#processed.has(messages[this.#memory.memoryCursor]?.id ?? "")) {
      this.#memory.memoryCursor++;
    }
  }

  async #store(): Promise<void> {
    const facts = this.#factBlocks.map((block) => [block, [...block.facts]] as const);
    await this.#storeState();
    for (const [block, known] of facts) this.#known.set(block, known);
  }

  /**
   * The stored state with what this memory has learnt: another one may have learnt and stored something meanwhile.
   * `undefined` when the conversation was erased.
   */
  async addTo(state: State): Promise<State | undefined> {
    const newest = this.#newest;
    if (newest === undefined) return state;
    const { store, key } = this.#session;
    let { cursor } = state;
    let isStored = false;
    for await (const message of eachAfter(store, key, cursor)) {
      const [last] = translate(message).slice(-1);
      if (last === undefined) continue;
      // Processed by somebody else, perhaps, and then it will be again. Nobody else's is passed over.
      if (!this.#processed.has(last.id as string)) break;
      cursor = message.id;
      isStored ||= cursor === newest;
    }
    if (!isStored && !(await this.#isStored(newest))) {
      // Its turn comes behind the message.
      if (this.#session.queued.some(({ id }) => id === newest)) return state;
      // It was erased, and what was drawn from it is not to outlive it.
      this.#noteFacts();
      return undefined;
    }
    return { ...state, cursor, facts: this.#merged(state.facts ?? []) };
  }

  /** Whether the newest message that was processed still is in the session. */
  async #isStored(id: string): Promise<boolean> {
    const { store, key } = this.#session;
    try {
      const { session } = await store.readSession(key, { after: id, limit: 1 });
      return session !== undefined;
    } catch (error) {
      if ((error as Partial<ChatStoreError>).code !== "MESSAGE_NOT_FOUND") throw error;
      return false;
    }
  }

  #merged(stored: readonly StoredFacts[]): StoredFacts[] {
    const merged = [...stored];
    for (const [index, block] of this.#factBlocks.entries()) {
      const place = placeOf(stored, block, index);
      const facts = merge(stored[place]?.facts ?? [], this.#known.get(block) ?? [], block.facts);
      merged[place === -1 ? merged.length : place] = { id: block.id, facts };
    }
    return merged;
  }

  #noteFacts(): void {
    for (const block of this.#factBlocks) this.#known.set(block, [...block.facts]);
  }

  get #factBlocks(): FactBlock[] {
    return this.#memory.memoryBlocks.filter(isFactBlock);
  }
}

/** What is stored, without what was condensed away here, and with what was learnt here. */
function merge(
  stored: readonly unknown[],
  before: readonly unknown[],
  now: readonly unknown[],
): unknown[] {
  if (isDeepStrictEqual(stored, before)) return [...now];
  const includes = (facts: readonly unknown[], fact: unknown) =>
    facts.some((one) => isDeepStrictEqual(one, fact));
  const kept = stored.filter((fact) => !includes(before, fact) || includes(now, fact));
  const learnt = now.filter((fact) => !includes(before, fact) && !includes(kept, fact));
  return [...kept, ...learnt];
}
