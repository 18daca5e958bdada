/**
 * LlamaIndex's own `Memory` is the oracle: whatever an application calls, ours gives the same results. Where it gives
 * another on purpose, a test says why, and the conversations at random avoid it.
 */

import { isDeepStrictEqual } from "node:util";
import { memoryChatStore, sessionKey } from "@chatstore/core";
import { modelContext } from "@chatstore/core/bridge";
import { Settings } from "@llamaindex/core/global";
import fc from "fast-check";
import {
  type ChatMessage,
  createMemory,
  factExtractionBlock,
  type LLM,
  loadMemory,
  staticBlock,
} from "llamaindex";
import { expect, onTestFinished, test } from "vitest";
import { forAll } from "../../core/src/conformance/arbitraries.ts";
import { persistentMemory } from "../src/index.ts";
import {
  anySetting,
  customAdapters,
  input,
  isJson,
  type MemoryOptions,
  memoryMessage,
  message,
  modelOf,
  optionsOf,
  type Setting,
  toolTurn,
  World,
  withOwnIds,
} from "./conversations.ts";
import { everyLineIsAFact, factLLM, OfflineLLM } from "./offline-llm.ts";

const key = sessionKey({ user: "alice" });
const contents = (messages: readonly ChatMessage[]) => messages.map(({ content }) => content);

type Memory = ReturnType<typeof createMemory>;
/** One call of a public method. */
type Call = {
  readonly name: string;
  readonly input?: object;
  readonly run: (memory: Memory) => unknown;
};

const add = (one: object): Call => ({
  name: "add",
  input: one,
  run: (memory) => memory.add(one),
});
const transientMessages = fc.option(fc.array(message, { maxLength: 2 }), { nil: undefined });
const get: fc.Arbitrary<Call> = fc
  .record(
    { type: fc.constantFrom("llamaindex", "vercel", "note", "raw", "nothing"), transientMessages },
    { requiredKeys: [] },
  )
  .map((options) => ({ name: "get", run: (memory) => memory.get(options as object) }));
/** What ours shows the model: the same as LlamaIndex's, as every provider accepts it, and what the user said last at all events. */
async function contextOf(memory: Memory, llm?: LLM, transient: ChatMessage[] = []) {
  const context = await memory.getLLM(llm, transient);
  if ("flush" in memory) return context; // ours
  const behind = context.splice(context.length - transient.length);
  const [newest] = (await memory.get()).filter(({ role }) => role === "user").slice(-1);
  const isShown = newest === undefined || context.some((one) => isDeepStrictEqual(one, newest));
  return [...modelContext(isShown ? context : [...context, newest]), ...behind];
}
const getLLM = (windows: fc.Arbitrary<number | undefined>): fc.Arbitrary<Call> =>
  fc.tuple(windows, transientMessages).map(([window, transient]) => ({
    name: "getLLM",
    run: (memory) =>
      contextOf(memory, window === undefined ? undefined : modelOf(window), transient),
  }));
const getAs = (type: string): Call => ({
  name: "get",
  run: (memory) => memory.get({ type: type as never }),
});
const getForModel: Call = { name: "getLLM", run: (memory) => contextOf(memory) };
const getAllForModel: Call = {
  name: "getLLM",
  run: (memory) => contextOf(memory, modelOf(1_000_000)),
};
const clear: Call = { name: "clear", run: (memory) => memory.clear() };
const others = fc.constantFrom<Call>(
  { name: "add", run: (memory) => memory.add({ text: "neither role nor content" }) },
  { name: "manageMemoryBlocks", run: (memory) => memory.manageMemoryBlocks() },
  { name: "snapshot", run: (memory) => JSON.parse(memory.snapshot()) },
  {
    name: "loadMemory",
    run: async (memory) => {
      const loaded = loadMemory(memory.snapshot(), { customAdapters });
      await loaded.add({ role: "user", content: "more" });
      return [await loaded.get(), await loaded.getLLM(), await memory.get()];
    },
  },
);

/** In a cut, LlamaIndex loses what ours keeps: instructions, and the question of an answer. */
const saidByUser = <Message extends ChatMessage>(one: Message) => ({
  ...one,
  role: "user" as const,
  content: typeof one.content === "string" ? `I ${one.content}` : "I",
});
const userInput = fc.oneof(message.map(saidByUser), memoryMessage.map(saidByUser));

/** Of a format without times LlamaIndex makes messages without a time. */
const timed = (one: object) => ("note" in one ? { ...one, createdAt: new Date(0) } : one);

function callsFor({ roomy, hasFacts }: Setting): fc.Arbitrary<Call[]> {
  const window = fc.option(fc.integer({ min: 10, max: 200 }), { nil: undefined });
  const call = fc.oneof(
    { weight: 12, arbitrary: (roomy ? input : userInput).map((one) => [add(timed(one))]) },
    // Cut off from its call, a result is not shown.
    { weight: roomy ? 4 : 0, arbitrary: toolTurn.map((turn) => turn.map(add)) },
    { weight: 3, arbitrary: get.map((one) => [one]) },
    { weight: 4, arbitrary: getLLM(roomy ? fc.constant(undefined) : window).map((one) => [one]) },
    // LlamaIndex's facts outlive it.
    { weight: hasFacts ? 0 : 1, arbitrary: fc.constant([clear]) },
    { weight: 3, arbitrary: others.map((one) => [one]) },
  );
  return fc.array(call, { maxLength: 30, size: "max" }).map((turns) => {
    const calls = turns.flat();
    const inputs = withOwnIds(calls.map(({ input }) => input ?? {}));
    const distinct = calls.map((one, index) => (one.input ? add(inputs[index] as object) : one));
    return [...distinct, getAs("raw"), getAs("vercel"), getForModel, getAllForModel];
  });
}

/** What each call gives or throws, and what it makes the memory warn of. */
async function outcomes(memory: Memory, calls: readonly Call[], warned: unknown[]) {
  const results: unknown[] = [];
  for (const { name, run } of calls) {
    const result = await Promise.resolve(memory)
      .then(run)
      .catch((error: Error) => ({ thrown: error.message }));
    results.push({ name, result, warned: warned.splice(0).map(String) });
  }
  return withoutChance(results);
}

/** LlamaIndex's own processes the message that a model is to answer, too, and shows it no more. */
function keepTurn(memory: Memory): void {
  const all = memory as unknown as {
    processMessagesIntoMemoryBlocks(some: unknown): Promise<void>;
  };
  const process = all.processMessagesIntoMemoryBlocks;
  const isToolResult = ({ options }: ChatMessage) => "toolResult" in (options ?? {});
  Object.assign(memory, {
    processMessagesIntoMemoryBlocks: (some: readonly ChatMessage[]) => {
      const turn = some.findLastIndex((one) => one.role === "user" && !isToolResult(one));
      kept = turn === -1 ? 0 : some.length - turn;
      const ended = some.slice(0, some.length - kept);
      return ended.length === 0 ? Promise.resolve() : process.call(memory, ended);
    },
    updateMemoryCursor: (processed: number) => {
      (memory as unknown as { memoryCursor: number }).memoryCursor += processed - kept;
    },
  });
  let kept = 0;
}

function unawaited(call: Call): Call {
  return call.input ? { ...call, run: (memory) => void call.run(memory) } : call;
}

const began = Date.now();
/** Ids and times that a memory made by itself differ each time. */
function withoutChance(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutChance);
  if (value instanceof Date) return isNow(value) ? "now" : value;
  if (typeof value === "string") {
    if (/^\d{4}-\d\d-\d\dT/.test(value) && isNow(new Date(value))) return "now";
    return value.replace(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, "random");
  }
  if (typeof value !== "object" || value === null) return value;
  if (Object.getPrototypeOf(value) !== Object.prototype) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, member]) => [name, withoutChance(member)]),
  );
}
const isNow = (time: Date) => time.getTime() >= began && time.getTime() <= Date.now();

test("every public method gives what LlamaIndex's own Memory gives", async () => {
  // What was said before: messages without ids, or with ids and times.
  const historyFor = ({ roomy }: Setting) =>
    fc.oneof<fc.Arbitrary<ChatMessage[]>[]>(
      fc.array(roomy ? message : message.map(saidByUser), { maxLength: 5 }),
      fc
        .array(roomy ? memoryMessage : memoryMessage.map(saidByUser), { maxLength: 5 })
        .map((said) =>
          said.map((one, index) => ({ createdAt: new Date(0), ...one, id: `said ${index}` })),
        ),
    );
  const stale = fc.constantFrom("keep" as const, "refuse" as const, "refresh" as const);
  const conversation = anySetting.chain((setting) =>
    fc.record({
      setting: fc.constant(setting),
      stale,
      history: historyFor(setting),
      calls: callsFor(setting),
    }),
  );
  await forAll(conversation, 120, async ({ setting, stale, history, calls }) => {
    // A block that fails is given the same again.
    fc.pre(!setting.blocks.some(({ kind }) => kind === "vectors") || isJson([history, calls]));
    const warned: unknown[] = [];
    const logger = { log() {}, error() {}, warn: (...args: unknown[]) => warned.push(args) };
    const theirs = createMemory([...history], { ...optionsOf(setting, new World(), true), logger });
    keepTurn(theirs);
    const expected = await outcomes(theirs, calls, warned);

    const store = memoryChatStore();
    if (history.length > 0) await store.addMessages(key, history);
    const options = { ...optionsOf(setting, new World(), true), logger };
    const ours = await persistentMemory(createMemory, { store, key, stale, ...options });
    // Agents await no message; LlamaIndex's blocks then learn the same several times over, ours do not.
    const ourCalls = setting.roomy ? calls.map(unawaited) : calls;
    expect(await outcomes(ours, ourCalls, warned)).toEqual(expected);
    await ours.flush();
  });
});

const say = (content: string, id?: string) => ({ id, role: "user", content });
const count = (pattern: RegExp, context: ChatMessage[]) =>
  JSON.stringify(context).match(pattern)?.length ?? 0;
const learning = () => ({
  tokenLimit: 1,
  memoryBlocks: [factExtractionBlock({ llm: factLLM(), maxFacts: 100, priority: 1 })],
});

test.each<{
  because: string;
  options?: () => MemoryOptions;
  act: (memory: Memory) => unknown;
  theirs: unknown;
  ours: unknown;
}>([
  {
    because: "model APIs refuse a tool's result without its call",
    act: async (memory) => {
      const toolResult = { id: "c", result: "sunny", isError: false };
      await memory.add({ role: "user", content: "sunny", options: { toolResult } });
      return (await memory.getLLM()).length;
    },
    theirs: 1,
    ours: 0,
  },
  {
    because: "a message that a client sends again was said once",
    act: async (memory) => {
      await memory.add(say("hello", "m1"));
      await memory.add(say("hello", "m1"));
      return (await memory.get()).length;
    },
    theirs: 2,
    ours: 1,
  },
  {
    because: "a store can give one message back under an id",
    act: async (memory) => {
      await memory.add(say("hello", "m1"));
      return memory.add(say("something else", "m1")).catch(({ name }: Error) => name);
    },
    theirs: undefined,
    ours: "DuplicateMessageError",
  },
  {
    because: "what is neither text nor parts cannot be stored",
    act: (memory) => memory.add({ role: "user", content: null }).catch(({ name }: Error) => name),
    theirs: undefined,
    ours: "InvalidMessageError",
  },
  {
    because: "a role that is none of LlamaIndex's is a slip",
    act: (memory) =>
      memory.add({ ...say("hello"), role: "robot" }).catch(({ name }: Error) => name),
    theirs: undefined,
    ours: "InvalidMessageError",
  },
  {
    because: "a message has the same id and time after a restart",
    act: async (memory) => {
      const parts = [{ type: "text", text: "hello" }];
      await memory.add({ role: "user", content: "hello", parts });
      await memory.add({
        id: "m1",
        role: "user",
        content: "hello",
        parts,
        createdAt: "2026-01-01",
      });
      const messages = await memory.get({ type: "vercel" });
      return messages.map(({ id, createdAt }) => [typeof id, (createdAt as object)?.constructor]);
    },
    theirs: [
      ["undefined", undefined],
      ["string", String],
    ],
    ours: [
      ["string", Date],
      ["string", Date],
    ],
  },
  {
    because: "who clears a memory wants to be forgotten",
    options: learning,
    act: async (memory) => {
      await memory.add(say("My name is Alice."));
      await memory.clear();
      return count(/Alice/g, await memory.getLLM(modelOf(10_000)));
    },
    theirs: 1,
    ours: 0,
  },
  {
    because: "nobody awaits the messages of an agent, and each is to be learnt once",
    options: learning,
    act: async (memory) => {
      const texts = ["Alice", "Bob", "Carol"].map((name) => `My friend's name is ${name}.`);
      await Promise.all(texts.map((text) => memory.add(say(text))));
      return count(/Alice/g, await memory.getLLM(modelOf(10_000)));
    },
    theirs: 3,
    ours: 1,
  },
  {
    because: "what a block failed to take is not lost",
    options: () => {
      let answers = 0;
      const answer = (prompt: ChatMessage[]) => (answers++ === 0 ? "?" : everyLineIsAFact(prompt));
      const llm = new OfflineLLM(answer);
      return {
        ...learning(),
        memoryBlocks: [factExtractionBlock({ llm, maxFacts: 100, priority: 1 })],
        logger: { log() {}, error() {}, warn() {} },
      };
    },
    act: async (memory) => {
      for (const name of ["Alice", "Bob", "Carol"]) await memory.add(say(`This is ${name}.`));
      return count(/Alice/g, await memory.getLLM(modelOf(10_000)));
    },
    theirs: 0,
    ours: 1,
  },
  {
    because: "a fixed block takes nothing over, so nothing may be hidden for it",
    options: () => ({ tokenLimit: 20, memoryBlocks: [staticBlock({ content: "Be kind" })] }),
    act: async (memory) => {
      for (let index = 0; index < 4; index++) await memory.add(say(`message number ${index}`));
      return contents(await memory.getLLM());
    },
    theirs: ["Be kind"],
    ours: ["Be kind", "message number 1", "message number 2", "message number 3"],
  },
])("gives another result on purpose: $because", async ({ options, act, theirs, ours }) => {
  expect(await act(createMemory(options?.() ?? {}))).toEqual(theirs);
  const store = memoryChatStore();
  expect(await act(await persistentMemory(createMemory, { store, key, ...options?.() }))).toEqual(
    ours,
  );
});

test.each(["ceil", "floor", "round"] as const)(
  "an application's own tokenizer is obeyed, whatever its tokens reach over (%s)",
  async (rounded) => {
    const { tokenizer } = Settings;
    onTestFinished(() => {
      Settings.tokenizer = tokenizer;
    });
    Settings.tokenizer = {
      encode: (text) => new Uint32Array(Math[rounded](text.length / 4)),
      decode: () => "",
    };
    for (let size = 1; size < 20; size++) {
      const theirs = createMemory();
      const ours = await persistentMemory(createMemory, { store: memoryChatStore(), key });
      for (let index = 0; index < 60; index++) {
        await theirs.add(say("x".repeat(size)));
        void ours.add(say("x".repeat(size)));
      }
      const model = modelOf(size * 10);
      expect(await ours.getLLM(model), `texts of ${size}`).toEqual(await theirs.getLLM(model));
    }
  },
);

test("the model of the settings counts as it did when the memory was made", async () => {
  const { ours, theirs } = await Settings.withLLM(modelOf(40), async () => ({
    ours: await persistentMemory(createMemory, { store: memoryChatStore(), key }),
    theirs: createMemory(),
  }));
  for (let index = 0; index < 20; index++) {
    await theirs.add(say(`message ${index}`));
    void ours.add(say(`message ${index}`));
  }
  expect(await ours.getLLM()).toEqual(await theirs.getLLM());
});
