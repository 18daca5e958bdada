/** The LlamaIndex bridge. */

import { type ChatStore, memoryChatStore } from "@chatstore/core";
import { persistentMemory } from "@chatstore/llamaindex";
import { createMemory } from "llamaindex";
import { Child } from "../child.js";
import type { Conversation } from "../contestant.js";
import { type Entry, timed } from "../entry.js";
import { type Effort, type Lane, race, type Timing } from "../measure.js";
import { keyOf, openStore } from "../ours.js";
import type { CoreWork, Work } from "./index.js";

const window = 50;
/** Times what reading the window takes. */
const mostOfRead = 1.5;
/** How many times as fast as LlamaIndex's own. */
const leastSpeedUp = 50;
const longContext = 5_000;

/** Open a long conversation and ask for the model's context. Compared with reading the window. */
export const openWindow: Work = {
  name: `window-${window}`,
  async run(arena) {
    const history = 100_000;
    const [conversation] = (await arena.conversations(history)) as [Conversation];
    await using store = await openStore(arena.backend.config(arena.place("ours", "main")));
    const key = keyOf(conversation);
    const open = () => persistentMemory(createMemory, { store, key, window });
    const lanes: Lane[] = [
      { contestant: "ours", prepare: () => async () => (await open()).getLLM() },
      { contestant: "raw", prepare: () => () => store.getMessages(key, { last: window }) },
      { contestant: "open", prepare: () => open },
    ];
    const { open: opening, ...compared } = await raceByName(lanes, arena.effort);
    const about = { backend: arena.name, work: openWindow.name, history };
    const timings = new Map(Object.entries(compared));
    const entry = timed(about, timings, ({ raw }) => raw * mostOfRead);
    const time = opening?.median.toFixed(2);
    return [{ ...entry, note: `raw: the store reads the window; opening alone takes ${time} ms` }];
  },
};

/** What an open conversation takes in memory. */
export const holdOpen: Work = {
  name: "ram-session",
  async run(arena): Promise<Entry[]> {
    const history = 100;
    await using child = new Child({
      kind: "hold",
      backend: arena.name,
      place: arena.place("ours", "main"),
      conversations: await arena.conversations(history),
      window,
    });
    await child.ready;
    const ours = await child.run();
    const about = { backend: arena.name, work: holdOpen.name, history };
    const note = `a memory with a window of ${window} messages`;
    return [{ ...about, ours, raw: null, ratio: null, unit: "bytes", note }];
  },
};

/** A long context: LlamaIndex's own takes time that grows with the square of its length. */
export const longGetLLM: CoreWork = {
  name: "getllm",
  async run({ quick, effort }) {
    const history = quick ? 1_000 : longContext;
    // Short ones, so that all of them are within the token limit.
    const messages = Array.from({ length: history }, (_, n) => ({
      role: "user" as const,
      content: `Message ${n}`,
    }));
    await using store: ChatStore = memoryChatStore();
    const key = keyOf({ user: "alice", name: "long" });
    await store.setMessages(key, messages);
    const ours = await persistentMemory(createMemory, { store, key });
    const upstream = createMemory(messages, {});
    if ((await ours.getLLM()).length !== history) throw new Error("The context was cut");
    const lane = { contestant: "ours", prepare: () => () => ours.getLLM() };
    const timings = await raceByName([lane], { ...effort, rounds: 1 });
    // Once, without a warm-up: it takes half a minute.
    const begin = performance.now();
    await upstream.getLLM();
    const time = performance.now() - begin;
    timings["raw"] = { median: time, quartiles: [time, time], samples: 1 };
    const about = { backend: "core", work: longGetLLM.name, history };
    const entry = timed(about, new Map(Object.entries(timings)), ({ raw }) =>
      quick ? undefined : raw / leastSpeedUp,
    );
    return [{ ...entry, note: "raw: LlamaIndex's own memory" }];
  },
};

async function raceByName(lanes: readonly Lane[], effort: Effort): Promise<Record<string, Timing>> {
  const timings = await race(lanes, effort);
  return Object.fromEntries([...timings].map(([{ contestant }, timing]) => [contestant, timing]));
}
