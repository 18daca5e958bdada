import { setTimeout as delay, setImmediate as everybodyElse } from "node:timers/promises";
import type { ChatStoreBackend, MigrateMode } from "./backend.js";
import { BackendError, ChatStoreError, ClosedError, TimeoutError } from "./errors.js";

/** Milliseconds before the second attempt; doubled for each further one, up to the maximum, with jitter. */
const firstPause = 10;
const longestPause = 500;
/** Milliseconds for which calls in a loop may keep the event loop to themselves, where an engine answers at once. */
const longestTurn = 10;
/** Signals that are kept for later operations. */
const maxSpare = 64;

/**
 * One attempt at an operation.
 *
 * @param attempt Its number, from 1.
 * @param unknown Whether an earlier attempt may have taken effect.
 */
export type Attempt<T> = (signal: AbortSignal, attempt: number, unknown: boolean) => Promise<T>;

/** An operation that has begun and is not over. */
interface Running {
  readonly controller: AbortController;
  /** By `performance.now()`. */
  readonly deadline: number;
  /** Settles the attempt that does not notice. */
  reject: (reason: unknown) => void;
  /** Where it is among those that run. */
  index: number;
}

/** Runs operations on a backend: opens it lazily, repeats what failed in passing, and gives up after `timeout`. */
export class Runner {
  readonly #backend: ChatStoreBackend;
  readonly #options: {
    readonly timeout: number;
    readonly migrate: MigrateMode;
    readonly onWarning: (warning: string) => void;
  };
  /** In no order. An array: a set under constant change leaves tables behind that keep alive what was in it. */
  readonly #running: Running[] = [];
  /** Of operations that are over, for later ones: to make a signal costs more than all else that core does for a read. */
  readonly #spare: AbortController[] = [];
  /** One for all, due at the first deadline or earlier: to set and clear one for each takes longer than the rest of this. */
  #timer: NodeJS.Timeout | undefined;
  #due = Number.POSITIVE_INFINITY;
  #opening: Promise<void> | undefined;
  #opened = false;
  #stopped = false;
  /** When an operation last came to an end, by `performance.now()`: the engine answered. */
  #answered = 0;
  /** When everybody else last had a turn, by `performance.now()`. */
  #turn = 0;
  #warnings: readonly string[] = [];

  constructor(
    backend: ChatStoreBackend,
    options: {
      readonly timeout: number;
      readonly migrate: MigrateMode;
      readonly onWarning: (warning: string) => void;
    },
  ) {
    this.#backend = backend;
    this.#options = options;
  }

  get warnings(): readonly string[] {
    return this.#warnings;
  }

  /** Make every operation that still runs, or starts later, reject with `ClosedError`. */
  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    for (const running of this.#running) abort(running);
  }

  /**
   * @param issued When the caller asked for it, by `performance.now()`. The time until `timeout` counts from then, or from
   *   the engine's last answer: a long queue does not time out on an engine that works, and fails as a whole, not one by
   *   one, on an engine that is away.
   * @throws the backend's error when it is not retryable; `BackendError` or `TimeoutError` after `timeout`, whose
   *   `outcome` covers all attempts.
   */
  async run<T>(operation: Attempt<T>, issued: number): Promise<T> {
    const { timeout } = this.#options;
    const start = Math.max(issued, this.#answered);
    const running = this.#begin(start + timeout);
    const { signal } = running.controller;
    let unknown = false;
    let failure: BackendError | undefined;
    try {
      if (start - this.#turn > longestTurn) {
        this.#turn = start;
        await everybodyElse();
      }
      for (let attempt = 1; ; attempt++) {
        this.#refuseWhenStopped();
        let begun = false;
        try {
          signal.throwIfAborted();
          const begin = () => {
            begun = true;
            return operation(signal, attempt, unknown);
          };
          const result = await new Promise<T>((resolve, reject) => {
            running.reject = reject;
            const settled = this.#opened ? begin() : this.#open(signal).then(begin);
            settled.then(resolve, reject);
          });
          this.#answered = performance.now();
          return result;
        } catch (error) {
          this.#refuseWhenStopped(error);
          if (signal.aborted && !(error instanceof ChatStoreError)) {
            failure ??= new TimeoutError(
              `${this.#backend.name} did not answer within ${timeout} ms`,
              {
                outcome: "not-applied",
              },
            );
            throw withOutcome(failure, begun || unknown);
          }
          if (!(error instanceof BackendError)) throw toChatStoreError(error);
          unknown ||= begun && error.outcome === "unknown";
          failure = error;
          if (!failure.retryable || signal.aborted) throw withOutcome(failure, unknown);
        }
        await pause(attempt, signal);
      }
    } finally {
      this.#end(running);
    }
  }

  #begin(deadline: number): Running {
    const controller = this.#spare.pop() ?? new AbortController();
    const running = { controller, deadline, reject: () => {}, index: this.#running.length };
    this.#running.push(running);
    if (deadline < this.#due) this.#watch(deadline);
    // The process waits for what is under way, also where the backend just then has nothing open that it would wait for.
    if (running.index === 0) this.#timer?.ref();
    return running;
  }

  #end({ controller, index }: Running): void {
    const last = this.#running.pop() as Running;
    if (index < this.#running.length) {
      this.#running[index] = last;
      last.index = index;
    }
    if (this.#running.length === 0) this.#timer?.unref();
    if (!controller.signal.aborted && this.#spare.length < maxSpare) this.#spare.push(controller);
  }

  #watch(due: number): void {
    clearTimeout(this.#timer);
    this.#due = due;
    if (due === Number.POSITIVE_INFINITY) return;
    // It outlives the operations, and must not keep a process from ending then.
    this.#timer = setTimeout(() => this.#expire(), due - performance.now());
    if (this.#running.length === 0) this.#timer.unref();
  }

  /** Abort what is overdue, and wait for the others. */
  #expire(): void {
    const now = performance.now();
    let next = Number.POSITIVE_INFINITY;
    for (const running of this.#running) {
      if (running.deadline <= now) abort(running);
      else next = Math.min(next, running.deadline);
    }
    this.#watch(next);
  }

  #refuseWhenStopped(cause?: unknown): void {
    if (this.#stopped) throw new ClosedError({ cause });
  }

  #open(signal: AbortSignal): Promise<void> {
    this.#opening ??= this.#backend.open({ migrate: this.#options.migrate, signal }).then(
      ({ warnings }) => {
        this.#opened = true;
        this.#warnings = warnings;
        for (const warning of warnings) this.#options.onWarning(warning);
      },
      (error: unknown) => {
        this.#opening = undefined;
        throw error;
      },
    );
    return this.#opening;
  }
}

/** Wait before the next attempt, with jitter so that competitors do not meet again; ends at once when aborted. */
export async function pause(attempt: number, signal: AbortSignal): Promise<void> {
  const longest = Math.min(firstPause * 2 ** (attempt - 1), longestPause);
  await delay(longest * (0.5 + Math.random() / 2), undefined, { signal }).catch(() => undefined);
}

/** Whatever was thrown, as a `ChatStoreError`. */
export function toChatStoreError(error: unknown): ChatStoreError {
  if (error instanceof ChatStoreError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new BackendError(`The backend failed: ${message}`, {
    retryable: false,
    outcome: "unknown",
    cause: error,
  });
}

function withOutcome(failure: BackendError, unknown: boolean): BackendError {
  const outcome = unknown ? "unknown" : failure.outcome;
  if (outcome === failure.outcome) return failure;
  if (failure instanceof TimeoutError) {
    return new TimeoutError(failure.message, { outcome, cause: failure.cause });
  }
  return new BackendError(failure.message, {
    retryable: failure.retryable,
    outcome,
    cause: failure,
  });
}

/** A backend that notices knows more than "aborted": its error gets a turn of the event loop to arrive first. */
function abort(running: Running): void {
  const { controller } = running;
  controller.abort();
  setImmediate(() => running.reject(controller.signal.reason));
}
