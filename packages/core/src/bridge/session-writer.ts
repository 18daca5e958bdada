import type { Version } from "../backend.js";
import type { ChatStore } from "../chat-store.js";
import {
  type ChatStoreError,
  type ErrorCode,
  QueueFullError,
  type VersionConflictError,
} from "../errors.js";
import type { NewMessage } from "../messages.js";
import type { WriteOptions, WriteResult } from "../store-types.js";
import { type Backlog, backlogsOf } from "./backlog.js";
import { filledIn } from "./filled-in.js";

/** Messages of one session that may wait for an engine that is away. */
const maxQueuedMessages = 1_000;
/** Milliseconds before what failed is tried again by itself; doubled each time, up to the maximum. */
const firstRetry = 1_000;
const longestRetry = 30_000;
/** Writers that may be faster than a change of the state, each between its read and its write. */
const maxChanges = 100;

/** The version that the session must still have; each write that it guards moves it on. */
export interface VersionGuard {
  version: Version | null;
  /** Somebody else has written. Every later write is refused, also one that would change nothing. */
  conflict?: VersionConflictError;
}

/**
 * What a state entry becomes, given what it is; `undefined` leaves it. Asked again when somebody else writes meanwhile, so it
 * may read the session.
 */
export type StateChange = (present: unknown) => Promise<object | undefined> | object | undefined;

type Operation = (
  | { readonly kind: "message"; readonly message: NewMessage }
  | { readonly kind: "state"; readonly entry: string; readonly change: StateChange }
  | { readonly kind: "clear"; readonly entry: string }
) & {
  readonly guard: VersionGuard | undefined;
  /** Why it can never be stored. */
  refusal?: Error;
};

/**
 * The writer of a session. While writes wait there is one per store handle and key, whatever the number of memories: what
 * one request could not store is retried, in order, by the next one's writes.
 */
export function writerOf(store: ChatStore, key: string): SessionWriter {
  return (backlogsOf(store).get(key) as SessionWriter | undefined) ?? new SessionWriter(store, key);
}

/** Writes the changes of one session in call order, and keeps what failed for the next attempt. */
export class SessionWriter implements Backlog {
  readonly #store: ChatStore;
  readonly #key: string;
  /** In call order. What is being written stays in it until it is stored. */
  readonly #queue: Operation[] = [];
  #lastAttempt: Promise<void> = Promise.resolve();
  #nextAttempt: Promise<void> | undefined;
  #failures = 0;
  #retry: NodeJS.Timeout | undefined;

  constructor(store: ChatStore, key: string) {
    this.#store = store;
    this.#key = key;
  }

  /**
   * Append a message after what is queued already. Rejects when that fails; the message then stays queued, unless the
   * store refuses the message itself, or, with a QueueFullError, too many are queued.
   */
  addMessage(message: NewMessage, guard?: VersionGuard): Promise<void> {
    return this.#write({ kind: "message", message, guard });
  }

  /**
   * Change a state entry, the bridge's own: read, changed and written as one step, since another request's bridge may be
   * changing it too. While it waits, the same change asked for again stands for it.
   */
  changeState(entry: string, change: StateChange, guard?: VersionGuard): Promise<void> {
    return this.#write({ kind: "state", entry, change, guard });
  }

  /** Remove all messages and a state entry, the bridge's own. Title and other state stay. */
  clear(entry: string, guard?: VersionGuard): Promise<void> {
    return this.#write({ kind: "clear", entry, guard });
  }

  /** The messages that are not known to be stored yet. */
  get queuedMessages(): readonly NewMessage[] {
    return messagesOf(this.#queue);
  }

  /** Write all that is queued now. Who asks during an attempt shares the next one. */
  attempt(): Promise<void> {
    if (this.#nextAttempt === undefined) {
      this.#nextAttempt = this.#lastAttempt.then(() => {
        this.#nextAttempt = undefined;
        return this.#run();
      });
      this.#lastAttempt = this.#nextAttempt.catch(() => undefined);
    }
    return this.#nextAttempt;
  }

  async #write(operation: Operation): Promise<void> {
    const { length: messages } = this.queuedMessages;
    if (operation.kind === "message" && messages >= maxQueuedMessages) {
      // Makes room for the next one, if the engine is back.
      this.attempt().catch(() => undefined);
      throw new QueueFullError(
        `${messages} messages of session ${this.#key} wait to be stored, so another one was not queued: see why the store fails`,
      );
    }
    this.#queue.push(operation);
    backlogsOf(this.#store).set(this.#key, this);
    await this.attempt();
    if (operation.refusal !== undefined) throw operation.refusal;
  }

  async #run(): Promise<void> {
    clearTimeout(this.#retry);
    const queued = [...this.#queue];
    let done = 0;
    try {
      for (const { operations, end } of toSteps(queued)) {
        await this.#perform(operations);
        done = end;
      }
      this.#failures = 0;
    } catch (error) {
      if (isChatStoreError(error) && error.retryable) this.#retryLater();
      throw error;
    } finally {
      this.#queue.splice(0, done);
      const backlogs = backlogsOf(this.#store);
      if (this.#queue.length === 0 && backlogs.get(this.#key) === this) backlogs.delete(this.#key);
    }
  }

  /** One write of the store. What the store refuses is set aside, so that it does not hold up the rest. */
  async #perform(operations: readonly Operation[]): Promise<void> {
    const [first] = operations;
    const write = guarded(first?.guard);
    try {
      if (first?.kind === "clear") await this.#clear(first.entry, write);
      else if (first?.kind === "state") await this.#change(first, write);
      else {
        const messages = messagesOf(operations);
        await write((options) => this.#store.addMessages(this.#key, messages, options));
      }
    } catch (error) {
      // Whether they were stored is not always known, so no id is new any more.
      for (const message of messagesOf(operations)) {
        const filled = filledIn.get(message);
        if (filled !== undefined) filledIn.set(message, { ...filled, id: false });
      }
      if (!isRefusal(error)) throw error;
      if (operations.length === 1 && first !== undefined) first.refusal = error as Error;
      else for (const operation of operations) await this.#perform([operation]);
    }
  }

  async #change(
    { entry, change, guard }: Operation & { kind: "state" },
    write: GuardedWrite,
  ): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const session = await this.#store.getSession(this.#key);
      const value = await change(session?.state[entry]);
      if (value === undefined) return;
      try {
        return await write(({ ifVersion = session?.version ?? null }) =>
          this.#store.setState(this.#key, { [entry]: value }, { ifVersion }),
        );
      } catch (error) {
        const isOvertaken = isChatStoreError(error) && error.code === "VERSION_CONFLICT";
        if (!isOvertaken || guard !== undefined || attempt === maxChanges) throw error;
      }
    }
  }

  async #clear(entry: string, write: GuardedWrite): Promise<void> {
    if ((await this.#store.getSession(this.#key)) === undefined) return;
    // Facts first: should the process die in between, none outlives what it was drawn from.
    await write((options) => this.#store.setState(this.#key, { [entry]: null }, options));
    await write((options) => this.#store.setMessages(this.#key, [], options));
  }

  #retryLater(): void {
    const delay = Math.min(firstRetry * 2 ** this.#failures++, longestRetry);
    // Not a reason for the process to stay alive: whoever needs certainty calls flush().
    this.#retry = setTimeout(() => void this.attempt().catch(() => undefined), delay).unref();
  }
}

type GuardedWrite = (write: (options: WriteOptions) => Promise<WriteResult>) => Promise<void>;

/** Writes that require the guard's version, and move it on. */
function guarded(guard: VersionGuard | undefined): GuardedWrite {
  return async (write) => {
    if (guard === undefined) await write({});
    else if (guard.conflict !== undefined) throw guard.conflict;
    else {
      try {
        guard.version = (await write({ ifVersion: guard.version })).version;
      } catch (error) {
        if (isChatStoreError(error) && error.code === "VERSION_CONFLICT") {
          guard.conflict = error as VersionConflictError;
        }
        throw error;
      }
    }
  };
}

function messagesOf(operations: readonly Operation[]): NewMessage[] {
  return operations.flatMap((one) => (one.kind === "message" ? one.message : []));
}

/** The writes that a queue amounts to: consecutive messages together, nothing that a later clear or state undoes. */
function toSteps(queue: readonly Operation[]): { operations: Operation[]; end: number }[] {
  const steps: { operations: Operation[]; end: number }[] = [];
  // A guarded one may yet be refused, and then undoes nothing.
  const lastClear = queue.findLastIndex(({ kind, guard }) => kind === "clear" && !guard);
  const lastChange = new Map<StateChange, number>();
  for (const [index, one] of queue.entries()) {
    if (one.kind === "state" && !one.guard) lastChange.set(one.change, index);
  }
  for (const [index, operation] of queue.entries()) {
    if (index < lastClear && isUndone(operation, queue[lastClear])) continue;
    if (operation.kind === "state" && index < (lastChange.get(operation.change) ?? 0)) continue;
    const step = steps.at(-1);
    const last = step?.operations[0];
    if (
      step &&
      operation.kind === "message" &&
      last?.kind === "message" &&
      last.guard === operation.guard
    ) {
      step.operations.push(operation);
      step.end = index + 1;
    } else {
      steps.push({ operations: [operation], end: index + 1 });
    }
  }
  return steps;
}

function isUndone(operation: Operation, clear: Operation | undefined): boolean {
  return operation.kind === "message" || operation.entry === (clear as { entry?: string }).entry;
}

/** Whether what failed with this error is still queued and will be tried again. */
export function staysQueued(error: unknown): boolean {
  return isChatStoreError(error) && !isRefusal(error) && error.code !== "QUEUE_FULL";
}

/** Whether the store refuses what it was given, so that trying again is of no use. */
function isRefusal(error: unknown): boolean {
  return isChatStoreError(error) && refusals.has(error.code);
}

const refusals: ReadonlySet<ErrorCode> = new Set([
  "INVALID_MESSAGE",
  "SERIALIZATION",
  "LIMIT_EXCEEDED",
  "DUPLICATE_MESSAGE",
  "VERSION_CONFLICT",
]);

/** By what it has: the store's errors may be those of another copy of core. */
function isChatStoreError(error: unknown): error is ChatStoreError {
  return error instanceof Error && "code" in error && "retryable" in error;
}
