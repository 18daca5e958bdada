import { createChatStore, MemoryBackend, memoryChatStore, sessionKey } from "@chatstore/core";
import { type UIMessage, validateUIMessages } from "ai";
import { beforeEach, describe, expect, test } from "vitest";
import { aiSdkChat, type ChatRequest, listChats } from "../src/index.ts";

type Part = UIMessage["parts"][number];

const user = (id: string, text = id): UIMessage => ({
  id,
  role: "user",
  parts: [{ type: "text", text }],
});
const answer = (id: string, ...parts: Part[]): UIMessage => ({
  id,
  role: "assistant",
  parts: parts.length > 0 ? parts : [{ type: "text", text: id, state: "done" }],
});
const tool = (state: string, more: object = {}): Part =>
  ({ type: "tool-f", toolCallId: "c1", state, input: { x: 1 }, ...more }) as Part;

/** One part of every kind, as models and the SDK make them. */
const everything: UIMessage[] = [
  { id: "s", role: "system", parts: [{ type: "text", text: "Be kind." }] },
  {
    id: "u1",
    role: "user",
    metadata: { at: new Date(0), nothing: undefined },
    parts: [
      { type: "text", text: "Look" },
      { type: "file", mediaType: "image/png", url: "data:image/png;base64,AAAA" },
      {
        type: "file",
        mediaType: "application/pdf",
        filename: "a.pdf",
        url: "data:application/pdf;base64,BBBB",
      },
      { type: "file", mediaType: "image/jpeg", url: "https://example.com/a.jpg" },
    ],
  },
  answer(
    "a1",
    { type: "step-start" },
    { type: "reasoning", text: "Hm.", providerMetadata: { openai: { encrypted: "x" } } },
    { type: "text", text: "Let me see.", state: "done" },
    tool("output-available", { output: { rain: true, at: new Date(1) } }),
    { ...tool("output-error", { errorText: "no" }), toolCallId: "c2" } as Part,
    { type: "step-start" },
    { type: "source-url", sourceId: "1", url: "https://example.com", title: "E" },
    {
      type: "data-weather",
      id: "d",
      data: { n: 2 ** 53, bytes: new Uint8Array([1, 255]) },
    } as Part,
    { type: "text", text: "It rains.", state: "done" },
  ),
];

let store = memoryChatStore();
const key = sessionKey({ user: "alice" });
const warnings: string[] = [];
const open = (more: Partial<Parameters<typeof aiSdkChat>[0]> = {}) =>
  aiSdkChat({ store, key, onWarning: (warning) => warnings.push(warning), ...more });
async function keep(...messages: UIMessage[]) {
  const chat = open();
  await chat.load();
  await chat.save(messages);
  return chat;
}
const ids = async () => (await open().load()).messages.map(({ id }) => id);

beforeEach(() => {
  store = memoryChatStore();
  warnings.length = 0;
});

describe("a conversation", () => {
  test("comes back exactly as it was given", async () => {
    await keep(...everything);
    const { messages, setAside, messageCount } = await open().load();
    expect(messages).toEqual(everything);
    expect(messages[1]?.metadata).toHaveProperty("nothing");
    expect(setAside).toEqual([]);
    expect(messageCount).toBe(3);
  });

  test("that is new has no messages, and no version", async () => {
    expect(await open().load()).toEqual({
      messages: [],
      setAside: [],
      version: null,
      messageCount: 0,
    });
  });

  test("costs one round trip to load, one to save, and none where nothing changed", async () => {
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
    const chat = open();
    const tripsOf = async (act: () => Promise<unknown>) => {
      trips = 0;
      await act();
      return trips;
    };
    expect(await tripsOf(() => chat.load())).toBe(1);
    expect(await tripsOf(() => chat.save([user("u1"), answer("a1")]))).toBe(1);
    expect(await tripsOf(() => chat.save([user("u1"), answer("a1")]))).toBe(0);
    expect(await tripsOf(() => open().load({ last: 1 }))).toBe(1);
    const request = { messages: [user("u1"), answer("a1"), user("u2")] };
    const next = open();
    expect(await tripsOf(() => next.receive(request, { streamId: "s" }))).toBe(2);
    const { onStepEnd, onEnd, originalMessages } = next.streamOptions(request.messages);
    const event = { messages: [...originalMessages, answer("a2")], responseMessage: answer("a2") };
    expect(await tripsOf(() => onStepEnd(event))).toBe(1);
    expect(await tripsOf(() => onEnd(event))).toBe(1); // clears the stream
    expect(await tripsOf(() => onEnd(event))).toBe(0);
  });

  test("keeps ids and times of what does not change, and the time of what does", async () => {
    await keep(user("u1"), answer("a1"), user("u2"), answer("a2", tool("input-available")));
    const before = await store.getMessages(key);
    const done = answer("a2", tool("output-available", { output: 1 }));
    const chat = open();
    await chat.load();
    await chat.save([user("u1"), answer("a1"), user("u2"), done, user("u3")]);
    const after = await store.getMessages(key);
    expect(after.slice(0, 3)).toEqual(before.slice(0, 3));
    expect(after[3]).toMatchObject({ id: "a2", createdAt: before[3]?.createdAt });
    expect((await open().load()).messages[3]).toEqual(done);
  });

  test.each([
    ["what is gone from the end", [user("u1"), answer("a1")]],
    ["what is gone from the middle", [user("u1"), user("u2"), answer("a2")]],
    ["another order", [user("u2"), answer("a2"), user("u1"), answer("a1")]],
    ["a message at the front", [user("u0"), user("u1"), answer("a1"), user("u2"), answer("a2")]],
    ["another answer", [user("u1"), answer("a1"), user("u2"), answer("a3")]],
    ["other words", [user("u1", "changed"), answer("a1"), user("u2"), answer("a2")]],
  ])("is saved with %s", async (_, messages) => {
    const chat = await keep(user("u1"), answer("a1"), user("u2"), answer("a2"));
    await chat.save(messages);
    expect((await open().load()).messages).toEqual(messages);
  });

  test("is not changed by what travelled to a client and back", async () => {
    await keep(...everything);
    const { version } = await open().load();
    const chat = open();
    await chat.load();
    await chat.save(JSON.parse(JSON.stringify(everything)));
    expect(await open().load()).toMatchObject({ version, messages: everything });
  });

  test("is read from its end, and saved over that", async () => {
    await keep(user("u1"), answer("a1"), user("u2"), answer("a2"), user("u3"));
    const chat = open();
    const { messages, messageCount } = await chat.load({ last: 2 });
    expect(messages).toEqual([answer("a2"), user("u3")]);
    expect(messageCount).toBe(5);
    await chat.save([...messages, answer("a3")]);
    await chat.save([answer("a4"), user("u4")]);
    expect(await ids()).toEqual(["u1", "a1", "u2", "a4", "u4"]);
    // A client may give all that it shows.
    const whole = open();
    await whole.load({ last: 1 });
    await whole.save([
      user("u1"),
      answer("a1"),
      user("u2"),
      answer("a4"),
      user("u4"),
      answer("a5"),
    ]);
    expect(await ids()).toEqual(["u1", "a1", "u2", "a4", "u4", "a5"]);
  });

  test("does not take what another request wrote", async () => {
    await keep(user("u1"), answer("a1"));
    const [one, two] = [open(), open()];
    const { messages } = await one.load();
    await two.load();
    await two.save([...messages, user("u2")]);
    for (const mine of [[...messages, user("u3")], [user("u1")]]) {
      await expect(one.save(mine)).rejects.toThrow(
        expect.objectContaining({ code: "VERSION_CONFLICT" }),
      );
    }
    expect(await ids()).toEqual(["u1", "a1", "u2"]);
  });

  test("may have its title and state changed meanwhile", async () => {
    const chat = await keep(user("u1"));
    await store.setTitle(key, "Mine");
    await store.setState(key, { app: { theme: "dark" } });
    await chat.save([user("u1"), answer("a1")]);
    expect(await store.getSession(key)).toMatchObject({ title: "Mine", messageCount: 2 });
  });

  test.each([
    ["no load before it", "INVALID_OPTIONS", (chat) => chat.save([user("u1")])],
    ["no messages", "INVALID_OPTIONS", (chat) => chat.load().then(() => chat.save([]))],
    ["a message without an id", "INVALID_MESSAGE", later([{ ...user("u1"), id: "" }])],
    ["two messages with one id", "INVALID_MESSAGE", later([user("u1"), user("u1")])],
    [
      "a message without parts",
      "INVALID_MESSAGE",
      later([answer("a1"), { ...user("u1"), parts: [] }]),
    ],
    [
      "a part that is none",
      "INVALID_MESSAGE",
      later([{ ...user("u1"), parts: ["Hello"] as never }]),
    ],
    ["another role", "INVALID_MESSAGE", later([{ ...user("u1"), role: "tool" as never }])],
    ["what is no list", "INVALID_MESSAGE", later(null as never)],
    ["what is no message", "INVALID_MESSAGE", later([null as never])],
    [
      "a function in a part",
      "SERIALIZATION",
      later([answer("a1", tool("output-available", { output: () => 1 }))]),
    ],
  ] as [string, string, (chat: ReturnType<typeof open>) => Promise<unknown>][])(
    "refuses %s, and stays",
    async (_, code, save) => {
      await keep(user("u0"));
      const before = await store.readSession(key);
      await expect(save(open())).rejects.toThrow(expect.objectContaining({ code }));
      expect(await store.readSession(key)).toEqual(before);
    },
  );

  test("says of a large file where to keep it", async () => {
    const chat = open();
    await chat.load();
    const url = `data:image/png;base64,${"A".repeat(5 * 1024 * 1024)}`;
    const photo: UIMessage = {
      ...user("u1"),
      parts: [{ type: "file", mediaType: "image/png", url }],
    };
    await expect(chat.save([user("u0"), photo])).rejects.toThrow(
      /message u1.*URLs instead of data URLs/,
    );
    expect(await ids()).toEqual([]);
  });

  test("says what is wrong with its options", async () => {
    for (const options of [undefined, {}, { store: "chat.db", key }, { store: null, key }]) {
      expect(() => aiSdkChat(options as never)).toThrow(/Which store/);
    }
    await expect(aiSdkChat({ store, key: "chat_1" }).load()).rejects.toThrow(
      expect.objectContaining({ code: "INVALID_SESSION_KEY" }),
    );
    const { onEnd } = open().streamOptions([]);
    await expect(onEnd({ text: "of streamText" } as never)).rejects.toThrow(/not for streamText/);
  });
});

function later(messages: UIMessage[]) {
  return (chat: ReturnType<typeof open>) => chat.load().then(() => chat.save(messages));
}

describe("messages that cannot be read", () => {
  const bad = {
    role: "assistant" as const,
    content: "?",
    native: { format: "ai-sdk/5" as const, value: { id: "x", role: "assistant" } },
  };

  test("are set aside and reported, the others are there", async () => {
    await keep(user("u1"), answer("a1"));
    await store.addMessages(key, [{ ...bad, id: "x" }]);
    const { messages, setAside } = await open().load();
    expect(messages).toEqual([user("u1"), answer("a1")]);
    expect(setAside).toMatchObject([
      { id: "x", reason: 'it has no "parts"', message: { content: "?" } },
    ]);
    expect(warnings).toEqual([expect.stringMatching(/Message x of session .* was set aside/)]);
  });

  test("stay where they are when others are saved, and go with what they follow", async () => {
    await keep(user("u1"));
    await store.addMessages(key, [{ ...bad, id: "x" }]);
    const chat = open();
    await chat.load();
    await chat.save([user("u1"), answer("a1"), user("u2")]);
    await chat.save([user("u1"), answer("a1", tool("input-available"))]);
    await chat.save([user("u1", "changed"), answer("a1")]);
    expect((await store.getMessages(key)).map(({ id }) => id)).toEqual(["u1", "x", "a1"]);
    await chat.save([user("u3")]);
    expect((await store.getMessages(key)).map(({ id }) => id)).toEqual(["u3"]);
  });

  test("are those that the application's tools no longer know", async () => {
    const validate = (messages: UIMessage[]) =>
      validateUIMessages({
        messages,
        dataSchemas: {
          known: {
            "~standard": {
              version: 1,
              vendor: "t",
              validate: (value: unknown) =>
                value === 1 ? { value } : { issues: [{ message: "not 1" }] },
            },
          } as never,
        },
      });
    const old = answer("a1", { type: "data-known", data: 2 } as Part);
    await keep(user("u1"), old, user("u2"));
    const chat = open({ validate });
    const { messages, setAside } = await chat.load();
    expect(messages).toEqual([user("u1"), user("u2")]);
    expect(setAside).toMatchObject([{ id: "a1", cause: expect.any(Error) }]);
    await chat.receive({ message: user("u3") });
    expect(await ids()).toEqual(["u1", "a1", "u2", "u3"]);
    // And nobody adds more of them.
    const fresh = { ...user("u4"), parts: [{ type: "data-known", data: 3 } as Part] };
    await expect(chat.receive({ message: fresh })).rejects.toThrow(
      expect.objectContaining({ code: "INVALID_MESSAGE" }),
    );
  });

  test("of a newer format are refused, not guessed at", async () => {
    const native = { format: "ai-sdk/6" as const, value: {} };
    await store.addMessages(key, [{ role: "user", content: "x", native }]);
    await expect(open().load()).rejects.toThrow(
      expect.objectContaining({ code: "UNSUPPORTED_FORMAT" }),
    );
  });
});

describe("messages of version 4", () => {
  const old = [
    {
      id: "1",
      role: "user",
      content: "Weather?",
      createdAt: new Date(0),
      experimental_attachments: [
        { name: "a.png", contentType: "image/png", url: "https://example.com/a.png" },
      ],
    },
    {
      id: "2",
      role: "assistant",
      content: "It rains.",
      reasoning: "Hm.",
      toolInvocations: [
        {
          state: "result",
          toolCallId: "c1",
          toolName: "weather",
          args: { city: "Bonn" },
          result: "rain",
        },
        { state: "call", toolCallId: "c2", toolName: "weather", args: { city: "Rome" } },
      ],
    },
    {
      id: "3",
      role: "assistant",
      content: "Yes.",
      parts: [
        { type: "step-start" },
        { type: "reasoning", reasoning: "So.", details: [] },
        {
          type: "tool-invocation",
          toolInvocation: { state: "result", toolCallId: "c3", toolName: "f", args: {}, result: 1 },
        },
        {
          type: "source",
          source: { sourceType: "url", id: "s", url: "https://example.com", title: "E" },
        },
        { type: "file", mimeType: "image/png", data: "AAAA" },
        { type: "text", text: "Yes." },
      ],
    },
  ];
  const today = [
    {
      id: "1",
      role: "user",
      parts: [
        { type: "text", text: "Weather?" },
        {
          type: "file",
          mediaType: "image/png",
          filename: "a.png",
          url: "https://example.com/a.png",
        },
      ],
    },
    {
      id: "2",
      role: "assistant",
      parts: [
        { type: "reasoning", text: "Hm." },
        {
          type: "tool-weather",
          toolCallId: "c1",
          state: "output-available",
          input: { city: "Bonn" },
          output: "rain",
        },
        {
          type: "tool-weather",
          toolCallId: "c2",
          state: "input-available",
          input: { city: "Rome" },
        },
        { type: "text", text: "It rains." },
      ],
    },
    {
      id: "3",
      role: "assistant",
      parts: [
        { type: "step-start" },
        { type: "reasoning", text: "So." },
        { type: "tool-f", toolCallId: "c3", state: "output-available", input: {}, output: 1 },
        { type: "source-url", sourceId: "s", url: "https://example.com", title: "E" },
        { type: "file", mediaType: "image/png", url: "data:image/png;base64,AAAA" },
        { type: "text", text: "Yes." },
      ],
    },
  ];
  const dated = today.map((message, index) =>
    index === 0 ? { ...message, metadata: { createdAt: new Date(0) } } : message,
  );

  test("are saved as messages of today", async () => {
    await keep(...(old as never[]));
    expect((await open().load()).messages).toEqual(dated);
    await expect(validateUIMessages({ messages: today })).resolves.toBeDefined();
  });

  test("that were stored as they are become messages of today", async () => {
    await store.addMessages(key, old.map(({ createdAt, ...message }) => message) as never);
    const { messages, setAside } = await open().load();
    expect(setAside).toEqual([]);
    expect(messages.slice(1)).toEqual(today.slice(1));
    expect(messages[0]?.parts[0]).toEqual(today[0]?.parts[0]);
  });

  test("that were stored under their own stamp, too", async () => {
    await store.addMessages(
      key,
      old.map((value) => ({
        id: value.id,
        role: "assistant" as const,
        content: value.content,
        native: { format: "ai-sdk/4" as const, value },
      })),
    );
    expect((await open().load()).messages).toEqual(dated);
  });
});

describe("other frameworks", () => {
  test("see role, text, calls and answers", async () => {
    await keep(...everything);
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
              "data": "BBBB",
              "mimeType": "application/pdf",
              "type": "file",
            },
            {
              "image_url": {
                "url": "https://example.com/a.jpg",
              },
              "type": "image_url",
            },
          ],
          undefined,
        ],
        [
          "assistant",
          "Let me see.
      It rains.",
          {
            "toolCall": [
              {
                "id": "c1",
                "input": {
                  "x": 1,
                },
                "name": "f",
              },
              {
                "id": "c2",
                "input": {
                  "x": 1,
                },
                "name": "f",
              },
            ],
            "toolResult": [
              {
                "id": "c1",
                "isError": false,
                "result": "{"rain":true,"at":"1970-01-01T00:00:00.001Z"}",
              },
              {
                "id": "c2",
                "isError": true,
                "result": "no",
              },
            ],
          },
        ],
      ]
    `);
  });

  test("have stored what becomes messages, and stays as it was stored", async () => {
    const stored = [
      { id: "1", role: "system", content: "Be kind." },
      {
        id: "2",
        role: "user",
        content: [
          { type: "text", text: "Weather?" },
          { type: "image_url", image_url: { url: "data:image/png;base64,AAAA" } },
          { type: "file", data: "BBBB", mimeType: "application/pdf" },
        ],
      },
      {
        id: "3",
        role: "assistant",
        content: "Let me see.",
        options: {
          toolCall: [
            { id: "c1", name: "weather", input: { city: "Bonn" } },
            { id: "c2", name: "weather", input: {} },
          ],
        },
      },
      {
        id: "4",
        role: "user",
        content: "rain",
        options: { toolResult: { id: "c1", result: "rain", isError: false } },
      },
      {
        id: "5",
        role: "user",
        content: "no",
        options: { toolResult: { id: "c2", result: "no", isError: true } },
      },
      { id: "6", role: "assistant", content: "", options: { reasoning: "Hm." } },
      {
        id: "7",
        role: "assistant",
        content: "2 is 2.",
        options: {
          toolCall: [{ id: "c3", name: "add", input: "1 1" }],
          toolResult: [{ id: "c3", result: "2", isError: false }],
        },
      },
      { id: "8", role: "assistant", content: "" },
      {
        id: "9",
        role: "user",
        content: "?",
        options: { toolResult: { id: "c9", result: "?", isError: false } },
      },
    ];
    await store.addMessages(key, stored as never);
    const chat = open();
    const { messages, setAside } = await chat.load();
    expect(messages).toMatchInlineSnapshot(`
      [
        {
          "id": "1",
          "parts": [
            {
              "text": "Be kind.",
              "type": "text",
            },
          ],
          "role": "system",
        },
        {
          "id": "2",
          "parts": [
            {
              "text": "Weather?",
              "type": "text",
            },
            {
              "mediaType": "image/png",
              "type": "file",
              "url": "data:image/png;base64,AAAA",
            },
            {
              "mediaType": "application/pdf",
              "type": "file",
              "url": "data:application/pdf;base64,BBBB",
            },
          ],
          "role": "user",
        },
        {
          "id": "3",
          "parts": [
            {
              "text": "Let me see.",
              "type": "text",
            },
            {
              "input": {
                "city": "Bonn",
              },
              "output": "rain",
              "state": "output-available",
              "toolCallId": "c1",
              "toolName": "weather",
              "type": "dynamic-tool",
            },
            {
              "errorText": "no",
              "input": {},
              "state": "output-error",
              "toolCallId": "c2",
              "toolName": "weather",
              "type": "dynamic-tool",
            },
          ],
          "role": "assistant",
        },
        {
          "id": "6",
          "parts": [
            {
              "text": "Hm.",
              "type": "reasoning",
            },
          ],
          "role": "assistant",
        },
        {
          "id": "7",
          "parts": [
            {
              "input": "1 1",
              "output": "2",
              "state": "output-available",
              "toolCallId": "c3",
              "toolName": "add",
              "type": "dynamic-tool",
            },
            {
              "text": "2 is 2.",
              "type": "text",
            },
          ],
          "role": "assistant",
        },
      ]
    `);
    expect(setAside.map(({ id, reason }) => [id, reason])).toEqual([
      ["9", "the call c9 that it answers is not there"],
    ]);
    await expect(validateUIMessages({ messages })).resolves.toBeDefined();
    const before = await store.getMessages(key);
    await chat.save([...messages, user("u1")]);
    expect((await store.getMessages(key)).slice(0, -1)).toEqual(before);
    await chat.save([...messages.slice(0, 2), user("u2")]);
    expect((await store.getMessages(key)).map(({ id }) => id)).toEqual(["1", "2", "u2"]);
  });
});

describe("a request", () => {
  const stored = [user("u1"), answer("a1"), user("u2"), answer("a2")];
  const apply = async (request: ChatRequest, kept = stored, options = {}) => {
    if (kept.length > 0) await keep(...kept);
    const { messages } = await open().receive(request, options);
    expect((await open().load()).messages).toEqual(messages);
    return messages;
  };
  const regenerate = { trigger: "regenerate-message" };

  test.each<[string, ChatRequest, UIMessage[]]>([
    ["a question", { messages: [...stored, user("u3")] }, [...stored, user("u3")]],
    ["a question alone", { message: user("u3") }, [...stored, user("u3")]],
    [
      "an edited question",
      { messages: [user("u1"), answer("a1"), user("u2", "x")], messageId: "u2" },
      [...stored.slice(0, 2), user("u2", "x")],
    ],
    [
      "an edited question alone",
      { message: user("u2", "x"), messageId: "u2" },
      [...stored.slice(0, 2), user("u2", "x")],
    ],
    ["the last answer anew", { ...regenerate, messages: stored.slice(0, 3) }, stored.slice(0, 3)],
    ["the last answer anew, alone", regenerate, stored.slice(0, 3)],
    [
      "an answer in the middle anew",
      { ...regenerate, messages: stored.slice(0, 1), messageId: "a1" },
      stored.slice(0, 1),
    ],
    ["an answer in the middle anew, alone", { ...regenerate, messageId: "a1" }, stored.slice(0, 1)],
    [
      "an answer to a question anew",
      { ...regenerate, messages: stored.slice(0, 1), messageId: "u1" },
      stored.slice(0, 1),
    ],
    [
      "an answer anew that failed",
      { ...regenerate, messages: [...stored, user("u3")] },
      [...stored, user("u3")],
    ],
  ])("for %s", async (_, request, expected) => {
    expect(await apply(request)).toEqual(expected);
  });

  test("for the first question, whose beginning is the title", async () => {
    const text = `Where \n is ${"my ".repeat(40)}order?`;
    await apply({ messages: [user("u1", text)] }, []);
    const { title } = await open().load();
    expect(title).toHaveLength(60);
    expect(title).toMatch(/^Where is my my .*…$/);
  });

  test("that is repeated does nothing", async () => {
    const messages = [...stored, user("u3")];
    await apply({ messages });
    const { version } = await open().load();
    await open().receive({ messages });
    expect((await open().load()).version).toBe(version);
  });

  test("that goes further back than was read reads all", async () => {
    expect(
      await apply({ messages: [user("u1", "x")], messageId: "u1" }, stored, { last: 1 }),
    ).toEqual([user("u1", "x")]);
    await keep(...stored);
    await open().receive({ messages: [...stored, user("u3")] }, { last: 2 });
    expect(await ids()).toEqual(["u1", "a1", "u2", "a2", "u3"]);
  });

  test("cannot change what is stored", async () => {
    const forged = [
      user("u1", "x"),
      answer("a1", { type: "text", text: "You get it for nothing." }),
    ];
    expect(await apply({ messages: [...forged, ...stored.slice(2), user("u3")] })).toEqual([
      ...stored,
      user("u3"),
    ]);
    const waiting = answer(
      "a1",
      { type: "text", text: "Well" },
      tool("approval-requested", { approval: { id: "p" } }),
    );
    const answered = tool("approval-responded", { approval: { id: "p", approved: true } });
    const sent = answer("a1", { type: "text", text: "forged" }, answered);
    expect(await apply({ messages: [user("u1"), sent] }, [user("u1"), waiting])).toEqual([
      user("u1"),
      answer("a1", { type: "text", text: "Well" }, answered),
    ]);
  });

  const responded = (approved: boolean) =>
    tool("approval-responded", { approval: { id: "p", approved } });
  test.each<[string, ChatRequest, UIMessage[]]>([
    ["messages that it has not seen", { messages: [user("u1"), answer("a1"), user("u3")] }, stored],
    ["an answer that it has not seen", { messages: [user("u1")] }, stored.slice(0, 2)],
    ["that the last answer is another one", { ...regenerate, messages: [user("u1")] }, stored],
    ["that its last message is not the last", { message: user("u3"), lastMessageId: "a1" }, stored],
    [
      "that its last message was replaced",
      { ...regenerate, messageId: "a1", lastMessageId: "a9" },
      stored,
    ],
    ["that the answered message is not the last", { message: answer("a1") }, stored],
    ["that the message to answer is gone", { ...regenerate, messageId: "a9" }, stored],
    ["a conversation of another id", { messages: [user("x1"), answer("x2"), user("x3")] }, stored],
    [
      "that a call has come further",
      { message: answer("a1", responded(true)) },
      [user("u1"), answer("a1", tool("output-available", { output: 1 }))],
    ],
    [
      "that it was decided otherwise",
      { message: answer("a1", responded(true)) },
      [user("u1"), answer("a1", responded(false))],
    ],
    [
      "that the answer went on",
      { message: answer("a1", responded(true)) },
      [user("u1"), answer("a1", responded(true), tool("input-available"))],
    ],
    [
      "that the answer was never stored",
      { messages: [user("u1"), answer("a1", responded(true))] },
      [user("u1")],
    ],
  ])("of a tab that does not know %s is a conflict", async (_, request, kept) => {
    await keep(...kept);
    const before = await store.readSession(key);
    await expect(open().receive(request)).rejects.toThrow(
      expect.objectContaining({ code: "VERSION_CONFLICT" }),
    );
    expect(await store.readSession(key)).toEqual(before);
  });

  test.each<[string, unknown, string]>([
    ["no object", "Hello", "INVALID_OPTIONS"],
    ["nothing", {}, "INVALID_OPTIONS"],
    ["a system message", { message: { ...user("u3"), role: "system" } }, "INVALID_MESSAGE"],
    ["a message without parts", { message: { ...user("u3"), parts: [] } }, "INVALID_MESSAGE"],
    ["messages that are none", { messages: "Hello" }, "INVALID_MESSAGE"],
    ["a message without an id", { message: { ...user("u3"), id: undefined } }, "INVALID_MESSAGE"],
  ])("with %s is refused", async (_, request, code) => {
    await keep(...stored);
    await expect(open().receive(request as never)).rejects.toThrow(
      expect.objectContaining({ code }),
    );
    expect(await ids()).toEqual(["u1", "a1", "u2", "a2"]);
  });

  test.each<[string, Part, object]>([
    [
      "interrupted",
      tool("input-available"),
      { state: "output-error", errorText: "It was interrupted" },
    ],
    [
      "not approved",
      tool("approval-requested", { approval: { id: "p" } }),
      { state: "output-error", errorText: "It was not approved" },
    ],
    [
      "denied",
      responded(false),
      { state: "output-denied", approval: { id: "p", approved: false } },
    ],
    [
      "approved and interrupted",
      responded(true),
      { state: "output-error", errorText: expect.stringContaining("not known") },
    ],
  ])(
    "ends a call that was %s, so that providers take the conversation",
    async (_, part, expected) => {
      const messages = await apply({ message: user("u2") }, [user("u1"), answer("a1", part)]);
      expect(messages[1]?.parts[0]).toMatchObject(expected);
      await expect(validateUIMessages({ messages })).resolves.toBeDefined();
    },
  );

  test("takes the answer that a person stopped, where the server could not save it", async () => {
    const messages = [user("u1"), answer("a1"), user("u2")];
    expect(await apply({ messages }, [user("u1")])).toEqual(messages);
  });

  test("of two tabs at once is stored once each, or told", async () => {
    await keep(user("u1"), answer("a1"));
    const messages = [user("u1"), answer("a1")];
    const outcomes = await Promise.allSettled(
      ["x", "y"].map((id) => open().receive({ messages: [...messages, user(id)] })),
    );
    expect(outcomes.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    expect(await ids()).toHaveLength(3);
  });
});

describe("the end of an answer", () => {
  test("that failed at once stores nothing of it", async () => {
    const chat = open();
    const { messages } = await chat.receive({ message: user("u1") }, { streamId: "s" });
    const responseMessage = answer("a1", { type: "step-start" });
    await chat
      .streamOptions(messages)
      .onEnd({ messages: [...messages, responseMessage], responseMessage });
    expect(await open().load()).toMatchObject({ messages: [user("u1")] });
    expect((await open().load()).activeStreamId).toBeUndefined();
  });

  test("is told when another request has changed the conversation, and clears its stream", async () => {
    const chat = open();
    const { messages } = await chat.receive({ message: user("u1") }, { streamId: "s" });
    await open().receive({ message: user("u2") });
    const event = { messages: [...messages, answer("a1")], responseMessage: answer("a1") };
    await expect(chat.streamOptions(messages).onFinish(event)).rejects.toThrow(
      expect.objectContaining({ code: "VERSION_CONFLICT" }),
    );
    const { activeStreamId } = await open().load();
    expect(activeStreamId).toBeUndefined();
    expect(await ids()).toEqual(["u1", "u2"]);
  });

  test("does not clear the stream of another answer", async () => {
    const chat = open();
    const { messages } = await chat.receive({ message: user("u1") });
    await chat.startStream("s1");
    await open().startStream("s2");
    const event = { messages: [...messages, answer("a1")], responseMessage: answer("a1") };
    await chat.streamOptions(messages).onEnd(event);
    expect(await open().load()).toMatchObject({ activeStreamId: "s2", messages: event.messages });
    expect(await open().endStream("s1")).toBe(false);
    expect(await open().endStream("s2")).toBe(true);
    expect(await open().endStream("s2")).toBe(false);
  });

  test("ignores steps of a model that are none of a message", async () => {
    await open().streamOptions([]).onStepEnd({ text: "a step of streamText" });
    expect(await ids()).toEqual([]);
  });
});

test("a sidebar lists a user's conversations with their titles", async () => {
  for (const [conversation, text] of [
    ["one", "First"],
    ["two", "Second"],
  ] as const) {
    const chat = aiSdkChat({ store, key: sessionKey({ user: "bob", conversation }) });
    await chat.receive({ message: user("u1", text) });
  }
  await aiSdkChat({ store, key: sessionKey({ user: "bob" }), title: false }).receive({
    message: user("u1"),
  });
  const { chats } = await listChats(store, { user: "bob", limit: 10 });
  const seen = chats.map(({ id, title, messageCount }) => ({ id, title, messageCount }));
  expect(seen).toHaveLength(3);
  expect(seen).toEqual(
    expect.arrayContaining([
      { id: "one", title: "First", messageCount: 1 },
      { id: "two", title: "Second", messageCount: 1 },
      { id: undefined, title: undefined, messageCount: 1 },
    ]),
  );
});
