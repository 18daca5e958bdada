/** A child process of the bench: gets ready, does its task as often as it is told, answering with a number, and ends. */
import { existsSync, readFileSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import type { ChatStore } from "@chatstore/core";
import { persistentMemory } from "@chatstore/llamaindex";
import { type BackendName, backends } from "./backends.js";
import type { Conversation, Place } from "./contestant.js";
import { message } from "./messages.js";
import { keyOf, openStore } from "./ours.js";

interface Where {
  readonly backend: BackendName;
  readonly place: Place;
}

export type Task =
  /** Append messages one by one, as whoever is named. Answers with their number. */
  | (Where & {
      readonly kind: "append";
      readonly contestant: string;
      readonly who: string;
      readonly messages: number;
    })
  /** Hold conversations open as memories. Answers with the bytes of each. */
  | (Where & {
      readonly kind: "hold";
      readonly conversations: readonly Conversation[];
      readonly window: number;
    })
  /** Read everything there is, page by page. Answers with the most memory that the process ever had, in bytes. */
  | (Where & { readonly kind: "export" });

/** What to do this time. */
export interface Order {
  /** Where to append. */
  readonly conversation?: Conversation;
  /** The number of the first message. */
  readonly first?: number;
}

export type Answer = { readonly value: number } | { readonly error: string };

/** Messages that are read at once. */
const exportPage = 500;

type Run = (order: Order) => Promise<number>;

async function prepare(task: Task): Promise<{ readonly run: Run; close(): Promise<void> }> {
  const { backend, place } = task;
  switch (task.kind) {
    case "append": {
      const { who, messages } = task;
      const { ours, raw, peers } = backends[backend];
      const open = { ours, raw, ...peers }[task.contestant];
      if (open === undefined) throw new Error(`${backend} has no contestant ${task.contestant}`);
      const contestant = await open(place);
      const run = async ({ conversation, first = 0 }: Order) => {
        if (conversation === undefined) throw new Error("Append to which conversation?");
        for (let n = first; n < first + messages; n++) {
          await contestant.append(conversation, [message(n, who)]);
        }
        return messages;
      };
      return { run, close: () => contestant.close() };
    }
    case "hold": {
      const store = await openStore(backends[backend].config(place));
      return { run: () => hold(store, task), close: () => store.close() };
    }
    case "export": {
      const store = await openStore(backends[backend].config(place));
      return { run: () => exportAll(store), close: () => store.close() };
    }
  }
}

async function hold(store: ChatStore, task: Extract<Task, { kind: "hold" }>): Promise<number> {
  const { createMemory } = await import("llamaindex");
  const { conversations, window } = task;
  const open = (conversation: Conversation) =>
    persistentMemory(createMemory, { store, key: keyOf(conversation), window });
  // What is loaded at the first use belongs to none of them.
  await open(conversations[0] as Conversation);
  const before = await heapUsed();
  const memories = await Promise.all(conversations.map(open));
  const bytes = ((await heapUsed()) - before) / conversations.length;
  // Used here, so that they are still held when they are weighed.
  if (memories.length !== conversations.length) throw new Error("Not all were opened");
  return bytes;
}

async function heapUsed(): Promise<number> {
  for (let turn = 0; turn < 3; turn++) {
    await setImmediate();
    globalThis.gc?.();
  }
  return process.memoryUsage().heapUsed;
}

async function exportAll(store: ChatStore): Promise<number> {
  let sessions: string | undefined;
  do {
    const page = await store.listSessions({ limit: 1_000, cursor: sessions });
    for (const { key } of page.sessions) {
      let after: string | undefined;
      do {
        const messages = await store.getMessages(key, {
          limit: exportPage,
          ...(after !== undefined && { after }),
        });
        after = messages.length < exportPage ? undefined : messages.at(-1)?.id;
      } while (after !== undefined);
    }
    sessions = page.cursor;
  } while (sessions !== undefined);
  return peakMemory();
}

/** The most that this process ever had, in bytes. */
function peakMemory(): number {
  // On Linux, `maxRSS` begins with what the process had that started this one.
  const status = existsSync("/proc/self/status") ? readFileSync("/proc/self/status", "utf8") : "";
  const kibibytes = /^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? process.resourceUsage().maxRSS;
  return Number(kibibytes) * 1_024;
}

const answer = (value: Answer) => process.send?.(value);
const fail = (error: unknown) =>
  answer({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) });

try {
  const { run, close } = await prepare(JSON.parse(process.argv[2] as string) as Task);
  process.on("message", (order: Order) => {
    run(order).then((value) => answer({ value }), fail);
  });
  // Without its parent it has nothing to do.
  process.on("disconnect", () => {
    void close().finally(() => process.exit());
  });
  answer({ value: 0 });
} catch (error) {
  fail(error);
  process.disconnect();
}
