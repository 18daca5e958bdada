/** The subclass of LlamaIndex's `Memory` that remembers. */
import {
  type ChatMessage,
  InvalidOptionsError,
  type NewMessage,
  QueueFullError,
} from "@chatstore/core";
import { isFromUser, staysQueued } from "@chatstore/core/bridge";
import { type AgentWorkflow, type RunObserver, stateOfRun } from "./agent-run.js";
import { contextOf } from "./context.js";
import { type CompleteMessage, type Incoming, incoming } from "./incoming.js";
import { LongTerm } from "./long-term.js";
import { passThrough, type ReplyChunk } from "./partial-reply.js";
import type { FlushOptions, PersistentMemory } from "./persistent-memory.js";
import type { State } from "./restore.js";
import { Session, type SessionOptions } from "./session.js";
import type { MemoryClass, UpstreamMemory } from "./upstream.js";

/** What a memory has beyond what LlamaIndex's constructor is given. */
interface Attachment extends SessionOptions {
  /** Whether `getLLM` begins with a refresh. */
  readonly refreshes: boolean;
  /** The token limit in force, unless it is the default, and the one that is stored. */
  readonly tokenLimit: number | undefined;
  readonly storedTokenLimit: number | undefined;
  /** Whether the caller has set one for this memory. */
  readonly isLimited: boolean;
}

type PersistentClass = new (
  messages: NewMessage[],
  options: object,
  attachment: Attachment,
) => UpstreamMemory & PersistentMemory;

const classes = new WeakMap<MemoryClass, PersistentClass>();

/** One subclass for each `Memory` class: an application may hold two (ESM and CJS), and engines test `instanceof`. */
export function persistentClass(Memory: MemoryClass): PersistentClass {
  const derived = classes.get(Memory) ?? derive(Memory);
  classes.set(Memory, derived);
  return derived;
}

function derive(Memory: MemoryClass): PersistentClass {
  return class extends Memory implements PersistentMemory {
    // Private at run time too: JSON.stringify(memory) must print neither the store nor its password.
    readonly #attachment: Attachment;
    readonly #session: Session;
    readonly #longTerm: LongTerm;
    /** By id; from the first `add` on, since who only reads needs none. */
    #known: Map<string, NewMessage> | undefined;
    /** What the store has, or will have, before an agent adds it: the agent's object, and what it became. */
    readonly #storedAhead = new Map<object, CompleteMessage>();
    /** What an agent will add though the store has refused it. */
    readonly #refusedAhead = new WeakMap<object, unknown>();
    /** Id of what the user said, while nothing was added to this memory since. */
    #question: string | undefined;
    #tokenLimitIsStored: boolean;
    /** Number of `clear` calls: what was begun before one does not count after it. */
    #clears = 0;
    /** Whether an engine has had anything to do with this memory. */
    #isUsed = false;

    constructor(messages: NewMessage[], options: object, attachment: Attachment) {
      super(messages, options);
      this.#attachment = attachment;
      this.#session = new Session(attachment);
      this.#longTerm = new LongTerm(this, this.#session, () =>
        this.#session.changeState(this.#change),
      );
      this.#tokenLimitIsStored = attachment.tokenLimit === attachment.storedTokenLimit;
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
      this.#isUsed = true;
      return this.#session.watched(async () => {
        const refusal = this.#refusedAhead.get(input as object);
        if (refusal !== undefined) throw refusal;
        const ahead = this.#storedAhead.get(input as object);
        const given = ahead === undefined ? this.#incoming(input) : undefined;
        const message = ahead ?? given?.message;
        if (message === undefined) return super.add(input); // which refuses it in its own words
        this.#storedAhead.delete(input as object);
        const held = this.#messagesById.get(message.id);
        if (held !== undefined && (held === message || given?.isSame(held))) {
          return this.#session.attempt();
        }
        if (held === undefined) this.#messagesById.set(message.id, message);
        this.messages.push(message);
        this.#question = isFromUser(message) ? message.id : undefined;
        const stored = ahead === undefined ? this.#session.add(message) : undefined;
        stored?.catch((error: unknown) => {
          if (!staysQueued(error)) this.#withdraw(message);
        });
        await Promise.all([
          stored ?? this.#session.attempt(),
          this.#storeTokenLimit(),
          this.manageMemoryBlocks(),
        ]);
      });
    }

    override clear(): Promise<void> {
      this.#isUsed = true;
      return this.#session.watched(async () => {
        const cleared = super.clear();
        this.#clears++;
        this.#known = new Map();
        this.#storedAhead.clear();
        this.#question = undefined;
        this.#longTerm.forget();
        this.#tokenLimitIsStored = this.#attachment.tokenLimit === undefined;
        await Promise.all([cleared, this.#session.clear()]);
      });
    }

    override async getLLM(
      llm?: unknown,
      transientMessages: readonly ChatMessage[] = [],
    ): Promise<ChatMessage[]> {
      this.#isUsed = true;
      this.#warnOfContextWindow(llm);
      if (this.#attachment.refreshes) {
        await this.refresh().catch((error: Error) => this.#session.report(error));
      }
      const question =
        this.#question === undefined ? undefined : this.#messagesById.get(this.#question);
      const request = { llm: llm ?? this.llm, transientMessages, question };
      return contextOf(this, request, (view) => super.getLLM.call(view, llm, transientMessages));
    }

    override manageMemoryBlocks(): Promise<void> {
      return this.#longTerm.process();
    }

    async flush({ longTerm = true, timeout = longTermTimeout }: FlushOptions = {}): Promise<void> {
      checkTimeout(timeout);
      if (!this.#isUsed) this.#session.warn(unused);
      if (longTerm && !(await settles(this.#longTerm.idle, timeout))) {
        this.#session.warn(
          `Long-term memory blocks did not finish within ${timeout} ms, so flush() no longer waited for them. The messages are stored, and what no block has taken is given to it again; see whether its model answers`,
        );
      }
      await this.#session.flush();
    }

    async refresh(): Promise<void> {
      const clears = this.#clears;
      await this.#session.attempt();
      const before = new Set(this.messages);
      const waiting = new Set(this.#session.queued);
      const reloaded = this.#longTerm.reload();
      const { messages, memoryCursor, state } = await this.#session.load(this.memoryBlocks);
      if (this.#clears !== clears) return;
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
      reloaded(state);
    }

    runState<State>(
      workflow: AgentWorkflow<State>,
      { saveToolMessages = true }: { readonly saveToolMessages?: boolean | undefined } = {},
    ): State {
      this.#isUsed = true;
      const clears = this.#clears;
      const observer: RunObserver = {
        // After a clear, the agent adds all of the turn in its order.
        occurred: async (message) => {
          if (this.#clears === clears) await this.#storeAhead(message);
        },
        replaced: (earlier, message) => {
          const ahead = this.#storedAhead.get(earlier);
          if (ahead !== undefined) this.#storedAhead.set(message, ahead);
          this.#storedAhead.delete(earlier);
          const refusal = this.#refusedAhead.get(earlier);
          if (refusal !== undefined) this.#refusedAhead.set(message, refusal);
        },
        failed: (messages) => {
          for (const message of messages) void this.add(message);
        },
      };
      return stateOfRun(workflow, this, saveToolMessages ? observer : undefined) as State;
    }

    keepPartialReply<Chunk extends ReplyChunk>(
      stream: AsyncIterable<Chunk>,
    ): AsyncGenerator<Chunk, void, undefined> {
      return passThrough(stream, (reply) => void this.add(reply));
    }

    #incoming(input: unknown): Incoming | undefined {
      const given = incoming(this.adapters, input);
      if (given?.simplified) {
        this.#session.warn(
          "A message had annotations that are objects of classes, such as LlamaIndex's nodes: they are stored and shown in their plain form, as JSON has it",
        );
      }
      return given;
    }

    /** Store a message that an agent will add, the same object, when it has answered. Resolves when that is done or has failed. */
    async #storeAhead(original: ChatMessage): Promise<void> {
      let given: CompleteMessage | undefined;
      try {
        given = this.#incoming(original)?.message;
      } catch {
        // add() will refuse it, too
      }
      if (given === undefined) return;
      const message = given;
      this.#storedAhead.set(original, message);
      const stored = this.#session.add(message);
      void this.#session.watched(() =>
        stored.catch((error: unknown) => {
          if (!staysQueued(error)) this.#refuseAhead(message, error);
          throw error;
        }),
      );
      await stored.catch(() => undefined);
    }

    /** What was to be stored ahead and was refused: the agent may not have added it yet. */
    #refuseAhead(message: CompleteMessage, error: unknown): void {
      const waiting = [...this.#storedAhead].find(([, ahead]) => ahead === message);
      if (waiting === undefined) this.#withdraw(message);
      else {
        const [original] = waiting;
        this.#storedAhead.delete(original);
        // There may be room for it when the agent adds it.
        if (!(error instanceof QueueFullError)) this.#refusedAhead.set(original, error);
      }
    }

    /** The model must not be shown today what it will not know of tomorrow. */
    #withdraw(message: CompleteMessage): void {
      const index = this.messages.indexOf(message);
      if (index === -1) return;
      this.messages.splice(index, 1);
      if (index < this.memoryCursor) this.memoryCursor--;
      this.#longTerm.withdraw(message.id);
      // It may be sent again, and is then no repetition.
      if (this.#known?.get(message.id) === message) this.#known.delete(message.id);
      if (this.#question === message.id) this.#question = undefined;
    }

    get #messagesById(): Map<string, NewMessage> {
      this.#known ??= byId(this.messages);
      return this.#known;
    }

    async #storeTokenLimit(): Promise<void> {
      if (this.#tokenLimitIsStored) return;
      this.#tokenLimitIsStored = true;
      await this.#session.changeState(this.#change);
    }

    /** What this memory adds to the state of the session, of which it is not the only writer. */
    readonly #change = async (present: unknown): Promise<State | undefined> => {
      const state = await this.#longTerm.addTo((present ?? {}) as State);
      const { tokenLimit } = this.#attachment;
      return state && { ...state, ...(tokenLimit !== undefined && { tokenLimit }) };
    };

    #warnOfContextWindow(llm: unknown = this.llm): void {
      const { contextWindow } = (llm as { metadata?: { contextWindow?: number } })?.metadata ?? {};
      if (!contextWindow || !this.#attachment.isLimited) return;
      this.#session.warn(
        `LlamaIndex does not obey the tokenLimit of ${this.tokenLimit} where the model says how long its context is: it fills three quarters of that (${contextWindow} tokens). Give the model a contextWindow to suit, or use \`window\``,
      );
    }
  };
}

/** Milliseconds that `flush()` waits for long-term memory blocks by default. */
const longTermTimeout = 30_000;

const unused =
  "A memory was flushed that no engine has added to or read: was the conversation given to another one? ContextChatEngine takes it as chatHistory, an agent as run(input, { state: memory.runState(agent) }), and an array given as chatHistory with a call is used instead of it";

/** Whether it does so in time. */
async function settles(work: Promise<void>, timeout: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), timeout);
  });
  try {
    return await Promise.race([work.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}

function byId(messages: readonly NewMessage[]): Map<string, NewMessage> {
  return new Map(messages.map((message) => [message.id as string, message]));
}

function checkTimeout(timeout: number): void {
  if (typeof timeout === "number" && timeout >= 0 && timeout < 2 ** 31) return;
  throw new InvalidOptionsError(
    `timeout is ${String(timeout)}; it must be a number of milliseconds, at most ${2 ** 31 - 1}`,
  );
}
