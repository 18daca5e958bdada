import { setTimeout as delay } from "node:timers/promises";
import type { ChatStoreBackend, MigrateMode } from "./backend.js";
import { BackendError, ChatStoreError, ClosedError, TimeoutError } from "./errors.js";

/** Milliseconds before the second attempt; doubled for each further one, up to the maximum, with jitter. */
const firstPause = 10;
const longestPause = 500;
/** Signals that are kept for later operations. */
const maxSpare = 64;

/**
 * One attempt at an operation.
 *
 * @param attempt Its number, from 1.
 * @param unknown Whether an earlier attempt may have taken effect.
 */
export type Attempt<T> = (signal: AbortSignal, attempt: number, unknown: boolean) => Promise<T>;

/** Runs operations on a backend: opens it lazily, repeats what failed in passing, and gives up after `timeout`. */
export class Runner {
  readonly #backend: ChatStoreBackend;
  readonly #options: {
    readonly timeout: number;
    readonly migrate: MigrateMode;
    readonly onWarning: (warning: string) => void;
  };
  readonly #running = new Set<AbortController>();
  /** Of operations that are over, for later ones: to make a signal costs more than all else that core does for a read. */
  readonly #spare: AbortController[] = [];
  #opening: Promise<void> | undefined;
  #opened = false;
  #stopped = false;
  /** When an operation last came to an end, by `performance.now()`: the engine answered. */
  #answered = 0;
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
    for (const controller of this.#running) controller.abort();
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
    const controller = this.#spare.pop() ?? new AbortController();
    const { signal } = controller;
    const deadline = Math.max(issued, this.#answered) + timeout;
    const timer = setTimeout(() => controller.abort(), deadline - performance.now());
    this.#running.add(controller);
    let unknown = false;
    let failure: BackendError | undefined;
    try {
      for (let attempt = 1; ; attempt++) {
        this.#refuseWhenStopped();
        let begun = false;
        try {
          const begin = () => {
            begun = true;
            return operation(signal, attempt, unknown);
          };
          const result = await unlessAborted(signal, () =>
            this.#opened ? begin() : this.#open(signal).then(begin),
          );
          this.#answered = performance.now();
          if (!signal.aborted && this.#spare.length < maxSpare) this.#spare.push(controller);
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
      clearTimeout(timer);
      this.#running.delete(controller);
    }
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

/** Rejects when the signal aborts, also while the operation does not notice. */
function unlessAborted<T>(signal: AbortSignal, operation: () => Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    // A backend that does notice knows more than "aborted": its error gets a turn of the event loop to arrive first.
    const abort = () => setImmediate(() => reject(signal.reason));
    if (signal.aborted) {
      abort();
      return;
    }
    signal.addEventListener("abort", abort);
    operation()
      .finally(() => signal.removeEventListener("abort", abort))
      .then(resolve, reject);
  });
}
