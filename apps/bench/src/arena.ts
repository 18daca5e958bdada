/** One backend's contestants on one engine, with the conversations that the works need. */
import type { Backend, BackendName } from "./backends.js";
import type {
  Contestant,
  Conversation,
  Durability,
  Filling,
  Message,
  Place,
} from "./contestant.js";
import { alike, besidePeers, type Entry, type Target, timed } from "./entry.js";
import type { Effort, Timing } from "./measure.js";
import { history, message } from "./messages.js";

/** So many of the newest messages are compared at the end. */
const compared = 2_000;

/** The names by which contestants are measured. `ours` comes first. */
export type Contestants = ReadonlyMap<string, Contestant>;

/** With whom ours is measured. */
export type Beside = "raw" | "peers";

/** Where works have their conversations. */
const main = "main";

export class Arena {
  readonly name: BackendName;
  readonly backend: Backend;
  readonly effort: Effort;
  /** Whether few rounds, and smaller numbers where filling takes long, have to do. */
  readonly quick: boolean;
  /** The server's URL, or the folder of an embedded engine. */
  readonly at: string;
  readonly #beside: Beside;
  /** What was appended in this process to the conversations of `main`, by contestant and conversation. */
  readonly #appended = new Map<string, Message[]>();
  readonly #opened = new Map<string, Promise<Contestants>>();
  readonly #filled = new Map<number, Promise<readonly Conversation[]>>();

  constructor(
    name: BackendName,
    backend: Backend,
    at: string,
    {
      effort,
      quick,
      beside,
    }: { readonly effort: Effort; readonly quick: boolean; readonly beside: Beside },
  ) {
    this.name = name;
    this.backend = backend;
    this.effort = effort;
    this.quick = quick;
    this.at = at;
    this.#beside = beside;
  }

  /** Where a contestant keeps its data of one namespace. */
  place(contestant: string, namespace: string): Place {
    return { at: this.at, namespace: `${contestant.replace(/\W/g, "_")}_${namespace}` };
  }

  /** Ours, and raw or the peers, with a namespace for each. */
  contestants(namespace = main): Promise<Contestants> {
    let opened = this.#opened.get(namespace);
    if (opened === undefined) {
      opened = this.#open(namespace);
      this.#opened.set(namespace, opened);
    }
    return opened;
  }

  async #open(namespace: string): Promise<Contestants> {
    const contestants = new Map<string, Contestant>();
    const { ours, raw, peers } = this.backend;
    const others = this.#beside === "raw" ? { raw } : peers;
    for (const [name, open] of Object.entries({ ours, ...others })) {
      const contestant = await open(this.place(name, namespace));
      contestants.set(name, namespace === main ? this.#recorded(name, contestant) : contestant);
    }
    return contestants;
  }

  /** A contestant of which is known what it was told to append. */
  #recorded(name: string, contestant: Contestant): Contestant {
    return {
      ...contestant,
      append: (conversation, messages) => {
        this.#appendedBy(name, conversation).push(...messages);
        return contestant.append(conversation, messages);
      },
    };
  }

  #appendedBy(contestant: string, { user, name }: Conversation): Message[] {
    const key = `${contestant} ${user}/${name}`;
    const appended = this.#appended.get(key) ?? [];
    this.#appended.set(key, appended);
    return appended;
  }

  /** Let the engine's caches fill, and the code be compiled, as in a server that has run for a while. */
  async warmUp(): Promise<void> {
    const conversations = Array.from({ length: 64 }, (_, n) => ({ user: "warm", name: `up-${n}` }));
    for (const contestant of (await this.contestants("warmup")).values()) {
      await contestant.fill(conversations.map((one): Filling => [one, history(40)]));
      const end = performance.now() + this.effort.warmUpTime;
      for (let pass = 0; performance.now() < end; pass++) {
        const one = conversations[pass % conversations.length] as Conversation;
        await contestant.append(one, [message(pass, "warm-up")]);
        await contestant.newest?.(one, 20);
      }
    }
  }

  /**
   * Conversations of `size` messages, the same for all contestants that hold so long ones. Several of the short ones, to be
   * used by turns, so that what is appended to them while they are measured does not make them long.
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
    const contestants = [...(await this.contestants()).values()].filter((one) => holds(one, size));
    for (const contestant of contestants) {
      await contestant.fill(conversations.map((one): Filling => [one, messages]));
    }
    await this.backend.settle(this.at);
    // What a contestant keeps of a conversation, handles and places of ids, it has before time is taken.
    const first = { id: "m0", position: 0 };
    for (const contestant of contestants) {
      for (const one of conversations) {
        await (contestant.newest?.(one, 1) ?? contestant.all(one));
        await contestant.page?.(one, first, 1);
      }
    }
    return conversations;
  }

  /**
   * An entry of what the contestants took, which says where their writes are not alike.
   *
   * @param reasons Why a peer was not measured, where it does not know that itself.
   */
  async entry(
    work: string,
    history: number | null,
    timings: ReadonlyMap<string, Timing>,
    more: {
      readonly target?: Target;
      readonly note?: string | undefined;
      readonly reasons?: ReadonlyMap<string, string> | undefined;
    } = {},
  ): Promise<Entry> {
    const { target, note, reasons } = more;
    const contestants = await this.contestants();
    const entry = timed({ backend: this.name, work, history }, timings, target);
    const medians = new Map([...timings].map(([name, { median }]) => [name, median]));
    return besidePeers(
      alike({ ...entry, ...(note !== undefined && { note }) }, await this.durabilities()),
      medians,
      contestants,
      reasons,
    );
  }

  /** By contestant. */
  async durabilities(): Promise<Readonly<Record<string, Durability>>> {
    const contestants = [...(await this.contestants())];
    return Object.fromEntries(contestants.map(([name, { durability }]) => [name, durability]));
  }

  /** What contestants do not give that ours does. */
  async lacks(): Promise<Readonly<Record<string, readonly string[]>>> {
    const contestants = [...(await this.contestants())];
    return Object.fromEntries(contestants.map(([name, { without = [] }]) => [name, without]));
  }

  /**
   * Each holds what it was told to store, in that order, so that a contestant that is fast because it stores less does not
   * pass for fast.
   *
   * @throws when one holds something else.
   */
  async refuseDifferences(): Promise<void> {
    for (const [size, filled] of this.#filled) {
      for (const conversation of await filled) {
        for (const [name, contestant] of await this.contestants()) {
          if (!holds(contestant, size)) continue;
          const told = [...history(size), ...this.#appendedBy(name, conversation)];
          const held = await (contestant.newest?.(conversation, compared) ??
            contestant.all(conversation));
          refuseDifferent(
            `${this.name}, ${name}, ${conversation.user}/${conversation.name}`,
            told.slice(-compared),
            held.slice(-compared),
          );
        }
      }
    }
  }

  async close(): Promise<void> {
    for (const opened of this.#opened.values()) {
      for (const contestant of (await opened).values()) await contestant.close();
    }
  }
}

/** Whether it is filled with conversations of so many messages. */
export function holds({ longest }: Contestant, size: number): boolean {
  return longest === undefined || size <= longest.messages;
}

/** @throws when what is held is not what was told. */
export function refuseDifferent(
  where: string,
  told: readonly Message[],
  held: readonly Message[],
): void {
  const length = Math.max(told.length, held.length);
  for (let n = 0; n < length; n++) {
    if (told[n]?.role !== held[n]?.role || told[n]?.content !== held[n]?.content) {
      throw new Error(
        `${where}: was told ${told.length} messages, has ${held.length}, and number ${n} differs`,
      );
    }
  }
}
