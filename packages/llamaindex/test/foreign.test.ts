/** Conversations that another framework began, without a bridge, and that a LlamaIndex engine goes on with. */
import { type Key, MemoryBackend, memoryChatStore, sessionKey } from "@chatstore/core";
import { createMemory, factExtractionBlock, SimpleChatEngine } from "llamaindex";
import { expect, test } from "vitest";
import { type PersistentMemoryOptions, persistentMemory } from "../src/index.ts";
import { factLLM, OfflineLLM } from "./offline-llm.ts";

const key = sessionKey({ user: "alice" });

/** As the store writes them: what it does not know itself are further fields. */
async function storeOf(name: string, messages: readonly Record<string, unknown>[]) {
  const records = messages.map(({ id, role, content, ...extra }, index) => ({
    id: String(id ?? `s${index}`),
    digest: `digest ${index}`,
    data: JSON.stringify({ v: 1, role, content, extra }),
    createdAt: 1_000 + index,
  }));
  const target = { id: key, tenant: "", user: "alice", conversation: "" } as unknown as Key;
  const { signal } = new AbortController();
  await new MemoryBackend(name).append(target, records, undefined, { next: "v1" }, signal);
  return memoryChatStore({ name });
}

const openAi = [
  { role: "user", content: "How is Rome?" },
  {
    role: "assistant",
    content: null,
    tool_calls: [
      { id: "c1", type: "function", function: { name: "weather", arguments: '{"city":"Rome"}' } },
    ],
  },
  { role: "tool", tool_call_id: "c1", content: "sunny" },
  { role: "assistant", content: "It is sunny in Rome." },
];
const uiMessages = [
  { id: "m1", role: "user", parts: [{ type: "text", text: "How is Rome?" }] },
  {
    id: "m2",
    role: "assistant",
    parts: [
      { type: "step-start" },
      {
        type: "tool-weather",
        toolCallId: "c1",
        state: "output-available",
        input: { city: "Rome" },
        output: "sunny",
      },
      { type: "text", text: "It is sunny in Rome." },
    ],
  },
];
const responses = [
  { role: "user", content: "How is Rome?" },
  { type: "reasoning", summary: [] },
  { type: "function_call", call_id: "c1", name: "weather", arguments: '{"city":"Rome"}' },
  { type: "function_call_output", call_id: "c1", output: "sunny" },
  {
    type: "message",
    role: "assistant",
    content: [{ type: "output_text", text: "It is sunny in Rome." }],
  },
];

function open(
  store: PersistentMemoryOptions["store"],
  options: Partial<PersistentMemoryOptions> & { memoryBlocks?: never[]; tokenLimit?: number } = {},
) {
  return persistentMemory(createMemory, { store, key, ...options });
}

test.each([
  { of: "OpenAI's chat completions", messages: openAi, leftOut: 0 },
  { of: "OpenAI's responses", messages: responses, leftOut: 1 },
  { of: "the AI SDK's UI messages", messages: uiMessages, leftOut: 0 },
])(
  "$of: a model is shown what was said, called and answered",
  async ({ of, messages, leftOut }) => {
    const store = await storeOf(of, messages);
    const warnings: string[] = [];
    const memory = await open(store, { onWarning: (one) => warnings.push(one) });
    const llm = new OfflineLLM(() => "As I said.");
    await new SimpleChatEngine({ memory, llm }).chat({ message: "And now?" });
    await memory.flush();
    expect(llm.requests[0]).toMatchObject([
      { role: "user", content: "How is Rome?" },
      { role: "assistant", options: { toolCall: [{ id: "c1", name: "weather" }] } },
      { role: "user", options: { toolResult: { id: "c1", result: "sunny", isError: false } } },
      { role: "assistant", content: "It is sunny in Rome." },
      { role: "user", content: "And now?" },
    ]);
    // Each format of the memory can say it, and what was stored is as it was.
    expect(await memory.get({ type: "vercel" })).toHaveLength(6);
    expect((await store.getMessages(key)).slice(0, -2)).toMatchObject(messages);
    expect(warnings.filter((one) => one.includes("left out"))).toHaveLength(leftOut);

    const restarted = await open(store, { onWarning: (one) => warnings.push(one) });
    expect(await restarted.get()).toEqual(await memory.get());
    expect(warnings.filter((one) => one.includes("left out"))).toHaveLength(leftOut);
  },
);

test("what nobody can show is left out of memory, said once, and stays stored", async () => {
  const unknown = [
    { role: "narrator", content: "Once upon a time" },
    { type: "compaction", encrypted_content: "x" },
    { role: "assistant", content: null },
    { role: "assistant", content: [{ type: "thinking", thinking: "hm", signature: "s" }] },
    { role: "user", content: { of: "no known kind" } },
  ];
  const store = await storeOf("unknown", [...unknown, ...openAi]);
  const warnings: string[] = [];
  const onWarning = (one: string) => warnings.push(one);
  for (const stale of ["keep", "refresh"] as const) {
    const memory = await open(store, { onWarning, stale });
    expect(await memory.getLLM()).toHaveLength(4);
    expect(await memory.get()).toHaveLength(4);
  }
  expect(warnings).toMatchObject([expect.stringContaining("5 messages")]);
  expect(await store.getMessages(key)).toHaveLength(9);
});

test("long-term memory takes them over where it is, and goes on there after a restart", async () => {
  const store = await storeOf("facts", [...responses, ...uiMessages]);
  const facts = () => [
    factExtractionBlock({ id: "facts", llm: factLLM(), maxFacts: 100, priority: 1 }),
  ];
  const limits = { tokenLimit: 20, shortTermTokenLimitRatio: 0.5, onWarning: () => {} };
  const memory = await persistentMemory(createMemory, {
    store,
    key,
    memoryBlocks: facts(),
    ...limits,
  });
  await memory.add({ role: "user", content: "hello" });
  await memory.flush();
  const llm = factLLM();
  const memoryBlocks = [factExtractionBlock({ id: "facts", llm, maxFacts: 100, priority: 1 })];
  const restarted = await persistentMemory(createMemory, { store, key, memoryBlocks, ...limits });
  await restarted.add({ role: "assistant", content: "hello to you" });
  await restarted.flush();
  expect(llm.requests).toEqual([]);
  expect(memoryBlocks[0]).toMatchObject({
    facts: expect.arrayContaining(["How is Rome?", "sunny", "It is sunny in Rome."]),
  });
});

test.each([
  { role: "tool", tool_call_id: "c1", content: "sunny" },
  { role: "assistant", content: [{ type: "tool_use", id: "c1", name: "f", input: {} }] },
])("given to the memory itself, they are translated: %o", async (message) => {
  const memory = await open(memoryChatStore());
  await memory.add(message as never);
  expect(["user", "assistant"]).toContain((await memory.get())[0]?.role);
  await memory.flush();
});

test.each([
  { role: "robot", content: "hello" },
  { role: "assistant", content: null },
  {
    role: "user",
    content: [
      { type: "tool_result", tool_use_id: "c1", content: "a" },
      { type: "text", text: "b" },
    ],
  },
])(
  "given to the memory itself, what LlamaIndex has no one message for is refused: %o",
  async (message) => {
    const store = memoryChatStore();
    const memory = await open(store);
    await expect(memory.add(message as never)).rejects.toMatchObject({ code: "INVALID_MESSAGE" });
    expect(await memory.get()).toEqual([]);
  },
);
