/** Agents that many users share, and what is stored of a turn that does not come to its end. */
import { setTimeout as delay } from "node:timers/promises";
import {
  ChatStore,
  InvalidOptionsError,
  MemoryBackend,
  memoryChatStore,
  type StoredMessage,
  sessionKey,
} from "@chatstore/core";
import { tool } from "@llamaindex/core/tools";
import { agent, multiAgent } from "@llamaindex/workflow";
import { type ChatMessage, createMemory } from "llamaindex";
import { expect, test, vi } from "vitest";
import { type PersistentMemoryOptions, persistentMemory } from "../src/index.ts";
import { type Answer, OfflineLLM } from "./offline-llm.ts";
import { FragileStore } from "./outage.ts";

const key = sessionKey({ user: "alice" });

const noParameters = { type: "object", properties: {} } as const;
const act = (name: string, execute: () => unknown) =>
  tool(execute as () => string, { name, description: name, parameters: noParameters });

/** A model that calls tools step by step, as many in one step as a group has, and then answers. */
function calling(...steps: string[][]): (messages: ChatMessage[]) => Answer {
  return (messages) => {
    const turn = messages.slice(messages.findLastIndex(isQuestion) + 1);
    const done = turn.filter(({ role }) => role === "assistant").length;
    return steps[done]?.map((name) => ({ tool: name, input: {} })) ?? "Done.";
  };
}

function isQuestion({ role, options }: ChatMessage): boolean {
  return role === "user" && !(options && "toolResult" in options);
}

/** A memory on a store that outlives it. */
function open(name: string, options: Omit<PersistentMemoryOptions, "store" | "key"> = {}) {
  return persistentMemory(createMemory, { store: memoryChatStore({ name }), key, ...options });
}

/** Role and text of what a process that starts now would find. */
async function stored(name: string): Promise<string[]> {
  const messages = await memoryChatStore({ name }).getMessages(key);
  return messages.map(({ role, content }) => `${role}: ${content}`);
}

const shown = async (name: string) =>
  (await (await open(name)).getLLM()).map(({ role, content }) => `${role}: ${content}`);

test("each run of a shared agent has its user's memory, though they run at once", async () => {
  const llm = new OfflineLLM(); // repeats what was said
  const shared = agent({ llm, tools: [] });
  const store = memoryChatStore();
  const users = ["alice", "bob", "carol"];
  for (const question of ["one", "two"]) {
    await Promise.all(
      users.map(async (user) => {
        const memory = await persistentMemory(createMemory, { store, key: sessionKey({ user }) });
        await shared.run(`${user} ${question}`, { state: memory.runState(shared) });
        await memory.flush();
      }),
    );
  }
  for (const user of users) {
    const messages = await store.getMessages(sessionKey({ user }));
    expect(messages.map(({ content }) => content)).toEqual([
      `${user} one`,
      `You said: ${user} one.`,
      `${user} two`,
      `You said: ${user} one, ${user} two.`,
    ]);
  }
});

test("a tool's result is stored while the next tool works, within a step and between steps", async () => {
  const name = "as they occur";
  const seen: string[][] = [];
  const memory = await open(name);
  const look = act("look", async () => {
    await memory.flush();
    seen.push(await stored(name));
    return `look ${seen.length}`;
  });
  const workflow = agent({
    llm: new OfflineLLM(calling(["look", "look"], ["look"])),
    tools: [look],
  });
  const result = await workflow.run("Go", { state: memory.runState(workflow) });
  expect(result.data.result).toBe("Done.");
  const first = ["user: Go", "assistant: ", "user: look 1"];
  expect(seen).toEqual([first.slice(0, 2), first, [...first, "user: look 2", "assistant: "]]);
  await memory.flush();
  expect(await stored(name)).toEqual([...(seen[2] ?? []), "user: look 3", "assistant: Done."]);
});

test("the agent adds what is stored already: nothing twice, in memory, store or context", async () => {
  const name = "nothing twice";
  const failing = act("fail", () => {
    throw new Error("no such city");
  });
  const rich = act("rich", () => ({ 'a "quoted" key': ["ä", 1, null, true] }));
  const memory = await open(name);
  const llm = new OfflineLLM(calling(["fail", "rich"], ["rich"]));
  const workflow = agent({ llm, tools: [failing, rich] });
  await workflow.run("Go", { state: memory.runState(workflow) });
  await memory.flush();
  const messages: StoredMessage[] = await memoryChatStore({ name }).getMessages(key);
  expect(messages).toHaveLength(7);
  expect(messages[2]).toMatchObject({
    options: { toolResult: { isError: true } },
    content: expect.stringContaining("no such city"),
  });
  const vercel = (ids: readonly { id: string }[]) => ids.map(({ id }) => id);
  expect(vercel(await memory.get({ type: "vercel" }))).toEqual(vercel(messages));
  expect(await (await open(name)).getLLM()).toEqual(await memory.getLLM());
  // As without us:
  const theirs = createMemory();
  const same = agent({
    llm: new OfflineLLM(calling(["fail", "rich"], ["rich"])),
    tools: [failing, rich],
    memory: theirs,
  });
  await same.run("Go");
  expect(await memory.get()).toEqual(await theirs.get());
});

test("agents that hand over store what occurs too, and each run keeps its own state", async () => {
  const name = "hand over";
  const seen: string[] = [];
  const memory = await open(name);
  const look = act("look", async () => {
    await memory.flush();
    seen.push(...(await stored(name)));
    return "looked";
  });
  const second = agent({
    name: "second",
    description: "looks",
    llm: new OfflineLLM((messages) =>
      messages.some(({ content }) => content === "looked")
        ? "Seen."
        : [{ tool: "look", input: {} }],
    ),
    tools: [look],
  });
  const first = agent({
    name: "first",
    llm: new OfflineLLM(() => [{ tool: "handOff", input: { toAgent: "second", reason: "r" } }]),
    tools: [look],
    canHandoffTo: [second],
  });
  const team = multiAgent({ agents: [first, second], rootAgent: first });
  const { data } = await team.run("Go", { state: memory.runState(team) });
  expect(data.result).toBe("Seen.");
  expect(seen.slice(0, 3)).toEqual([
    "user: Go",
    "assistant: ",
    expect.stringContaining("handling"),
  ]);
  expect(seen).toHaveLength(4);
  await memory.flush();
  expect(await stored(name)).toEqual([...seen, "user: looked", "assistant: Seen."]);
});

test("a turn that its model breaks off is remembered as far as it went", async () => {
  const name = "model fails";
  const memory = await open(name);
  const steps = calling(["look"]);
  const llm = new OfflineLLM((messages) => {
    const answer = steps(messages);
    if (answer === "Done.") throw new Error("overloaded");
    return answer;
  });
  const workflow = agent({ llm, tools: [act("look", () => "looked")] });
  // LlamaIndex throws the error where nobody can catch it, and never settles the run.
  const thrown = new Promise<unknown>((resolve) => {
    const listeners = process.listeners("unhandledRejection");
    process.removeAllListeners("unhandledRejection");
    process.once("unhandledRejection", (reason) => {
      for (const listener of listeners) process.on("unhandledRejection", listener);
      resolve(reason);
    });
  });
  const run = workflow.run("Go", { state: memory.runState(workflow) }).catch((error) => error);
  expect(String(await Promise.race([thrown, run]))).toContain("overloaded");
  await memory.flush();
  const turn = ["user: Go", "assistant: ", "user: looked"];
  expect(await stored(name)).toEqual(turn);
  const inMemory = (await memory.getLLM()).map(({ role, content }) => `${role}: ${content}`);
  expect(inMemory).toEqual(turn);
  expect(await shown(name)).toEqual(turn);
});

test("without saveToolMessages, tool messages are stored when the agent has answered", async () => {
  const name = "left to LlamaIndex";
  const seen: string[][] = [];
  const memory = await open(name);
  const look = act("look", async () => {
    await memory.flush();
    seen.push(await stored(name));
    return "looked";
  });
  const workflow = agent({ llm: new OfflineLLM(calling(["look"])), tools: [look] });
  const run = () =>
    workflow.run("Go", { state: memory.runState(workflow, { saveToolMessages: false }) });
  await run();
  memory.runState(workflow); // another run's wish is not this one's
  await memory.clear();
  await run();
  expect(seen).toEqual([["user: Go"], ["user: Go"]]);
  await memory.flush();
  expect(await stored(name)).toHaveLength(4);
});

test("a refresh in the middle of a turn shows the model no tool message twice", async () => {
  const name = "refresh";
  const memory = await open(name, { stale: "refresh" });
  const llm = new OfflineLLM(calling(["look"], ["look"]));
  const workflow = agent({ llm, tools: [act("look", () => "looked")] });
  await workflow.run("Go", { state: memory.runState(workflow) });
  // The agent's prompt, the question, and two messages for each step.
  expect(llm.requests.map((messages) => messages.length)).toEqual([2, 4, 6]);
  await memory.flush();
  expect(await memory.get()).toHaveLength(6);
  expect(await stored(name)).toHaveLength(6);
});

test("a conversation cleared in the middle of a turn begins with what the agent adds then", async () => {
  const name = "cleared";
  const memory = await open(name);
  const clear = act("clear", async () => {
    await memory.clear();
    return "cleared";
  });
  const workflow = agent({ llm: new OfflineLLM(calling(["clear"])), tools: [clear] });
  await workflow.run("Go", { state: memory.runState(workflow) });
  await memory.flush();
  expect(await stored(name)).toEqual(["assistant: ", "user: cleared", "assistant: Done."]);
  expect(await stored(name)).toEqual(
    (await memory.get()).map((one) => `${one.role}: ${one.content}`),
  );
});

test("an outage in the middle of a turn loses nothing and stores nothing twice", async () => {
  const store = new FragileStore();
  const heard = vi.fn();
  const memory = await persistentMemory(createMemory, { store, key, onError: heard });
  const llm = new OfflineLLM(calling(["fail"], ["recover"], ["look"]));
  const tools = [
    act("fail", async () => {
      await memory.flush();
      store.fail();
      return "failing";
    }),
    act("recover", async () => {
      await delay(60); // a failed attempt or two
      store.recover();
      return "recovered";
    }),
    act("look", () => "looked"),
  ];
  const workflow = agent({ llm, tools });
  await workflow.run("Go", { state: memory.runState(workflow) });
  await memory.flush();
  expect(heard).toHaveBeenCalled();
  const messages = await store.getMessages(key);
  expect(messages.map(({ content }) => content)).toEqual(
    (await memory.get()).map(({ content }) => content),
  );
  expect(messages).toHaveLength(8);
});

test("anything else than a workflow is refused by name", async () => {
  const memory = await open("refused");
  for (const workflow of [undefined, {}, { run() {}, getAgents: () => [] }]) {
    expect(() => memory.runState(workflow as never)).toThrow(InvalidOptionsError);
  }
});

test("no tool runs before its call is stored, however fast it is and slow the store", async () => {
  const name = "written ahead";
  class Slow extends MemoryBackend {
    override async append(...args: Parameters<MemoryBackend["append"]>) {
      await delay(10);
      return super.append(...args);
    }
  }
  const store = new ChatStore(new Slow(name));
  const memory = await persistentMemory(createMemory, { store, key });
  const seen: number[] = [];
  const look = act("look", async () => {
    const messages = await memoryChatStore({ name }).getMessages(key);
    const calls = messages.flatMap(({ options }) => (options as { toolCall?: [] })?.toolCall ?? []);
    seen.push(calls.length);
    return "seen";
  });
  const workflow = agent({
    llm: new OfflineLLM(calling(["look", "look"], ["look"], ["look", "look", "look"])),
    tools: [look],
  });
  await workflow.run("Go", { state: memory.runState(workflow) });
  expect(seen).toEqual([2, 2, 3, 6, 6, 6]);
});
