/** One backend's contestants on one engine, with the conversations that the works need. */
import type { Backend, BackendName } from "./backends.js";
import type { Contestant, Conversation, Durability, Filling, Place } from "./contestant.js";
import { alike, type Entry, type Target, timed } from "./entry.js";
import type { Effort, Timing } from "./measure.js";
import { history } from "./messages.js";

/** So many of the newest messages are compared at the end. */
const compared = 2_000;

/** The names by which contestants are measured. `ours` comes first. */
export type Contestants = ReadonlyMap<string, Contestant>;

export class Arena {
  readonly name: BackendName;
  readonly backend: Backend;
  readonly effort: Effort;
  /** Whether few rounds, and smaller numbers where filling takes long, have to do. */
  readonly quick: boolean;
  /** The server's URL, or the folder of an embedded engine. */
  readonly at: string;
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
    this.at = at;
  }

  /** Where a contestant keeps its data of one namespace. */
  place(contestant: string, namespace: string): Place {
    return { at: this.at, namespace: `${contestant.replace(/\W/g, "_")}_${namespace}` };
  }

  /** All contestants, with a namespace for each. */
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
    const contestants = [...(await this.contestants()).values()];
    for (const contestant of contestants) {
      await contestant.fill(conversations.map((one): Filling => [one, messages]));
    }
    await this.backend.settle(this.at);
    // What a contestant keeps open of a conversation is opened before time is taken.
    for (const contestant of contestants) {
      for (const one of conversations) await (contestant.newest?.(one, 1) ?? contestant.all(one));
    }
    return conversations;
  }

  /** An entry of what the contestants took, which says where their writes are not alike. */
  async entry(
    work: string,
    history: number | null,
    timings: ReadonlyMap<string, Timing>,
    target?: Target,
    note?: string,
  ): Promise<Entry> {
    const entry = timed({ backend: this.name, work, history }, timings, target);
    return alike({ ...entry, ...(note !== undefined && { note }) }, await this.durabilities());
  }

  async durabilities(): Promise<ReadonlyMap<string, Durability>> {
    const contestants = await this.contestants();
    return new Map([...contestants].map(([name, { durability }]) => [name, durability]));
  }

  /**
   * All have done the same work, so all hold the same messages, and a contestant that is fast because it stores less does
   * not pass for fast.
   *
   * @throws when one holds others than ours.
   */
  async refuseDifferences(): Promise<void> {
    for (const conversation of (await Promise.all(this.#filled.values())).flat()) {
      const held = new Map<string, readonly string[]>();
      for (const [name, contestant] of await this.contestants()) {
        const messages = await (contestant.newest?.(conversation, compared) ??
          contestant.all(conversation));
        held.set(
          name,
          messages.map(({ role, content }) => `${role}: ${content}`),
        );
      }
      refuseDifferent(`${this.name}, ${conversation.user}/${conversation.name}`, held);
    }
  }

  async close(): Promise<void> {
    for (const opened of this.#opened.values()) {
      for (const contestant of (await opened).values()) await contestant.close();
    }
  }
}

/** @throws when a list differs from `ours`. */
export function refuseDifferent(where: string, held: ReadonlyMap<string, readonly string[]>): void {
  const ours = held.get("ours") ?? [];
  for (const [name, messages] of held) {
    const length = Math.max(ours.length, messages.length);
    for (let n = 0; n < length; n++) {
      if (messages[n] !== ours[n]) {
        throw new Error(
          `${where}: ours has ${ours.length} messages, ${name} ${messages.length}, and number ${n} differs`,
        );
      }
    }
  }
}
