/** What a factExtractionBlock learns: of two tabs, of a model that fails, of more than fits. */
import { memoryChatStore, sessionKey } from "@chatstore/core";
import { type ChatMessage, createMemory, factExtractionBlock } from "llamaindex";
import { describe, expect, test } from "vitest";
import { type PersistentMemoryOptions, persistentMemory } from "../src/index.ts";
import { modelOf } from "./conversations.ts";
import { everyLineIsAFact, factLLM, OfflineLLM } from "./offline-llm.ts";
import { FragileStore } from "./outage.ts";

const key = sessionKey({ user: "alice" });
const say = (content: string): ChatMessage => ({ role: "user", content });
/** Some eight tokens, of which two messages are more than short-term memory holds. */
const fact = (name: string) => `my friend's name is ${name}, they say`;
const quiet = { log() {}, error() {}, warn() {} };
const silent = { logger: quiet, onWarning: () => {}, onError: () => {} };

type Options = Partial<PersistentMemoryOptions> & {
  readonly llm?: OfflineLLM;
  readonly id?: string;
  readonly tokenLimit?: number;
  readonly maxFacts?: number;
};

async function open(store: PersistentMemoryOptions["store"], options: Options = {}) {
  const { llm = factLLM(), id = "facts", maxFacts = 1_000, ...others } = options;
  const block = factExtractionBlock({ id, llm, maxFacts, priority: 1 });
  const memory = await persistentMemory(createMemory, {
    store,
    key,
    tokenLimit: 20,
    shortTermTokenLimitRatio: 0.5,
    memoryBlocks: [block],
    ...silent,
    ...others,
  });
  return { memory, llm, facts: () => (block as unknown as { facts: string[] }).facts };
}

/** What a model is shown by the next request's memory, whose context holds everything. */
async function known(store: PersistentMemoryOptions["store"]): Promise<string> {
  const { memory } = await open(store);
  return JSON.stringify((await memory.getLLM(modelOf(1_000_000))).map(({ content }) => content));
}

const names = (prefix: string) => Array.from({ length: 8 }, (_, index) => `${prefix}${index}`);

describe.each(["keep", "refresh", "refuse"] as const)("two tabs, stale: %s", (stale) => {
  test.each(["together", "in turns"])("nothing told in either is lost (%s)", async (how) => {
    const store = memoryChatStore();
    const tabs = await Promise.all(
      ["left", "right"].map(async (side) => ({ side, ...(await open(store, { stale })) })),
    );
    const told: string[] = [];
    const tell = async ({ side, memory }: (typeof tabs)[number], index: number) => {
      const name = `${side}${index}`;
      if (stale === "refresh") await memory.getLLM(modelOf(1_000_000));
      await memory.add(say(fact(name))).then(
        () => told.push(name),
        () => undefined, // refused, and so its user knows
      );
    };
    for (let index = 0; index < 8; index++) {
      if (how === "together") await Promise.all(tabs.map((tab) => tell(tab, index)));
      else for (const tab of tabs) await tell(tab, index);
    }
    for (const { memory } of tabs) await memory.flush().catch(() => undefined);
    expect(told.length).toBeGreaterThanOrEqual(stale === "refuse" ? 1 : 16);
    const shown = await known(store);
    expect(told.filter((name) => !shown.includes(name))).toEqual([]);
  });
});

test("a tab that learnt nothing does not undo what another one has learnt", async () => {
  const store = memoryChatStore();
  const idle = await open(store, { tokenLimit: 30 });
  const busy = await open(store);
  for (const name of names("f")) await busy.memory.add(say(fact(name)));
  await busy.memory.flush();
  await idle.memory.add(say("hello")); // stores its token limit
  await idle.memory.flush();
  expect(await known(store)).toMatch(/f0.*f7/);
});

test("a memory with another block keeps what it does not know", async () => {
  const store = memoryChatStore();
  for (const id of ["hobbies", "friends"]) {
    const { memory } = await open(store, { id });
    for (const name of names(id)) await memory.add(say(fact(name)));
    await memory.flush();
  }
  const again = await open(store, { id: "hobbies" });
  expect(again.facts().join()).toContain("hobbies0");
});

test("what one tab condensed stays condensed, what the other one learnt meanwhile stays known", async () => {
  const store = memoryChatStore();
  const condense = (prompt: ChatMessage[]) =>
    String(prompt[0]?.content).includes("condensing")
      ? JSON.stringify({ facts: ["they have many friends"] })
      : everyLineIsAFact(prompt);
  const first = await open(store);
  for (const name of names("old").slice(0, 4)) await first.memory.add(say(fact(name)));
  await first.memory.flush();
  const left = await open(store, { llm: new OfflineLLM(condense), maxFacts: 3 });
  const right = await open(store);
  await right.memory.add(say(fact("new")));
  await right.memory.add(say("so they say, and they should know, after all"));
  await left.memory.add(say("left has something to say as well, it seems"));
  await left.memory.add(say("and says it at some length, as one does"));
  for (const { memory } of [right, left]) await memory.flush();
  const facts = (await open(store)).facts().join("; ");
  expect(facts).toContain("they have many friends");
  expect(facts).toContain("new");
  expect(facts).not.toContain("old0");
});

test("what was drawn from a conversation does not outlive its erasure in another tab", async () => {
  const store = memoryChatStore();
  const { memory, llm } = await open(store);
  let answer = () => {};
  llm.ready = new Promise<void>((resolve) => {
    answer = resolve;
  });
  for (const name of names("f").slice(0, 3)) void memory.add(say(fact(name)));
  await store.flush();
  await store.deleteMessages(key);
  answer();
  await memory.flush();
  expect(await store.getSession(key)).toBeUndefined();
});

describe("a model that fails", () => {
  const failing = () => {
    const state = { isDown: true };
    const llm = new OfflineLLM((prompt) => {
      if (state.isDown) throw new Error("overloaded");
      return everyLineIsAFact(prompt);
    });
    return { state, llm };
  };

  test("takes nothing from the conversation, and learns it when it is back", async () => {
    const store = memoryChatStore();
    const { state, llm } = failing();
    const { memory, facts } = await open(store, { llm });
    for (const name of names("f")) await memory.add(say(fact(name)));
    expect(facts()).toEqual([]);
    expect(await known(store)).toMatch(/f0.*f7/); // by another model
    state.isDown = false;
    await memory.add(say("hello"));
    await memory.flush();
    expect(facts().join()).toMatch(/f0.*f7/);
  });

  test("fails in one process, and the next one learns what it could not", async () => {
    const store = memoryChatStore();
    const { memory } = await open(store, { llm: failing().llm });
    for (const name of names("f")) await memory.add(say(fact(name)));
    await memory.flush();
    const next = await open(store);
    await next.memory.add(say("hello"));
    await next.memory.flush();
    expect(next.facts().join()).toMatch(/f0.*f7/);
  });

  test("that learns half and then fails learns nothing twice", async () => {
    const store = memoryChatStore();
    let isDown = true;
    const llm = new OfflineLLM((prompt) => {
      if (isDown && String(prompt[0]?.content).includes("condensing")) return "no";
      return everyLineIsAFact(prompt);
    });
    const { memory, facts } = await open(store, { llm, maxFacts: 1 });
    for (const name of names("f").slice(0, 4)) await memory.add(say(fact(name)));
    isDown = false;
    expect(facts().length).toBeLessThanOrEqual(1);
  });

  test("that hangs holds up neither flush() nor a refresh beyond a bound, and says so", async () => {
    const store = memoryChatStore();
    const warnings: string[] = [];
    const { memory, llm } = await open(store, { onWarning: (one) => warnings.push(one) });
    llm.ready = new Promise(() => {});
    for (const name of names("f")) void memory.add(say(fact(name)));
    await memory.flush({ longTerm: false });
    expect(warnings).toEqual([]);
    await memory.flush({ timeout: 5 });
    expect(warnings).toMatchObject([expect.stringContaining("within 5 ms")]);
    await memory.refresh();
    expect(await store.getMessages(key)).toHaveLength(8);
    expect(await known(store)).toMatch(/f0.*f7/);
  });
});

test("a turn that overflows the limit still gives the model what the user has just said", async () => {
  const store = memoryChatStore();
  const { memory } = await open(store);
  for (const length of [1, 3, 30, 300]) {
    await memory.add(say("blah ".repeat(length)));
    const newest = `what about number ${length}? ${"and more ".repeat(length)}`;
    await memory.add(say(newest));
    const context = await memory.getLLM(modelOf(1_000_000));
    expect(context.at(-1)?.content).toBe(newest);
  }
});

test("a long history is learnt in portions, each stored, and no turn waits for more than one", async () => {
  const store = new FragileStore();
  const history = Array.from({ length: 5_000 }, (_, index) => say(fact(`f${index}`)));
  for (let from = 0; from < history.length; from += 1_000) {
    await store.addMessages(key, history.slice(from, from + 1_000));
  }
  const prompts: number[] = [];
  const llm = new OfflineLLM((prompt) => {
    prompts.push(String(prompt[0]?.content).length);
    return JSON.stringify({ facts: [`fact ${prompts.length}`] });
  });
  const { memory, facts } = await open(store, { llm });
  await memory.add(say("hello"));
  const portions = prompts.length;
  expect(portions).toBeLessThan(3);
  await memory.flush();
  expect(prompts.length).toBeGreaterThan(10);
  expect(Math.max(...prompts)).toBeLessThan(20_000);
  expect(facts()).toHaveLength(prompts.length);
  const { session } = await store.readSession(key, { last: 0 });
  const state = session?.state["llamaindex"] as { cursor: string } | undefined;
  expect(await store.getMessages(key, { after: state?.cursor })).toMatchObject([
    { content: "hello" },
  ]);
});
