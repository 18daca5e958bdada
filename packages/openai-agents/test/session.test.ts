import { createChatStore, MemoryBackend, memoryChatStore, sessionKey } from "@chatstore/core";
import { type AgentInputItem, MemorySession } from "@openai/agents";
import { beforeEach, describe, expect, test } from "vitest";
import { openAIAgentsSession } from "../src/index.ts";

/** One of every kind, as models and the SDK make them. */
const items: AgentInputItem[] = [
  { type: "message", role: "system", content: "Be kind." },
  { role: "user", content: "Hello" },
  {
    type: "message",
    role: "user",
    content: [
      { type: "input_text", text: "Look" },
      { type: "input_image", image: "data:image/png;base64,AAAA", detail: "low" },
      { type: "input_image", image: { id: "file_1" } },
      { type: "input_file", file: "data:application/pdf;base64,BBBB", filename: "a.pdf" },
      { type: "audio", audio: "CCCC", format: "mp3" },
    ],
  },
  {
    type: "reasoning",
    id: "rs_1",
    content: [{ type: "input_text", text: "Hm." }],
    providerData: { encrypted_content: "x" },
  },
  {
    type: "function_call",
    id: "fc_1",
    callId: "call_1",
    name: "get_weather",
    arguments: '{"city":"Bonn"}',
    status: "completed",
  },
  {
    type: "function_call_result",
    callId: "call_1",
    name: "get_weather",
    status: "completed",
    output: [
      { type: "input_text", text: "rain" },
      { type: "input_text", text: "wind" },
    ],
  },
  {
    type: "function_call_result",
    callId: "call_2",
    name: "photo",
    status: "completed",
    output: { type: "image", image: { data: new Uint8Array([1, 2, 255]), mediaType: "image/png" } },
  },
  {
    type: "hosted_tool_call",
    id: "ws_1",
    name: "web_search_call",
    status: "completed",
    arguments: '{"query":"x"}',
    output: "found",
  },
  {
    type: "shell_call",
    callId: "call_3",
    status: "completed",
    action: { commands: ["ls"] },
  },
  {
    type: "shell_call_output",
    callId: "call_3",
    output: [{ stdout: "a", stderr: "", outcome: { type: "exit", exitCode: 0 } }],
  },
  {
    type: "message",
    id: "msg_1",
    role: "assistant",
    status: "completed",
    content: [
      { type: "output_text", text: "It rains.", providerData: { annotations: [] } },
      { type: "refusal", refusal: "No more." },
    ],
  },
  { type: "compaction", id: "cmp_1", encrypted_content: "x" },
  { type: "unknown", id: "u_1", providerData: { type: "new_thing", "": "\u0000", n: 2 ** 53 } },
];
const said = (content: string): AgentInputItem => ({ role: "user", content });

let store = memoryChatStore();
const key = sessionKey({ user: "alice" });
const open = () => openAIAgentsSession({ store, key });
beforeEach(() => {
  store = memoryChatStore();
});

describe("a session", () => {
  test("gives items back exactly as they were, to another session object", async () => {
    await open().addItems(items);
    expect(await open().getItems()).toEqual(items);
    const [photo] = (await open().getItems()).filter(
      (item) => item.type === "function_call_result",
    );
    expect(photo).toBeDefined();
    expect(await open().getSessionId()).toBe(key);
  });

  test.each([-1, 0, 1, 3, items.length, 100])("reads the newest %i", async (limit) => {
    await open().addItems(items);
    const reference = new MemorySession({ initialItems: items });
    expect(await open().getItems(limit)).toEqual(await reference.getItems(limit));
  });

  test("gives copies", async () => {
    const given = said("Hello");
    const session = open();
    await session.addItems([given]);
    (given as { content: string }).content = "changed";
    ((await session.getItems())[0] as { content: string }).content = "changed, too";
    expect(await session.getItems()).toEqual([said("Hello")]);
  });

  test("pops the newest item, also beside another request", async () => {
    await open().addItems(items);
    expect(await open().popItem()).toEqual(items.at(-1));
    const popped = await Promise.all([open().popItem(), open().popItem()]);
    expect(popped).toEqual(expect.arrayContaining([items.at(-2), items.at(-3)]));
    expect(await open().getItems()).toEqual(items.slice(0, -3));
    await open().clearSession();
    expect(await open().popItem()).toBeUndefined();
    expect(await open().getItems()).toEqual([]);
  });

  test("takes one round trip to read and one to add", async () => {
    const backend = new MemoryBackend();
    let trips = 0;
    const counting = new Proxy(backend, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name, target);
        if (typeof value !== "function") return value;
        if (name !== "open" && name !== "close") trips++;
        return value.bind(target);
      },
    });
    store = createChatStore("memory", {}, {}, () => counting);
    const session = open();
    await session.getItems();
    await session.addItems([said("Hello")]);
    await session.addItems(items);
    expect(trips).toBe(3);
  });

  test("of nothing writes nothing", async () => {
    await open().addItems([]);
    expect(await store.getSession(key)).toBeUndefined();
  });

  test("says what is wrong with its options", () => {
    for (const options of [undefined, {}, { store: "chat.db", key }, { store: null, key }]) {
      expect(() => openAIAgentsSession(options as never)).toThrow(/Which store/);
    }
  });

  test("refuses a key that everybody would share", async () => {
    await expect(openAIAgentsSession({ store, key: "chat_history" }).getItems()).rejects.toThrow(
      expect.objectContaining({ code: "INVALID_SESSION_KEY" }),
    );
  });

  test("refuses items of another major version of the SDK", async () => {
    await store.addMessages(key, [
      { role: "user", content: "x", native: { format: "openai-agents/1", value: {} } },
    ]);
    await expect(open().getItems()).rejects.toThrow(
      expect.objectContaining({ code: "UNSUPPORTED_FORMAT" }),
    );
  });
});

describe("what other readers see", () => {
  test("role, text, calls and answers of every item", async () => {
    await open().addItems(items);
    const seen = (await store.getMessages(key)).map(({ role, content, options }) => [
      role,
      content,
      options,
    ]);
    expect(seen).toMatchInlineSnapshot(`
      [
        [
          "system",
          "Be kind.",
          undefined,
        ],
        [
          "user",
          "Hello",
          undefined,
        ],
        [
          "user",
          [
            {
              "text": "Look",
              "type": "text",
            },
            {
              "image_url": {
                "url": "data:image/png;base64,AAAA",
              },
              "type": "image_url",
            },
            {
              "text": "[image: {"image":{"id":"file_1"}}]",
              "type": "text",
            },
            {
              "data": "BBBB",
              "mimeType": "application/pdf",
              "type": "file",
            },
            {
              "data": "CCCC",
              "mimeType": "audio/mp3",
              "type": "audio",
            },
          ],
          undefined,
        ],
        [
          "assistant",
          "",
          {
            "reasoning": "Hm.",
          },
        ],
        [
          "assistant",
          "",
          {
            "toolCall": [
              {
                "id": "call_1",
                "input": {
                  "city": "Bonn",
                },
                "name": "get_weather",
              },
            ],
          },
        ],
        [
          "user",
          "rain
      wind",
          {
            "toolResult": {
              "id": "call_1",
              "isError": false,
              "result": "rain
      wind",
            },
          },
        ],
        [
          "user",
          "{"type":"image","image":{"data":"AQL/","mediaType":"image/png"}}",
          {
            "toolResult": {
              "id": "call_2",
              "isError": false,
              "result": "{"type":"image","image":{"data":"AQL/","mediaType":"image/png"}}",
            },
          },
        ],
        [
          "assistant",
          "",
          {
            "toolCall": [
              {
                "id": "ws_1",
                "input": {
                  "query": "x",
                },
                "name": "web_search_call",
              },
            ],
            "toolResult": [
              {
                "id": "ws_1",
                "isError": false,
                "result": "found",
              },
            ],
          },
        ],
        [
          "assistant",
          "",
          {
            "toolCall": [
              {
                "id": "call_3",
                "input": {
                  "action": {
                    "commands": [
                      "ls",
                    ],
                  },
                },
                "name": "shell",
              },
            ],
          },
        ],
        [
          "user",
          "[{"stdout":"a","stderr":"","outcome":{"type":"exit","exitCode":0}}]",
          {
            "toolResult": {
              "id": "call_3",
              "isError": false,
              "result": "[{"stdout":"a","stderr":"","outcome":{"type":"exit","exitCode":0}}]",
            },
          },
        ],
        [
          "assistant",
          "It rains.
      No more.",
          undefined,
        ],
        [
          "assistant",
          "",
          undefined,
        ],
        [
          "assistant",
          "",
          undefined,
        ],
      ]
    `);
  });

  test("and what they have stored becomes items", async () => {
    await store.addMessages(key, [
      { role: "system", content: "Be kind." },
      { role: "user", content: [{ type: "text", text: "Weather?" }] },
      {
        role: "assistant",
        content: "Let me see.",
        options: { toolCall: [{ id: "1", name: "get_weather", input: { city: "Bonn" } }] },
      },
      {
        role: "user",
        content: "rain",
        options: { toolResult: { id: "1", result: "rain", isError: false } },
      },
      {
        role: "assistant",
        content: "It rains, and 2 is 2.",
        options: {
          toolCall: [{ id: "2", name: "add", input: "1 1" }],
          toolResult: [{ id: "2", result: "2", isError: false }],
        },
      },
    ]);
    expect(await open().getItems()).toMatchInlineSnapshot(`
      [
        {
          "content": "Be kind.",
          "role": "system",
          "type": "message",
        },
        {
          "content": [
            {
              "text": "Weather?",
              "type": "input_text",
            },
          ],
          "role": "user",
          "type": "message",
        },
        {
          "content": [
            {
              "text": "Let me see.",
              "type": "output_text",
            },
          ],
          "role": "assistant",
          "status": "completed",
          "type": "message",
        },
        {
          "arguments": "{"city":"Bonn"}",
          "callId": "1",
          "name": "get_weather",
          "status": "completed",
          "type": "function_call",
        },
        {
          "callId": "1",
          "name": "get_weather",
          "output": "rain",
          "status": "completed",
          "type": "function_call_result",
        },
        {
          "arguments": "1 1",
          "callId": "2",
          "name": "add",
          "status": "completed",
          "type": "function_call",
        },
        {
          "callId": "2",
          "name": "add",
          "output": "2",
          "status": "completed",
          "type": "function_call_result",
        },
        {
          "content": [
            {
              "text": "It rains, and 2 is 2.",
              "type": "output_text",
            },
          ],
          "role": "assistant",
          "status": "completed",
          "type": "message",
        },
      ]
    `);
    // A part of a message can be taken back, the rest stays.
    await open().popItem();
    expect((await open().getItems()).map((item) => item.type)).toMatchInlineSnapshot(`
      [
        "message",
        "message",
        "message",
        "function_call",
        "function_call_result",
        "function_call",
        "function_call_result",
      ]
    `);
  });
});

describe("a history transaction", () => {
  const append = (operationId: string, ...added: AgentInputItem[]) => ({
    operationId,
    transaction: { type: "append_items" as const, items: added },
  });
  const replace = (
    operationId: string,
    expectedSuffix: AgentInputItem[],
    replacement: AgentInputItem[],
  ) => ({
    operationId,
    transaction: { type: "replace_suffix" as const, expectedSuffix, replacement },
  });

  test("is applied once, whoever repeats it", async () => {
    await open().applyHistoryTransaction(append("1", said("a"), said("b")));
    await Promise.all(
      Array.from({ length: 5 }, () => open().applyHistoryTransaction(append("2", said("c")))),
    );
    await open().applyHistoryTransaction(append("1", said("a"), said("b")));
    expect(await open().getItems()).toEqual([said("a"), said("b"), said("c")]);
  });

  test("replaces a suffix in one step, once", async () => {
    await open().addItems(items);
    const change = replace("1", items.slice(-2), [said("x")]);
    await open().applyHistoryTransaction(change);
    const after = [...items.slice(0, -2), said("x")];
    expect(await open().getItems()).toEqual(after);
    await open().applyHistoryTransaction(JSON.parse(JSON.stringify(change)));
    expect(await open().getItems()).toEqual(after);
  });

  test("without anything before the suffix", async () => {
    await open().addItems([said("a")]);
    await open().applyHistoryTransaction(replace("1", [said("a")], [said("b"), said("c")]));
    expect(await open().getItems()).toEqual([said("b"), said("c")]);
  });

  test.each([
    ["the same id with another content", append("1", said("other"))],
    ["the same id with another kind", replace("1", [], [said("a")])],
    ["a suffix that is not there", replace("2", [said("never")], [said("x")])],
    ["a suffix that is longer than the history", replace("2", [said("x"), said("a")], [])],
    ["no id", append(" ", said("x"))],
    ["an id that is none", append(undefined as never, said("x"))],
  ])("changes nothing for %s", async (_, change) => {
    await open().applyHistoryTransaction(append("1", said("a")));
    const before = await store.readSession(key);
    await expect(open().applyHistoryTransaction(change)).rejects.toThrow(
      expect.objectContaining({ code: "INVALID_OPTIONS" }),
    );
    expect(await store.readSession(key)).toEqual(before);
  });

  test("is repeated beside another writer, whose items stay", async () => {
    await Promise.all([
      open().addItems([said("other")]),
      open().applyHistoryTransaction(append("1", said("a"))),
      open().applyHistoryTransaction(append("2", said("b"))),
    ]);
    expect(
      (await open().getItems()).map((item) => (item as { content: string }).content).sort(),
    ).toEqual(["a", "b", "other"]);
  });

  test("remembers a bounded number of operations", async () => {
    for (let n = 0; n < 1_010; n++)
      await open().applyHistoryTransaction(append(`${n}`, said(`${n}`)));
    await open().applyHistoryTransaction(append("1009", said("1009")));
    const { session, messages } = await store.readSession(key);
    expect(messages).toHaveLength(1_010);
    expect(session?.state["openaiAgents"]).toMatchObject({ operations: { length: 1_000 } });
  });
});

describe("a rewritten history", () => {
  const call = (args: string): Extract<AgentInputItem, { type: "function_call" }> => ({
    type: "function_call",
    callId: "call_1",
    name: "f",
    arguments: args,
    status: "completed",
  });
  const replacement = (args: string) => ({
    mutations: [
      { type: "replace_function_call" as const, callId: "call_1", replacement: call(args) },
    ],
  });

  test.each([
    ["once", [said("a"), call("1"), said("b")]],
    ["twice", [said("a"), call("1"), call("2"), said("b"), call("1")]],
    ["not at all", [said("a"), said("b")]],
  ])("with a call that is there %s", async (_, history) => {
    const reference = new MemorySession({ initialItems: history });
    await reference.applyHistoryMutations(replacement("edited"));
    await open().addItems(history);
    await open().applyHistoryMutations(replacement("edited"));
    expect(await open().getItems()).toEqual(await reference.getItems());
  });

  test("keeps ids and times of what it does not change", async () => {
    await open().addItems([said("a"), call("1"), call("1"), said("b")]);
    const before = await store.getMessages(key);
    await open().applyHistoryMutations(replacement("edited"));
    const after = await store.getMessages(key);
    expect([after[0], after[2]]).toEqual([before[0], before[3]]);
  });

  test("a compaction takes the place of what was read, and of nothing else", async () => {
    const session = open();
    await session.addItems([said("a"), said("b")]);
    await session.getItems();
    await session.addItems([said("c")]);
    await session.replaceHistoryWithCompaction([said("small")]);
    expect(await session.getItems()).toEqual([said("small")]);

    await open().addItems([said("from another tab")]);
    await expect(session.replaceHistoryWithCompaction([said("smaller")])).rejects.toThrow(
      expect.objectContaining({ code: "VERSION_CONFLICT" }),
    );
    await session.addItems([said("d")]);
    await expect(session.replaceHistoryWithCompaction([said("smaller")])).rejects.toThrow(
      expect.objectContaining({ code: "VERSION_CONFLICT" }),
    );
    expect(await session.getItems()).toEqual([said("small"), said("from another tab"), said("d")]);
  });
});
