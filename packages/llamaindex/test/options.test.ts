/** What is no store, no createMemory and no option, and memories that nobody uses. */
import { memoryChatStore, sessionKey } from "@chatstore/core";
import { agent } from "@llamaindex/workflow";
import { ChatMemoryBuffer, createMemory, Memory, SimpleChatEngine } from "llamaindex";
import { describe, expect, test } from "vitest";
import { persistentChatMemoryBuffer, persistentMemory } from "../src/index.ts";
import { OfflineLLM } from "./offline-llm.ts";

const key = sessionKey({ user: "alice" });
const store = memoryChatStore();

describe.each([
  { what: "nothing", value: undefined },
  { what: "null", value: null },
  { what: "a path", value: "./chat.db" },
  { what: "a URL with a password", value: "redis://me:canary@host" },
  { what: "a promise", value: Promise.resolve(store) },
  { what: "LlamaIndex's own", value: { getMessages() {}, addMessage() {}, setMessages() {} } },
])("$what as a store", ({ value }) => {
  test("is refused, and the error says what to give instead", async () => {
    const options = { store: value as never, key };
    for (const opened of [
      persistentMemory(createMemory, options),
      persistentChatMemoryBuffer(ChatMemoryBuffer, options),
    ]) {
      const error = await opened.then(
        () => undefined,
        (error: Error) => error,
      );
      expect(error).toMatchObject({ code: "INVALID_OPTIONS" });
      expect(error?.message).toMatch(/^store is .*sqliteChatStore/);
      expect(String(error?.stack)).not.toContain("canary");
    }
  });
});

test.each([
  { what: "a class", value: Memory },
  { what: "a class that takes arguments", value: SimpleChatEngine },
  { what: "a memory", value: createMemory() },
  { what: "nothing", value: undefined },
  { what: "a function that throws", value: () => JSON.parse("?") },
  { what: "a promise", value: async () => createMemory() },
])("$what in place of createMemory is refused", async ({ value }) => {
  await expect(persistentMemory(value as never, { store, key })).rejects.toMatchObject({
    code: "INVALID_OPTIONS",
    message: expect.stringContaining('import { createMemory } from "llamaindex"'),
  });
});

test.each([
  undefined,
  null,
  "options",
  { store, key, windows: 5 },
  { store, key, memoryCursor: 1 },
])("options that are none are refused: %s", async (options) => {
  await expect(persistentMemory(createMemory, options as never)).rejects.toMatchObject({
    code: "INVALID_OPTIONS",
  });
});

describe("a memory that no engine has used", () => {
  const open = async () => {
    const warnings: string[] = [];
    const memory = await persistentMemory(createMemory, {
      store: memoryChatStore(),
      key,
      onWarning: (one) => warnings.push(one),
    });
    return { memory, warnings };
  };
  const llm = new OfflineLLM();

  test.each<[string, (memory: Memory) => unknown]>([
    [
      "an array given with the call",
      (memory) => new SimpleChatEngine({ memory, llm }).chat({ message: "hello", chatHistory: [] }),
    ],
    ["given to run()", (memory) => agent({ llm, tools: [] }).run("hello", { memory } as never)],
  ])("is warned of when it is flushed: %s", async (_, talk) => {
    const { memory, warnings } = await open();
    await talk(memory);
    await memory.flush();
    await memory.flush();
    expect(warnings).toMatchObject([expect.stringContaining("chatHistory")]);
  });

  test("is not when an engine has", async () => {
    const { memory, warnings } = await open();
    await new SimpleChatEngine({ memory, llm }).chat({ message: "hello" });
    await memory.flush();
    expect(warnings).toEqual([]);
  });
});

test("a token limit that LlamaIndex does not obey is warned of", async () => {
  const warnings: string[] = [];
  const memory = await persistentMemory(createMemory, {
    store: memoryChatStore(),
    key,
    tokenLimit: 100,
    onWarning: (one) => warnings.push(one),
  });
  const engine = new SimpleChatEngine({ memory, llm: new OfflineLLM() });
  for (const message of ["one", "two"]) await engine.chat({ message });
  await memory.flush();
  expect(warnings).toMatchObject([expect.stringContaining("tokenLimit of 100")]);
});
