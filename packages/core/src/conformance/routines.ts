/** What runs beside a store, in its process, because a call at a time through the parent would be too slow or too kind. */
import { setTimeout as delay } from "node:timers/promises";
import type { ChatStore } from "../chat-store.js";
import { batchOf, brokenBatches, endsBatch } from "./messages.js";
import type { Method } from "./remote.js";
import { callStore } from "./remote.js";

type Emit = (value: unknown) => void;
export type Routine = (store: ChatStore, args: unknown, emit: Emit) => Promise<unknown>;

export interface Acknowledged {
  readonly key: string;
  readonly batch: string;
  readonly messageCount: number;
}

/** Milliseconds without a new message after which a reader takes the rest for lost. */
const longestSilence = 15_000;

export const routines = {
  /** Append numbered batches to a session, one after another. Emits an {@link Acknowledged} for each. */
  async append(
    store: ChatStore,
    args: {
      readonly key: string;
      readonly label: string;
      readonly batches: number;
      readonly size: number;
      readonly text?: string;
    },
    emit: Emit,
  ): Promise<void> {
    const { key, label, batches, size, text } = args;
    for (let number = 0; number < batches; number++) {
      const batch = `${label}-${number}`;
      const { messageCount } = await store.addMessages(key, batchOf(batch, size, text));
      emit({ key, batch, messageCount } satisfies Acknowledged);
    }
  },

  /** Replace the whole session again and again, for ever. Emits a number for each time. */
  async replace(
    store: ChatStore,
    args: {
      readonly key: string;
      readonly label: string;
      readonly size: number;
      readonly text: string;
    },
    emit: Emit,
  ): Promise<void> {
    for (let number = 0; ; number++) {
      await store.setMessages(args.key, batchOf(`${args.label}-${number}`, args.size, args.text));
      emit(number);
    }
  },

  /**
   * Page through a session with `after`, as a subscriber does, until `total` messages were seen, or the one that is the
   * `last`. Returns their ids.
   */
  async follow(
    store: ChatStore,
    args: {
      readonly key: string;
      readonly limit: number;
      readonly total?: number;
      readonly last?: string;
    },
  ): Promise<string[]> {
    const { total = Number.POSITIVE_INFINITY, last } = args;
    const seen: string[] = [];
    let deadline = Date.now() + longestSilence;
    while (seen.length < total && !seen.includes(last ?? "") && Date.now() < deadline) {
      const after = seen.at(-1);
      const page = await store.getMessages(
        args.key,
        after === undefined ? { limit: args.limit } : { after, limit: args.limit },
      );
      seen.push(...page.map(({ id }) => id));
      if (page.length > 0) deadline = Date.now() + longestSilence;
      else await delay(2);
    }
    return seen;
  },

  /**
   * Read a session again and again until it holds `total` messages, or a snapshot is wrong. Returns what was wrong.
   */
  async watch(
    store: ChatStore,
    args: { readonly key: string; readonly total: number },
  ): Promise<string[]> {
    const problems = new Set<string>();
    const snapshots = new Map<string, string>();
    let longest = 0;
    let deadline = Date.now() + longestSilence;
    for (;;) {
      const { session, messages } = await store.readSession(args.key);
      const count = session?.messageCount ?? 0;
      if (count !== messages.length) {
        problems.add(`a snapshot of ${messages.length} messages said that it has ${count}`);
      }
      for (const broken of brokenBatches(messages)) problems.add(broken);
      const newest = (await store.getMessages(args.key, { last: 2 })).at(-1);
      if (newest !== undefined && !endsBatch(newest)) {
        problems.add(`the newest message read was ${newest.id}, and its batch goes on`);
      }
      if (session !== undefined) {
        const ids = messages.map(({ id }) => id).join();
        if ((snapshots.get(session.version) ?? ids) !== ids) {
          problems.add(`version ${session.version} was read with two contents`);
        }
        snapshots.set(session.version, ids);
      }
      if (messages.length >= args.total || problems.size > 0) return [...problems];
      if (messages.length > longest) deadline = Date.now() + longestSilence;
      longest = Math.max(longest, messages.length);
      if (Date.now() > deadline) return [...problems, `${messages.length} of ${args.total} came`];
      await delay(1);
    }
  },

  /** Read, then write on condition that nothing changed, `wins` times. Returns the versions that the writes made. */
  async compareAndSet(
    store: ChatStore,
    args: { readonly key: string; readonly label: string; readonly wins: number },
  ): Promise<string[]> {
    const versions: string[] = [];
    while (versions.length < args.wins) {
      const session = await store.getSession(args.key);
      const next = Number(session?.state["count"] ?? 0) + 1;
      try {
        const { version } = await store.setState(
          args.key,
          { count: next, by: args.label },
          { ifVersion: session?.version ?? null },
        );
        versions.push(String(version));
      } catch (error) {
        if ((error as { code?: unknown }).code !== "VERSION_CONFLICT") throw error;
      }
    }
    return versions;
  },

  /** Call methods without waiting for any, wait for the last (or for `flush()`), and die at that very instant. */
  async dieAfter(
    store: ChatStore,
    args: { readonly calls: readonly [Method, unknown[]][]; readonly flush: boolean },
  ): Promise<void> {
    const results = args.calls.map(([method, values]) => callStore(store, method, values));
    await (args.flush ? store.flush() : results.at(-1));
    process.kill(process.pid, "SIGKILL");
  },
};

export type Routines = typeof routines;
export type RoutineName = keyof Routines;
