/** Several memories of one session at once: other requests, other tabs. */

import {
  ChatStore,
  InvalidOptionsError,
  MemoryBackend,
  memoryChatStore,
  sessionKey,
  VersionConflictError,
} from "@chatstore/core";
import { type ChatMessage, createMemory, factExtractionBlock } from "llamaindex";
import { expect, test } from "vitest";
import { type PersistentMemoryOptions, persistentMemory } from "../src/index.ts";
import { factLLM } from "./offline-llm.ts";
import { FragileStore } from "./outage.ts";

const key = sessionKey({ user: "alice" });
const say = (content: string): ChatMessage => ({ role: "user", content });
const contents = (messages: readonly { content: unknown }[]) =>
  messages.map(({ content }) => content);

function open(
  store: PersistentMemoryOptions["store"],
  options: Omit<PersistentMemoryOptions, "store" | "key"> = {},
) {
  return persistentMemory(createMemory, { store, key, ...options });
}

test("by default both tabs' messages are stored, in one order that all see afterwards", async () => {
  const store = memoryChatStore();
  const [left, right] = [await open(store), await open(store)];
  for (let turn = 0; turn < 10; turn++) {
    void left.add(say(`left ${turn}`));
    void right.add(say(`right ${turn}`));
  }
  await Promise.all([left.flush(), right.flush()]);
  const shown = contents(await (await open(store)).get());
  expect(shown).toHaveLength(20);
  expect(contents(await store.getMessages(key))).toEqual(shown);
  const ofLeft = shown.filter((text) => String(text).startsWith("left"));
  expect(ofLeft).toEqual(contents(await left.get()));
});

test("refused: a memory that another tab has overtaken writes nothing any more", async () => {
  const store = memoryChatStore();
  await (await open(store)).add(say("before"));
  const stale = await open(store, { stale: "refuse" });
  await stale.add(say("mine"));
  await stale.add(say("mine again"));
  await (await open(store)).add(say("of another tab"));
  await expect(stale.add(say("too late"))).rejects.toThrow(VersionConflictError);
  await expect(stale.clear()).rejects.toThrow(VersionConflictError);
  await expect(stale.add(say("still too late"))).rejects.toThrow(VersionConflictError);
  expect(contents(await store.getMessages(key))).toEqual([
    "before",
    "mine",
    "mine again",
    "of another tab",
  ]);
});

test("refused: un-awaited, flush() throws it once, and no later write slips through", async () => {
  const store = memoryChatStore();
  const heard: Error[] = [];
  const stale = await open(store, { stale: "refuse", onError: (error) => heard.push(error) });
  await store.addMessage(key, say("of another tab"));
  void stale.add(say("one"));
  void stale.add(say("two"));
  await expect(stale.flush()).rejects.toThrow(VersionConflictError);
  await stale.flush();
  expect(heard.map(({ name }) => name)).toEqual(["VersionConflictError"]);
  expect(contents(await store.getMessages(key))).toEqual(["of another tab"]);
});

test("refused: of two tabs that open a new session together, one writes", async () => {
  const store = memoryChatStore();
  const tabs = [await open(store, { stale: "refuse" }), await open(store, { stale: "refuse" })];
  const outcomes = await Promise.allSettled(tabs.map((tab, index) => tab.add(say(`${index}`))));
  expect(outcomes.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
  expect(await store.getMessages(key)).toHaveLength(1);
});

test("refused: an outage is no overtaking; what waited is stored afterwards", async () => {
  const store = new FragileStore();
  const memory = await open(store, { stale: "refuse", onError: () => {} });
  await memory.add(say("one"));
  store.fail();
  void memory.add(say("two"));
  void memory.add(say("three"));
  await expect(memory.flush()).rejects.toThrow("away");
  store.recover();
  await memory.flush();
  expect(contents(await store.getMessages(key))).toEqual(["one", "two", "three"]);
});

test("refresh() shows what others have stored, and keeps what waits", async () => {
  const store = new FragileStore();
  const memory = await open(store, { onError: () => {} });
  await memory.add(say("mine"));
  await store.addMessage(key, say("of another tab"));
  store.fail();
  void memory.add(say("waits"));
  await expect(memory.flush()).rejects.toThrow("away");
  await expect(memory.refresh()).rejects.toThrow("away");
  expect(contents(await memory.get())).toEqual(["mine", "waits"]);
  store.recover();
  const refreshed = memory.refresh();
  void memory.add(say("added meanwhile"));
  await refreshed;
  expect(contents(await memory.get())).toEqual([
    "mine",
    "of another tab",
    "waits",
    "added meanwhile",
  ]);
  await memory.flush();
  expect(contents(await store.getMessages(key))).toEqual(contents(await memory.get()));
});

test("refresh() forgets what another tab has removed", async () => {
  const store = memoryChatStore();
  const memory = await open(store);
  await memory.add(say("one"));
  await memory.add(say("two"));
  await store.deleteLastMessage(key);
  await memory.refresh();
  expect(contents(await memory.getLLM())).toEqual(["one"]);
  await store.deleteMessages(key);
  await memory.refresh();
  expect(await memory.getLLM()).toEqual([]);
});

test("refresh() and clear() at once: what was cleared stays cleared", async () => {
  const store = memoryChatStore();
  const memory = await open(store);
  await memory.add(say("one"));
  const refreshed = memory.refresh();
  void memory.clear();
  await refreshed;
  await memory.flush();
  expect(await memory.get()).toEqual([]);
  expect(await store.getMessages(key)).toEqual([]);
});

test("refresh() brings the facts that another worker has extracted", async () => {
  const store = memoryChatStore();
  const facts = () => [
    factExtractionBlock({ id: "facts", llm: factLLM(), maxFacts: 100, priority: 1 }),
  ];
  const options = { store, key, tokenLimit: 40, shortTermTokenLimitRatio: 0.5 };
  const here = await persistentMemory(createMemory, { ...options, memoryBlocks: facts() });
  const there = await persistentMemory(createMemory, { ...options, memoryBlocks: facts() });
  for (let index = 0; index < 6; index++) {
    await there.add(say(`the user's fact number ${index} is this one`));
  }
  await there.flush();
  expect(await here.getLLM()).not.toEqual(await there.getLLM());
  await here.refresh();
  expect(await here.getLLM()).toEqual(await there.getLLM());
});

test("refreshed by getLLM: the model sees the other tab's turn, and an outage does not stop it", async () => {
  const store = new FragileStore();
  const heard: Error[] = [];
  const memory = await open(store, { stale: "refresh", onError: (error) => heard.push(error) });
  void memory.add(say("mine"));
  await memory.flush();
  await store.addMessage(key, say("of another tab"));
  expect(contents(await memory.getLLM())).toEqual(["mine", "of another tab"]);
  store.fail();
  expect(contents(await memory.getLLM())).toEqual(["mine", "of another tab"]);
  expect(heard).toHaveLength(1);
});

test("a misspelt option is refused before anything is read", async () => {
  await expect(open(memoryChatStore(), { stale: "reject" as never })).rejects.toThrow(
    InvalidOptionsError,
  );
});

test("a message whose id was made just now is not searched for in the history", async () => {
  const fresh: unknown[] = [];
  class Recording extends MemoryBackend {
    override append(...args: Parameters<MemoryBackend["append"]>) {
      fresh.push(...args[1].map((record) => record.fresh === true));
      return super.append(...args);
    }
  }
  const memory = await open(new ChatStore(new Recording("fresh")));
  await memory.add(say("made just now"));
  await memory.add({ ...say("the caller's own"), id: "m1" });
  expect(fresh).toEqual([true, false]);
});
