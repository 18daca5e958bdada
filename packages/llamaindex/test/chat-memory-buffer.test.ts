import {
  BackendError,
  InvalidOptionsError,
  InvalidSessionKeyError,
  memoryChatStore,
  sessionKey,
} from "@chatstore/core";
import { ChatMemoryBuffer, type ChatMessage } from "llamaindex";
import { expect, test } from "vitest";
import { persistentChatMemoryBuffer } from "../src/index.ts";
import { OfflineLLM } from "./offline-llm.ts";
import { FragileStore } from "./outage.ts";

const key = sessionKey({ user: "alice" });
const llm = new OfflineLLM();
const say = (content: string): ChatMessage => ({ role: "user", content });
const contents = (messages: readonly ChatMessage[]) => messages.map(({ content }) => content);

test("what was put is there after a restart, once its promise has resolved", async () => {
  const open = () =>
    persistentChatMemoryBuffer(ChatMemoryBuffer, {
      store: memoryChatStore({ name: "old api" }),
      key,
      llm,
    });
  const before = await open();
  expect(before).toBeInstanceOf(ChatMemoryBuffer);
  await before.put(say("I am Alice"));
  const after = await open();
  expect(contents(await after.getMessages())).toEqual(["I am Alice"]);
  expect(contents(await after.getAllMessages())).toEqual(["I am Alice"]);
  await after.set([say("one"), say("two")]);
  expect(contents(await before.getMessages([say("prompt")]))).toEqual(["prompt", "one", "two"]);
  await after.reset();
  expect(await before.getMessages()).toEqual([]);
});

test("a chatHistory begins a new session and never overwrites a stored one", async () => {
  const options = { store: memoryChatStore(), key, llm, chatHistory: [say("welcome")] };
  const first = await persistentChatMemoryBuffer(ChatMemoryBuffer, options);
  await first.put(say("I am Alice"));
  const second = await persistentChatMemoryBuffer(ChatMemoryBuffer, options);
  expect(contents(await second.getMessages())).toEqual(["welcome", "I am Alice"]);
});

test("the token limit holds as in LlamaIndex's own", async () => {
  const store = memoryChatStore();
  const ours = await persistentChatMemoryBuffer(ChatMemoryBuffer, {
    store,
    key,
    llm,
    tokenLimit: 12,
  });
  const theirs = new ChatMemoryBuffer({ llm, tokenLimit: 12 });
  for (let index = 0; index < 8; index++) {
    const message: ChatMessage = {
      role: index % 2 === 0 ? "user" : "assistant",
      content: `message number ${index}`,
    };
    await ours.put(message);
    await theirs.put(message);
  }
  const shown = contents(await ours.getMessages());
  expect(shown).toEqual(contents(await theirs.getMessages()));
  expect(shown.length).toBeLessThan(8);
});

test("a write that fails rejects, and so is not lost unseen", async () => {
  const store = new FragileStore();
  const memory = await persistentChatMemoryBuffer(ChatMemoryBuffer, { store, key, llm });
  store.fail();
  await expect(memory.put(say("lost?"))).rejects.toThrow(BackendError);
  await expect(memory.set([])).rejects.toThrow(BackendError);
  await expect(memory.reset()).rejects.toThrow(BackendError);
});

test("neither the store nor its password is printed with the memory", async () => {
  const store = memoryChatStore({ name: "hunter2" });
  const memory = await persistentChatMemoryBuffer(ChatMemoryBuffer, { store, key, llm });
  expect(JSON.stringify(memory)).not.toMatch(/hunter2|backend/i);
});

test("a key that everybody shares, or a class of somebody else, is refused", async () => {
  const store = memoryChatStore();
  await expect(
    persistentChatMemoryBuffer(ChatMemoryBuffer, { store, key: "chat_history", llm }),
  ).rejects.toThrow(InvalidSessionKeyError);
  await expect(
    persistentChatMemoryBuffer(class {} as never, { store, key } as never),
  ).rejects.toThrow(InvalidOptionsError);
});

test("LlamaIndex's own, over the store, awaits nothing: order holds, and an outage ends no process", async () => {
  const store = new FragileStore();
  const buffer = new ChatMemoryBuffer({ chatStore: store, chatStoreKey: key, llm });
  void buffer.put(say("forgotten"));
  void buffer.reset();
  void buffer.set([say("one"), say("two")]);
  void buffer.put(say("three"));
  await store.flush();
  expect(contents(await store.getMessages(key))).toEqual(["one", "two", "three"]);
  store.fail();
  void buffer.put(say("four"));
  await expect(store.flush()).rejects.toThrow("the engine is away");
  store.recover();
  expect(contents(await buffer.getMessages())).toEqual(["one", "two", "three"]);
});
