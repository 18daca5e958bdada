/** One backend's contestants on one engine, with the conversations that the works need. */
import type { Backend, BackendName } from "./backends.js";
import type { Contestant, Conversation, Filling, Place } from "./contestant.js";
import type { Effort } from "./measure.js";
import { history } from "./messages.js";

/** The names by which contestants are measured. `ours` comes first. */
export type Contestants = ReadonlyMap<string, Contestant>;

export class Arena {
  readonly name: BackendName;
  readonly backend: Backend;
  readonly effort: Effort;
  /** Whether few rounds, and smaller numbers where filling takes long, have to do. */
  readonly quick: boolean;
  readonly #at: string;
  readonly #opened = new Map<string, Promise<Contestants>>();
  readonly #filled = new Map<number, Promise<readonly Conversation[]>>();

  constructor(
    name: BackendName,
    backend: Backend,
    at: string,
    { effort, quick }: { readonly effort: Effort; readonly quick: boolean },
  ) {
    this.name = name;
    this.backend = backend;
    this.effort = effort;
    this.quick = quick;
    this.#at = at;
  }

  /** Where a contestant keeps its data of one namespace. */
  place(contestant: string, namespace: string): Place {
    return { at: this.#at, namespace: `${contestant.replace(/\W/g, "_")}_${namespace}` };
  }

  /** All contestants in a namespace of their own each. */
  contestants(namespace = "main"): Promise<Contestants> {
    let opened = this.#opened.get(namespace);
    if (opened === undefined) {
      opened = this.#open(namespace);
      this.#opened.set(namespace, opened);
    }
    return opened;
  }

  async #open(namespace: string): Promise<Contestants> {
    const contestants = new Map<string, Contestant>();
    for (const [name, open] of Object.entries(this.backend.contestants)) {
      contestants.set(name, await open(this.place(name, namespace)));
    }
    return contestants;
  }

  /**
   * Conversations of `size` messages, the same for all contestants. Several of the short ones, to be used by turns, so
   * that what is appended to them while they are measured does not make them long.
   */
  conversations(size: number): Promise<readonly Conversation[]> {
    let filled = this.#filled.get(size);
    if (filled === undefined) {
      const count = Math.min(64, Math.ceil(3_000 / size));
      filled = this.#fill(size, count);
      this.#filled.set(size, filled);
    }
    return filled;
  }

  async #fill(size: number, count: number): Promise<readonly Conversation[]> {
    const conversations = Array.from({ length: count }, (_, n) => ({
      user: `user${n}`,
      name: `of-${size}`,
    }));
    const messages = history(size);
    for (const contestant of (await this.contestants()).values()) {
      await contestant.fill(conversations.map((one): Filling => [one, messages]));
    }
    return conversations;
  }

  /** All conversations that were filled, for the check at the end. */
  async everything(): Promise<Conversation[]> {
    return (await Promise.all(this.#filled.values())).flat();
  }

  async close(): Promise<void> {
    for (const opened of this.#opened.values()) {
      for (const contestant of (await opened).values()) await contestant.close();
    }
  }
}
