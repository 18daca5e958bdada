/** One memory's writes to its session, and who hears of those that fail. */
import { setImmediate } from "node:timers/promises";
import type { ChatStore, NewMessage } from "@chatstore/core";
import {
  type StateChange,
  staysQueued,
  throwFailures,
  type VersionGuard,
  WritePromise,
  warn,
  warnOnce,
  writerOf,
} from "@chatstore/core/bridge";
import { type Loaded, load, stateEntry } from "./restore.js";
import type { UpstreamBlock } from "./upstream.js";

/** Failures that are kept for `flush()`. */
const maxKeptFailures = 100;

export interface SessionOptions {
  readonly store: ChatStore;
  readonly key: string;
  readonly window: number | undefined;
  /** The version that each write requires, when a stale memory is to be refused. */
  readonly guard: VersionGuard | undefined;
  readonly onError: ((error: Error) => void) | undefined;
  readonly onWarning: (warning: string) => void;
}

/** The session of a memory. */
export class Session {
  readonly #options: SessionOptions;
  readonly #failures: Error[] = [];
  readonly #reported = new WeakSet<Error>();

  constructor(options: SessionOptions) {
    this.#options = options;
  }

  get store(): ChatStore {
    return this.#options.store;
  }

  get key(): string {
    return this.#options.key;
  }

  load(blocks: readonly UpstreamBlock[]): Promise<Loaded> {
    const { store, key, window } = this.#options;
    return load(store, key, window, blocks);
  }

  /** The messages that wait to be stored. */
  get queued(): readonly NewMessage[] {
    return this.#writer.queuedMessages;
  }

  add(message: NewMessage): Promise<void> {
    return this.#writer.addMessage(message, this.#options.guard);
  }

  changeState(change: StateChange): Promise<void> {
    return this.#writer.changeState(stateEntry, change, this.#options.guard);
  }

  clear(): Promise<void> {
    return this.#writer.clear(stateEntry, this.#options.guard);
  }

  /** Write all that waits. */
  attempt(): Promise<void> {
    return this.#writer.attempt();
  }

  /** Write all that waits, and throw what failed and nobody saw. */
  async flush(): Promise<void> {
    const failures: Error[] = [];
    await this.attempt().catch((error: Error) => failures.push(error));
    // A promise that nobody awaits reports its failure within this turn of the event loop.
    await setImmediate();
    throwFailures([...this.#failures.splice(0), ...failures]);
  }

  /** A promise that may be dropped: its failure is then reported, and is no unhandled rejection. */
  watched(write: () => Promise<void>): Promise<void> {
    return WritePromise.of(write, (error) => this.report(error as Error));
  }

  report(error: Error): void {
    // One failed attempt rejects all the writes that waited for it.
    if (this.#reported.has(error)) return;
    this.#reported.add(error);
    const queued = staysQueued(error);
    if (!queued && this.#failures.length < maxKeptFailures) this.#failures.push(error);
    const { onError } = this.#options;
    if (onError !== undefined) onError(error);
    else {
      warn(`A message could not be stored${queued ? " yet" : ""}: ${error.message}`);
    }
  }

  warn(warning: string): void {
    warnOnce(this.#options.store, warning, this.#options.onWarning);
  }

  get #writer() {
    return writerOf(this.#options.store, this.#options.key);
  }
}
