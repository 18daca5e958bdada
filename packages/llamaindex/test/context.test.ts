/** What of a conversation the model is shown, when not all of it fits and not all of it was stored. */
import { memoryChatStore, sessionKey } from "@chatstore/core";
import { unfinished } from "@chatstore/core/bridge";
import { type ChatMessage, createMemory, factExtractionBlock } from "llamaindex";
import { describe, expect, test } from "vitest";
import { persistentMemory } from "../src/index.ts";
import { factLLM } from "./offline-llm.ts";
import { FragileStore } from "./outage.ts";

const key = sessionKey({ user: "alice" });
const contents = (messages: readonly ChatMessage[]) => messages.map(({ content }) => content);
const system = (content: string): ChatMessage => ({ role: "system", content });
const user = (content: string): ChatMessage => ({ role: "user", content });
const assistant = (content: string): ChatMessage => ({ role: "assistant", content });
const toolTurn = (id: string): ChatMessage[] => [
  {
    role: "assistant",
    content: `call ${id}`,
    options: { toolCall: [{ id, name: "f", input: {} }] },
  },
  {
    role: "user",
    content: `result ${id}`,
    options: { toolResult: { id, result: `result ${id}`, isError: false } },
  },
];

async function storeOf(messages: readonly ChatMessage[]) {
  const store = memoryChatStore();
  await store.addMessages(key, messages);
  return store;
}

describe("a window", () => {
  const contextOf = async (messages: readonly ChatMessage[], window: number) => {
    const store = await storeOf(messages);
    const memory = await persistentMemory(createMemory, { store, key, window });
    await memory.refresh(); // reads the same
    return contents(await memory.getLLM());
  };

  test("keeps the instructions at the beginning of the session", async () => {
    const instructions = [system("Be kind"), system("Be brief")];
    const history = [...instructions, user("one"), assistant("1"), user("two"), assistant("2")];
    expect(await contextOf([...history, user("three")], 3)).toEqual([
      "Be kind",
      "Be brief",
      "two",
      "2",
      "three",
    ]);
    expect(await contextOf(history, 6)).toEqual(contents(history));
    expect(await contextOf(history, 5)).toEqual(contents(history));
  });

  test("begins with what the user said, not in the middle of a turn", async () => {
    const history = [user("one"), ...toolTurn("a"), assistant("1"), user("two")];
    for (const window of [1, 2, 3, 4]) expect(await contextOf(history, window)).toEqual(["two"]);
    expect(await contextOf(history, 5)).toEqual(contents(history));
  });

  test("reaches back to the question that its tools are at work for", async () => {
    const tools = Array.from({ length: 60 }, (_, index) => toolTurn(`${index}`)).flat();
    expect(await contextOf([user("one"), assistant("1"), user("two"), ...tools], 4)).toEqual([
      "two",
      ...contents(tools),
    ]);
  });

  test("has all that long-term memory has not processed, and does not process it twice", async () => {
    const store = new FragileStore();
    const open = () => {
      const llm = factLLM();
      const block = factExtractionBlock({ id: "facts", llm, maxFacts: 100, priority: 1 });
      const options = { store, key, window: 2, tokenLimit: 60, memoryBlocks: [block] };
      return { llm, memory: persistentMemory(createMemory, options) };
    };
    const first = await open().memory;
    void first.add(system("Be kind"));
    for (let index = 0; index < 6; index++) await first.add(user(`the fact number ${index}`));
    await first.flush();
    const again = open();
    const context = contents(await (await again.memory).getLLM());
    expect(context).toEqual(contents(await first.getLLM()));
    expect(context).toContain("Be kind");
    expect(context.at(-1)).toBe("the fact number 5");
    expect(again.llm.requests).toEqual([]);
  });
});

describe("a token limit", () => {
  const contextOf = async (messages: readonly ChatMessage[], tokenLimit: number) => {
    const store = await storeOf(messages);
    const options = { store, key, tokenLimit, shortTermTokenLimitRatio: 1 };
    return contents(await (await persistentMemory(createMemory, options)).getLLM());
  };

  test("counts the instructions and what the user said last first, and keeps them", async () => {
    const turns = Array.from({ length: 20 }, (_, index) => [
      user(`question number ${index}`),
      assistant(`answer number ${index}`),
    ]).flat();
    const history = [system("Be kind"), ...turns, user("And now?")];
    for (let tokenLimit = 1; tokenLimit < 60; tokenLimit++) {
      const [instructions, first, ...others] = await contextOf(history, tokenLimit);
      expect(instructions).toBe("Be kind");
      expect(first).toMatch(/question|now/);
      expect(others.at(-1) ?? first).toBe("And now?");
    }
    expect((await contextOf(history, 30)).length).toBeGreaterThan(3);
    expect((await contextOf(history, 30)).length).toBeLessThan(
      (await contextOf(history, 60)).length,
    );
  });

  test("that the user's message alone exceeds does not leave the model without it", async () => {
    const long = "word ".repeat(500);
    expect(await contextOf([user("one"), assistant("1"), user(long)], 10)).toEqual([long]);
  });

  test("leaves a long turn its question, and the newest of its tools", async () => {
    const tools = Array.from({ length: 30 }, (_, index) => toolTurn(`${index}`)).flat();
    const context = await contextOf([user("one"), ...tools], 40);
    expect(context[0]).toBe("one");
    expect(context[1]).toMatch(/^call/);
    expect(context.at(-1)).toBe("result 29");
  });
});

test("long-term memory is no reason to hide what the user has just said, though it exceeds the limit alone", async () => {
  const llm = factLLM();
  const memory = await persistentMemory(createMemory, {
    store: memoryChatStore(),
    key,
    tokenLimit: 10,
    memoryBlocks: [factExtractionBlock({ llm, maxFacts: 10, priority: 1 })],
  });
  const long = "word ".repeat(50);
  await memory.add(user(long));
  expect(contents(await memory.getLLM())).toEqual([long]);
});

test("a turn that was interrupted after its tools is closed before the user goes on", async () => {
  const store = await storeOf([user("one"), ...toolTurn("a")]);
  const memory = await persistentMemory(createMemory, { store, key });
  expect(contents(await memory.getLLM())).toEqual(["one", "call a", "result a"]);
  void memory.add(user("two"));
  expect(await memory.getLLM()).toMatchObject([
    { content: "one" },
    { content: "call a" },
    { content: "result a" },
    assistant(unfinished),
    { content: "two" },
  ]);
  await memory.flush();
  expect(await store.getMessages(key)).toHaveLength(4);
});

describe("a message that the store refused", () => {
  const refused = { ...user("too large"), options: { cannot: () => {} } };

  test("is not shown to the model after that, nor to anybody else", async () => {
    const store = new FragileStore();
    const memory = await persistentMemory(createMemory, { store, key, onError: () => {} });
    await memory.add(user("one"));
    const adding = memory.add(refused);
    expect(contents(await memory.getLLM())).toEqual(["one", "too large"]); // it may yet be stored
    await expect(adding).rejects.toThrow("options.cannot");
    await memory.add(user("two"));
    expect(contents(await memory.getLLM())).toEqual(["one", "two"]);
    expect(contents(await memory.get())).toEqual(["one", "two"]);
    expect(contents(await store.getMessages(key))).toEqual(["one", "two"]);
  });

  test("is sent again without being taken for a repetition", async () => {
    const store = new FragileStore();
    const memory = await persistentMemory(createMemory, { store, key, onError: () => {} });
    await expect(memory.add({ ...refused, id: "m1" } as never)).rejects.toThrow("options.cannot");
    await memory.add({ ...user("short"), id: "m1" } as never);
    expect(contents(await store.getMessages(key))).toEqual(["short"]);
  });

  test("because another one has its id, leaves the other one", async () => {
    const store = new FragileStore();
    const memory = await persistentMemory(createMemory, { store, key, onError: () => {} });
    await memory.add({ ...user("one"), id: "m1" } as never);
    await expect(memory.add({ ...user("other"), id: "m1" } as never)).rejects.toThrow("m1");
    expect(contents(await memory.getLLM())).toEqual(["one"]);
  });

  test("does not move what long-term memory has processed", async () => {
    const store = new FragileStore();
    const llm = factLLM();
    const memory = await persistentMemory(createMemory, {
      store,
      key,
      tokenLimit: 10,
      onError: () => {},
      memoryBlocks: [factExtractionBlock({ id: "facts", llm, maxFacts: 10, priority: 1 })],
    });
    void memory.add(refused);
    void memory.add(user("word ".repeat(30)));
    await memory.flush().catch(() => {});
    await memory.add(user("last"));
    await memory.flush();
    expect(contents(await memory.getLLM()).at(-1)).toBe("last");
    const { session } = await store.readSession(key);
    const [first] = await store.getMessages(key);
    expect(session?.state["llamaindex"]).toMatchObject({ cursor: first?.id });
  });
});
