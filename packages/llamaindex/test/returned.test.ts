/** What memory gave can be given back, in the format in which it was given. */
import { memoryChatStore, sessionKey } from "@chatstore/core";
import { createMemory, TextNode } from "llamaindex";
import { describe, expect, test } from "vitest";
import { type PersistentMemoryOptions, persistentMemory } from "../src/index.ts";

const key = sessionKey({ user: "alice" });

const open = (
  store: PersistentMemoryOptions["store"],
  options: Partial<PersistentMemoryOptions> = {},
) => persistentMemory(createMemory, { store, key, ...options });

const toolCall = [{ id: "c1", name: "weather", input: { city: "Rome" } }];
const toolResult = { id: "c1", result: "sunny", isError: false };

describe.each([
  { what: "a text", message: { role: "user", content: "hello" } },
  { what: "an answer", message: { role: "assistant", content: "hello" } },
  { what: "a part", message: { role: "user", content: [{ type: "text", text: "hello" }] } },
  {
    what: "several parts",
    message: { role: "user", content: ["a", "b"].map((text) => ({ type: "text", text })) },
  },
  {
    what: "an image's address",
    message: {
      role: "user",
      content: [{ type: "image_url", image_url: { url: "https://example.org/a.png" } }],
    },
  },
  {
    what: "an image",
    message: { role: "user", content: [{ type: "image", data: "AAAA", mimeType: "image/png" }] },
  },
  { what: "a call", message: { role: "assistant", content: "", options: { toolCall } } },
  { what: "a result", message: { role: "user", content: "sunny", options: { toolResult } } },
  { what: "a memory", message: { role: "memory", content: "they like tea" } },
  { what: "a developer's", message: { role: "developer", content: "be brief" } },
  { what: "no parts", message: { role: "user", content: [] } },
  {
    what: "annotations",
    message: { role: "user", content: "hello", annotations: [{ a: undefined, b: new Date(0) }] },
  },
])("$what, as a UI message", ({ message }) => {
  test.each([
    { how: "as it is", carry: (one: object) => one },
    { how: "through JSON", carry: (one: object) => JSON.parse(JSON.stringify(one)) as object },
    {
      how: "without its time",
      carry: ({ createdAt: _, ...one }: { createdAt?: unknown }) => one,
    },
  ])("is the same message ($how), before a restart and after", async ({ carry }) => {
    const store = memoryChatStore();
    const first = await open(store);
    await first.add({ id: "m1", ...message } as never);
    for (const memory of [first, await open(store)]) {
      const given = await memory.get({ type: "vercel" });
      for (const one of given) await memory.add(carry(one));
      await memory.flush();
      expect(await memory.get()).toHaveLength(1);
      expect(await store.getMessages(key)).toMatchObject([message]);
    }
  });
});

test("under the id of a message, other content is refused in every format", async () => {
  const store = memoryChatStore();
  const memory = await open(store, { onError: () => {} });
  await memory.add({ id: "m1", role: "user", content: "hello" } as never);
  const other = { id: "m1", role: "user", content: "bye" };
  const inParts = { ...other, parts: [{ type: "text", text: "bye" }] };
  for (const one of [other, inParts]) {
    await expect(memory.add(one as never)).rejects.toMatchObject({ code: "DUPLICATE_MESSAGE" });
  }
  const annotated = { ...other, content: "hello", annotations: ["new"] };
  await expect(memory.add(annotated as never)).rejects.toMatchObject({ code: "DUPLICATE_MESSAGE" });
});

test("a UI message of AI SDK 5 and later is refused by its version", async () => {
  const store = memoryChatStore();
  const memory = await open(store);
  const message = { id: "m1", role: "user", parts: [{ type: "text", text: "hello" }] };
  await expect(memory.add(message as never)).rejects.toMatchObject({
    code: "INVALID_MESSAGE",
    message: expect.stringContaining("AI SDK 5"),
  });
  expect(await store.getMessages(key)).toEqual([]);
});

describe("annotations that are objects of classes", () => {
  class Node {
    readonly text = "a passage";
    readonly #secret = 1;
    toJSON() {
      return { text: this.text, type: "TEXT", at: new Date(this.#secret) };
    }
  }
  const circular: Record<string, unknown> = { name: "circle" };
  circular["itself"] = circular;

  test("do not cost the reply, are the same before and after a restart, and are told of once", async () => {
    const store = memoryChatStore();
    const warnings: string[] = [];
    const memory = await open(store, { onWarning: (one) => warnings.push(one) });
    for (const content of ["one", "two"]) {
      const retrieved = { node: new TextNode({ text: "a passage" }), score: 0.5 };
      const annotations = [{ node: new Node(), score: 0.5 }, circular, () => {}, undefined];
      const message = { role: "assistant", content, annotations: [...annotations, retrieved] };
      await memory.add(message as never);
    }
    expect(warnings).toHaveLength(1);
    const shown = await memory.get({ type: "vercel" });
    expect(shown[0]?.annotations).toEqual([
      { node: { text: "a passage", type: "TEXT", at: new Date(1) }, score: 0.5 },
      { name: "circle" },
      null,
      undefined,
      { node: expect.objectContaining({ text: "a passage" }), score: 0.5 },
    ]);
    expect(await (await open(store)).get({ type: "vercel" })).toEqual(shown);
  });
});
