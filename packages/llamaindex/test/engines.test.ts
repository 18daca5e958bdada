/**
 * Conversations with the real engines and agents of LlamaIndex. "Restart" is a new handle on the same data, a new memory
 * and a new engine: whatever lived in RAM is gone.
 */
import { createRequire } from "node:module";
import { InvalidOptionsError, memoryChatStore, sessionKey } from "@chatstore/core";
import { tool } from "@llamaindex/core/tools";
import { agent, multiAgent } from "@llamaindex/workflow";
import {
  BaseRetriever,
  type ChatMessage,
  CondenseQuestionChatEngine,
  ContextChatEngine,
  createMemory,
  type Memory,
  RetrieverQueryEngine,
  Settings,
  SimpleChatEngine,
  TextNode,
} from "llamaindex";
import { describe, expect, test } from "vitest";
import { persistentMemory } from "../src/index.ts";
import { OfflineLLM } from "./offline-llm.ts";
import { FragileStore } from "./outage.ts";

const key = sessionKey({ tenant: "acme", user: "alice", conversation: "support" });

/** A conversation's memory after a start of the application. */
function start(name: string) {
  return persistentMemory(createMemory, { store: memoryChatStore({ name }), key });
}

async function textOf(stream: AsyncIterable<{ delta: string }>): Promise<string> {
  let text = "";
  for await (const chunk of stream) text += chunk.delta;
  return text;
}

class OneDocument extends BaseRetriever {
  // biome-ignore lint/complexity/noUselessConstructor: the inherited one is protected
  constructor() {
    super();
  }

  async _retrieve() {
    return [{ node: new TextNode({ text: "Chatstore remembers." }), score: 1 }];
  }
}

describe.each([
  { how: "plain", stream: false },
  { how: "streaming", stream: true },
])("$how", ({ how, stream }) => {
  /** One turn; returns the reply once it was read to its end. */
  async function say(
    engine: SimpleChatEngine | ContextChatEngine | CondenseQuestionChatEngine,
    message: string,
  ): Promise<string> {
    if (stream) return textOf(await engine.chat({ message, stream: true }));
    return String((await engine.chat({ message })).message.content);
  }

  test("SimpleChatEngine is shown what was said before the restart", async () => {
    const before = await start(`simple ${how}`);
    const first = new SimpleChatEngine({ memory: before, llm: new OfflineLLM() });
    const reply = await say(first, "I am Alice");
    await before.flush();

    const memory = await start(`simple ${how}`);
    const llm = new OfflineLLM();
    await say(new SimpleChatEngine({ memory, llm }), "Who am I?");
    expect(llm.shown).toEqual(["I am Alice", reply, "Who am I?"]);
  });

  test("ContextChatEngine is shown what was said before the restart", async () => {
    const before = await start(`context ${how}`);
    const retriever = new OneDocument();
    const first = new ContextChatEngine({
      retriever,
      chatHistory: before,
      chatModel: new OfflineLLM(),
    });
    const reply = await say(first, "I am Alice");
    await before.flush();

    const memory = await start(`context ${how}`);
    const chatModel = new OfflineLLM();
    await say(new ContextChatEngine({ retriever, chatHistory: memory, chatModel }), "Who am I?");
    expect(chatModel.shown.slice(0, 3)).toEqual(["I am Alice", reply, "Who am I?"]);
    expect(JSON.stringify(chatModel.shown[3])).toContain("Chatstore remembers.");
  });

  test("CondenseQuestionChatEngine condenses with what was said before the restart", async () => {
    const converse = async (llm: OfflineLLM, message: string) => {
      Settings.llm = llm;
      const queryEngine = new RetrieverQueryEngine(new OneDocument());
      const engine = new CondenseQuestionChatEngine({ queryEngine, chatHistory: [] });
      const memory = await start(`condense ${how}`);
      engine.memory = memory;
      const reply = await say(engine, message);
      await memory.flush();
      return reply;
    };
    const reply = await converse(new OfflineLLM(), "I am Alice");
    const llm = new OfflineLLM();
    await converse(llm, "Who am I?");
    const condensing = String(llm.requests[0]?.[0]?.content);
    expect(condensing).toContain("I am Alice");
    expect(condensing).toContain(reply);
  });

  test("a memory given with the turn is written to, not dropped", async () => {
    const memory = await start(`per call ${how}`);
    const engine = new SimpleChatEngine({ llm: new OfflineLLM() });
    if (stream) {
      await textOf(await engine.chat({ message: "Hello", chatHistory: memory, stream: true }));
    } else await engine.chat({ message: "Hello", chatHistory: memory });
    await memory.flush();
    expect(await (await start(`per call ${how}`)).get()).toHaveLength(2);
  });
});

test("resetting an engine forgets the stored conversation too", async () => {
  const simple = await start("reset");
  const engine = new SimpleChatEngine({ memory: simple, llm: new OfflineLLM() });
  await engine.chat({ message: "I am Alice" });
  await engine.reset();
  expect(await (await start("reset")).get()).toEqual([]);

  Settings.llm = new OfflineLLM();
  const memory = await start("reset");
  await memory.add({ role: "user", content: "I am Bob" });
  const queryEngine = new RetrieverQueryEngine(new OneDocument());
  const condense = new CondenseQuestionChatEngine({ queryEngine, chatHistory: [] });
  condense.memory = memory;
  condense.reset(); // awaits nothing
  await memory.flush();
  expect(await (await start("reset")).get()).toEqual([]);
});

const weather = tool(({ city }: { city: string }) => `Sunny in ${city}`, {
  name: "weather",
  description: "The weather of a city",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
});

/** Calls the tool once per question, then answers with the tool's result. */
function askWeather(messages: ChatMessage[]) {
  const last = messages.at(-1);
  const isForecast = String(last?.content).startsWith("Sunny");
  return isForecast ? `It says: ${last?.content}` : [{ tool: "weather", input: { city: "Rome" } }];
}

test("an agent is shown what was said, called and answered before the restart", async () => {
  const before = await start("agent");
  const llm = new OfflineLLM(askWeather);
  const first = await agent({ llm, tools: [weather], memory: before }).run("How is Rome?");
  expect(first.data.result).toBe("It says: Sunny in Rome");
  await before.flush();

  const memory = await start("agent");
  const next = new OfflineLLM(askWeather);
  await agent({ llm: next, tools: [weather], memory }).run("And now?");
  await memory.flush();
  const request = next.requests[0]?.filter(({ role }) => role !== "system");
  expect(request?.map(({ role, content }) => [role, content])).toEqual([
    ["user", "How is Rome?"],
    ["assistant", ""],
    ["user", "Sunny in Rome"],
    ["assistant", "It says: Sunny in Rome"],
    ["user", "And now?"],
  ]);
  const call = { id: "call-1-0", name: "weather", input: { city: "Rome" } };
  expect(request?.[1]?.options).toEqual({ toolCall: [call] });
  const toolResult = { id: "call-1-0", result: "Sunny in Rome", isError: false };
  expect(request?.[2]?.options).toEqual({ toolResult });
  expect(await (await start("agent")).get()).toHaveLength(8);
});

test("an agent answers while the engine is away, and nothing it said is lost", async () => {
  const store = new FragileStore({ name: "agent in an outage" });
  const heard: Error[] = [];
  const memory = await persistentMemory(createMemory, {
    store,
    key,
    onError: (error) => heard.push(error),
  });
  const team = agent({ llm: new OfflineLLM(askWeather), tools: [weather], memory });
  store.fail();
  expect((await team.run("How is Rome?")).data.result).toBe("It says: Sunny in Rome");
  await expect(memory.flush()).rejects.toThrow("the engine is away");
  expect(heard.length).toBeGreaterThan(0);
  store.recover();
  await team.run("And now?");
  await memory.flush();
  const stored = await (await start("agent in an outage")).get();
  expect(stored).toEqual(await memory.get());
  expect(stored).toHaveLength(8);
});

test("an agent whose reply nobody reads to its end has stored it all the same", async () => {
  const memory = await start("unread agent");
  const llm = new OfflineLLM(() => "A long reply");
  for await (const _ of agent({ llm, tools: [weather], memory }).runStream("Hello")) break;
  await expect
    .poll(async () => {
      await memory.flush();
      return (await start("unread agent")).get();
    })
    .toMatchObject([{ content: "Hello" }, { content: "A long reply" }]);
});

test("agents that hand over share one memory, and so do their successors after a restart", async () => {
  const team = (memory: Memory, llm: OfflineLLM) => {
    const forecaster = agent({
      name: "forecaster",
      description: "Knows the weather",
      llm: new OfflineLLM(askWeather),
      tools: [weather],
    });
    const desk = agent({
      name: "desk",
      description: "Takes calls",
      llm,
      tools: [weather],
      canHandoffTo: [forecaster],
    });
    return multiAgent({ agents: [desk, forecaster], rootAgent: desk, memory });
  };
  const before = await start("team");
  const handOver = new OfflineLLM(() => [
    { tool: "handOff", input: { toAgent: "forecaster", reason: "weather" } },
  ]);
  const { data } = await team(before, handOver).run("How is Rome?");
  expect(data.result).toBe("It says: Sunny in Rome");
  await before.flush();

  const memory = await start("team");
  const llm = new OfflineLLM(() => "Still sunny");
  await team(memory, llm).run("And now?");
  expect(llm.shown[1]).toBe("How is Rome?"); // behind the agent's own prompt
  expect(llm.shown.slice(-3)).toEqual(["Sunny in Rome", "It says: Sunny in Rome", "And now?"]);
});

describe("a streamed reply", () => {
  const partial = { role: "assistant", annotations: [{ partial: true }] };
  const talk = async (name: string) => {
    const memory = await start(name);
    const engine = new SimpleChatEngine({
      memory,
      llm: new OfflineLLM(() => "one two three four"),
    });
    return { memory, stream: await engine.chat({ message: "Count", stream: true }) };
  };
  const stored = async (name: string) => memoryChatStore({ name }).getMessages(key);

  test("whose reader stops early is kept as far as it was read, and marked", async () => {
    const { memory, stream } = await talk("stopped");
    let read = "";
    for await (const chunk of memory.keepPartialReply(stream)) {
      read += chunk.delta;
      if (read.includes("two")) break;
    }
    await memory.flush();
    expect(await stored("stopped")).toMatchObject([
      { role: "user", content: "Count" },
      { ...partial, content: "one two " },
    ]);
  });

  test("that breaks off is kept, and its error reaches the reader", async () => {
    const { memory, stream } = await talk("broken");
    async function* breakingOff() {
      for await (const chunk of stream) {
        yield chunk;
        throw new Error("connection reset");
      }
    }
    await expect(textOf(memory.keepPartialReply(breakingOff()))).rejects.toThrow(
      "connection reset",
    );
    await memory.flush();
    expect((await stored("broken")).at(-1)).toMatchObject({ ...partial, content: "one " });
  });

  test("that is read to its end is stored once, by the engine, unmarked", async () => {
    const { memory, stream } = await talk("read");
    expect(await textOf(memory.keepPartialReply(stream))).toBe("one two three four");
    await memory.flush();
    const messages = await stored("read");
    expect(messages.map(({ content }) => content)).toEqual(["Count", "one two three four"]);
    expect(messages[1]?.annotations).toBeUndefined();
  });

  test("of which nothing was read leaves no empty reply", async () => {
    const { memory, stream } = await talk("unread");
    await memory.keepPartialReply(stream).return();
    await memory.flush();
    expect(await stored("unread")).toMatchObject([{ role: "user", content: "Count" }]);
  });

  test("that ends within a character is kept without half of it", async () => {
    const { memory } = await talk("half");
    async function* halves() {
      for (const content of ["Hello ", "\ud83d", "\ude00"]) yield { message: { content } };
    }
    for await (const { message } of memory.keepPartialReply(halves())) {
      if (message.content === "\ud83d") break;
    }
    await memory.flush();
    expect((await stored("half")).at(-1)).toMatchObject({ ...partial, content: "Hello " });
  });

  test("that is none is refused to its reader: an agent's, a promise, a whole reply", async () => {
    const memory = await start("no stream");
    const llm = new OfflineLLM(() => "one two");
    const events = agent({ llm, tools: [] }).runStream("Hello", {
      state: memory.runState(agent({ llm, tools: [] })),
    });
    const engine = new SimpleChatEngine({ memory, llm });
    const reply = await engine.chat({ message: "Hello" });
    for (const none of [events, engine.chat({ message: "Hello", stream: true }), reply]) {
      const read = async () => {
        for await (const _ of memory.keepPartialReply(none as never));
      };
      await expect(read()).rejects.toThrow(InvalidOptionsError);
    }
    await memory.flush();
  });
});

test("what would take the memory for options, and forget it, fails clearly", async () => {
  const memory = await start("options");
  const queryEngine = new RetrieverQueryEngine(new OneDocument());
  const chatHistory = memory as never;
  expect(() => new CondenseQuestionChatEngine({ queryEngine, chatHistory })).toThrow(
    "engine.memory",
  );
  expect(() => createMemory(chatHistory)).toThrow(InvalidOptionsError);
});

test("the memory is an instance of the caller's own Memory, ESM or CommonJS", async () => {
  const cjs = createRequire(import.meta.url)("llamaindex") as typeof import("llamaindex");
  const store = memoryChatStore();
  const ours = await persistentMemory(createMemory, { store, key });
  const theirs = await persistentMemory(cjs.createMemory, { store, key });
  expect(ours).toBeInstanceOf(createMemory().constructor);
  expect(theirs).toBeInstanceOf(cjs.Memory);
  expect(theirs).not.toBeInstanceOf(createMemory().constructor);
  await theirs.add({ role: "user", content: "hello" });
  const converse = (memory: unknown) =>
    new cjs.ContextChatEngine({
      retriever: new OneDocument() as never,
      chatHistory: memory as never,
      chatModel: new OfflineLLM(),
    });
  expect(converse(theirs).memory).toBe(theirs);
  expect(() => converse(ours)).toThrow("two copies of @llamaindex/core");
});
