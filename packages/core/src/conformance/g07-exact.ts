import type { NewMessage, StoredMessage } from "../messages.js";
import { anyId, anyMessage, anyValue, forAll } from "./arbitraries.js";
import { holds, refused, same } from "./claims.js";
import { ids, say, stored, texts } from "./messages.js";
import { need, type Subject } from "./subject.js";
import { describe, fc, test } from "./tools.js";

/** What comes back equals what went in. */
export function exact(subject: Subject): void {
  const namespace = subject.namespace();

  for (const [name, messages] of Object.entries(shapes())) {
    test(`keeps ${name}`, async () => {
      const key = subject.key();
      await subject.open(namespace).addMessages(key, messages);
      const found = await subject.open(namespace).getMessages(key);
      same(
        found,
        messages.map((message, index) => stored(message, found[index])),
        `${name} came back changed`,
      );
    });
  }

  test("keeps all of that across processes", async () => {
    const far = await subject.far(namespace);
    const [there, back] = [subject.key(), subject.key()];
    const messages = Object.values(shapes())
      .flat()
      .map((message, index) => ({ ...message, id: `m${index}`, createdAt: new Date(index) }));
    await subject.open(namespace).addMessages(there, messages);
    same(
      await far.getMessages(there),
      messages.map((message) => stored(message)),
      "What one process wrote, another reads changed",
    );
    await far.addMessages(back, messages);
    same(
      await subject.open(namespace).getMessages(back),
      messages.map((message) => stored(message)),
      "What another process wrote is read changed",
    );
  });

  test("keeps any message", async () => {
    const writer = subject.open(namespace);
    const reader = subject.open(namespace);
    const batch = fc.array(anyMessage, { minLength: 1, maxLength: 5 });
    await forAll(batch, 120, async (messages) => {
      const key = subject.key();
      await writer.addMessages(key, messages);
      const found = await reader.getMessages(key);
      same(
        found,
        messages.map((message, index) => stored(message, found[index])),
        "A message came back changed",
      );
    });
  });

  test("keeps a Buffer, and an object without a prototype", async () => {
    const key = subject.key();
    const bare = Object.assign(Object.create(null), { a: { b: 1 }, ["__proto__"]: 2 });
    const options = { buffer: Buffer.from("kittens"), empty: Buffer.alloc(0), bare };
    await subject.open(namespace).addMessages(key, [say("x", { options })]);
    const [found] = await subject.open(namespace).getMessages(key);
    same(found?.options, options, "It came back as something else");
  });

  test("keeps any id, and finds it", async () => {
    const store = subject.open(namespace);
    const pair = fc.uniqueArray(anyId, { minLength: 3, maxLength: 3 });
    await forAll(pair, 40, async (chosen) => {
      const key = subject.key();
      const [first, second, third] = chosen as [string, string, string];
      const messages = chosen.map((id) => say(`under ${id}`, { id }));
      const { version } = await store.addMessages(key, messages);
      same(ids(await store.getMessages(key)), chosen, "An id came back changed");
      const retried = await store.addMessages(key, [...messages].reverse());
      same(retried.version, version, "An id is not found when it is sent again");
      const middle = await store.getMessages(key, { after: first, limit: 1 });
      same(ids(middle), [second], "A page next to an id is the wrong one");
      await store.updateMessage(key, third, say("edited"));
      await store.deleteMessagesAfter(key, second);
      same(ids(await store.getMessages(key)), [first, second], "The wrong message was removed");
    });
  });

  test("keeps any state and title", async () => {
    const store = subject.open(namespace);
    const reader = subject.open(namespace);
    const title = fc.oneof(
      fc.string({ unit: "grapheme", maxLength: 40 }),
      fc.constantFrom("", "~", "\0", "\ud800", "~\\u0000"),
    );
    await forAll(fc.tuple(anyValue, title), 60, async ([value, text]) => {
      const key = subject.key();
      await store.setState(key, { entry: value ?? "none", constructor: value ?? "none" });
      await store.setTitle(key, text);
      const session = await reader.getSession(key);
      same(session?.title, text, "A title came back changed");
      same(
        session?.state,
        Object.fromEntries([
          ["entry", value ?? "none"],
          ["constructor", value ?? "none"],
        ]),
        "State came back changed",
      );
    });
  });

  test("keeps it through every way of writing", async () => {
    const store = subject.open(namespace);
    const nasty = shapes()["values beyond JSON"]?.[0] as NewMessage;
    const message = { ...nasty, id: "n", createdAt: new Date(7) };
    const ways: Readonly<Record<string, (key: string) => Promise<unknown>>> = {
      addMessage: (key) => store.addMessage(key, message),
      setMessages: (key) => store.setMessages(key, [message]),
      updateMessage: async (key) => {
        await store.addMessages(key, [say("before", { id: "n" })]);
        await store.updateMessage(key, "n", message);
      },
      "addMessage at a position": async (key) => {
        await store.addMessages(key, [say("behind")]);
        await store.addMessage(key, message, 0);
      },
      importSession: (key) =>
        store.importSession(key, {
          messages: [message],
          createdAt: new Date(1),
          updatedAt: new Date(2),
        }),
      forkSession: async (key) => {
        const from = subject.key();
        await store.addMessages(from, [message]);
        await store.forkSession(from, key);
      },
    };
    for (const [name, write] of Object.entries(ways)) {
      const key = subject.key();
      await write(key);
      const [first] = await subject.open(namespace).getMessages(key);
      same(first, stored(message), `${name} changed a message`);
    }
  });

  describe("the caller's objects", () => {
    test("may change after the call without changing what is stored", async () => {
      const key = subject.key();
      const store = subject.open(namespace);
      const parts = [{ type: "text" as const, text: "hello" }];
      const createdAt = new Date(1_000);
      const options = { toolCall: [{ id: "1", name: "f", input: { x: 1 } }] };
      const batch: NewMessage[] = [{ role: "user", content: parts, createdAt, options }];
      const added = store.addMessages(key, batch);
      batch.push(say("not sent"));
      (parts[0] as { text: string }).text = "changed";
      createdAt.setTime(5);
      options.toolCall.length = 0;
      await added;
      const [message, ...more] = await store.getMessages(key);
      same(more, [], "Pushing to the caller's array after the call stored another message");
      same(
        [message?.content, message?.createdAt, message?.options],
        [
          [{ type: "text", text: "hello" }],
          new Date(1_000),
          { toolCall: [{ id: "1", name: "f", input: { x: 1 } }] },
        ],
        "Changing the caller's message after the call changed what is stored",
      );
    });

    test("that were returned may change without changing what is stored", async () => {
      const key = subject.key();
      const store = subject.open(namespace);
      const list = [1];
      await store.addMessages(key, [say("a", { options: { list } }), say("b")]);
      await store.setState(key, { list });
      const before = structuredClone(await store.readSession(key));
      const { session, messages } = await store.readSession(key);
      const [first, second] = messages as [StoredMessage, StoredMessage];
      for (const values of [first.options, session?.state]) {
        (values as { list: number[] }).list.push(2);
      }
      second.content = "changed";
      second.createdAt.setTime(0);
      messages.reverse().pop();
      same(
        await store.readSession(key),
        before,
        "An agent that changes the array it was given changes the stored conversation",
      );
    });
  });

  describe("what cannot be kept is refused, naming where it is", () => {
    const cycle: Record<string, unknown> = {};
    cycle["self"] = cycle;
    class Point {
      x = 1;
    }
    const refusals: Readonly<Record<string, readonly [object, string]>> = {
      "a function": [{ tool: { callback: () => {} } }, "messages[1].options.tool.callback"],
      "a symbol": [{ list: [0, Symbol("s")] }, "messages[1].options.list[1]"],
      "a cycle": [cycle, "messages[1].options.self"],
      "a class instance": [{ at: new Point() }, "messages[1].options.at"],
      "an error": [{ error: new Error("x") }, "messages[1].options.error"],
      "a promise": [{ later: Promise.resolve() }, "messages[1].options.later"],
      "a regular expression": [{ pattern: /x/ }, "messages[1].options.pattern"],
      "a subclass of Array": [{ list: new (class extends Array {})() }, "messages[1].options.list"],
      "a subclass of Date": [{ at: new (class extends Date {})() }, "messages[1].options.at"],
      "a subclass of Map": [{ map: new (class extends Map {})() }, "messages[1].options.map"],
      "a subclass of bytes": [{ b: new (class extends Uint8Array {})(1) }, "messages[1].options.b"],
      "a property of an array": [
        { list: Object.assign([1], { total: 1 }) },
        "messages[1].options.list.total",
      ],
      "a hole in an array": [
        { list: Object.assign(new Array(3), { 0: 1, 2: 3 }) },
        "messages[1].options.list[1]",
      ],
      "a symbol as key": [{ o: { [Symbol("s")]: 1 } }, "messages[1].options.o"],
      toJSON: [{ o: { toJSON: () => 1 } }, "messages[1].options.o.toJSON"],
      "an inherited property": [{ o: Object.create({ x: 1 }) }, "messages[1].options.o"],
    };
    for (const [name, [options, path]] of Object.entries(refusals)) {
      test(name, async () => {
        const key = subject.key();
        const store = subject.open(namespace);
        const batch = [say("fine"), say("wrong", { options })];
        for (const write of [
          () => store.addMessages(key, batch),
          () => store.setMessages(key, batch),
        ]) {
          const error = await refused(write(), "SERIALIZATION", `${name} was lost in silence`);
          same((error as { path?: unknown }).path, path, "The error does not say where it is");
        }
        same(await store.getSession(key), undefined, "A refused write created a session");
      });
    }
  });

  test("a person who looks into the engine reads role and text", async (context) => {
    context.skip(!subject.readable, "the store does not declare that it is readable");
    const dump = need(context, subject.hooks.dump, "dump");
    const own = subject.namespace();
    const key = subject.key();
    const store = subject.open(own);
    await store.addMessages(key, [say("Kittens are soft, Grüße 👋")]);
    await store.close();
    const text = await dump(own);
    holds(text.includes("Kittens are soft, Grüße 👋"), "The text is not readable in the engine");
    // As it is, or as a string within another one's quotes.
    holds(/role\\?":\s?\\?"user/.test(text), "The role is not readable in the engine");
  });

  test("data of a newer format is refused, not guessed at", async (context) => {
    const tamper = need(context, subject.hooks.tamper, "tamper");
    const own = subject.namespace();
    const [key, other] = [subject.key(), subject.key()];
    const store = subject.open(own);
    await store.addMessages(key, [say("from the future")]);
    await store.addMessages(other, [say("from now")]);
    await tamper(own, '{"v":1,"role":"user","content":"from the future"', '{"v":2,"what":"?"');
    const reader = subject.open(own);
    await refused(reader.getMessages(key), "UNSUPPORTED_FORMAT", "A newer format was guessed at");
    same(texts(await reader.getMessages(other)), ["from now"], "Other sessions became unreadable");
  });

  test("altered text is found by who asks whether a session is whole", async (context) => {
    const own = subject.namespace();
    const key = subject.key();
    const store = subject.open(own);
    const toolCall = [{ id: "c", name: "search", input: { query: "kittens", "10": 1, a: [{}] } }];
    await store.addMessages(key, [
      say("before", { id: "before" }),
      say("owes 10 euros", { id: "altered" }),
      say("after", { id: "after", createdAt: new Date(5) }),
      { id: "call", role: "assistant", content: "", options: { toolCall } },
    ]);
    await store.updateMessage(key, "before", say("edited"));
    await store.setState(key, { facts: ["likes kittens"] });
    same(await store.verifySession(key), [], "A session that is whole is said to be damaged");
    const copy = subject.key();
    await store.forkSession(key, copy);
    same(await store.verifySession(copy), [], "A copy of a session is said to be damaged");
    await refused(store.verifySession(subject.key()), "SESSION_NOT_FOUND", "An absent session");
    const tamper = need(context, subject.hooks.tamper, "tamper");
    await store.deleteMessages(copy);
    await tamper(own, "owes 10 euros", "owes 99 euros");
    const found = await subject.open(own).verifySession(key);
    same(
      found.map(({ kind, id }) => [kind, id]),
      [["altered", "altered"]],
      "A message that is not what was written passes for whole, or others do not",
    );
  });

  test("damaged data is an error", async (context) => {
    const tamper = need(context, subject.hooks.tamper, "tamper");
    const own = subject.namespace();
    const key = subject.key();
    const store = subject.open(own);
    await store.addMessages(key, [say("before"), say("to be damaged"), say("after")]);
    await tamper(own, '"to be damaged"', "damaged");
    const reader = subject.open(own);
    const error = await refused(
      reader.getMessages(key),
      "CORRUPT_SESSION",
      "Damaged data was passed off as a conversation",
    );
    holds(error.message.length > 0, "The error does not say what is damaged");
  });
}

/** As `openai`, `@anthropic-ai/sdk`, Gemini, `ai`, the Agents SDK, LangChain and the Claude Agent SDK have them. */
const foreign: unknown[] = [
  { role: "assistant", content: null, refusal: null, tool_calls: [{ id: "1", type: "function" }] },
  { role: "tool", tool_call_id: "1", content: "sunny" },
  { role: "user", content: [{ text: "no type" }, "text", { type: "tool_result", content: [] }] },
  { role: "model", parts: [{ functionCall: { name: "f", args: {} } }, { text: "x" }] },
  { role: "user", content: { type: "text", text: "one part" } },
  { role: "assistant", parts: [{ type: "tool-f", state: "output-available" }], metadata: { n: 1 } },
  { type: "function_call", call_id: "1", name: "f", arguments: "{}", status: "completed" },
  { type: "reasoning", content: [], providerData: { encrypted: new Uint8Array([1]) } },
  { type: "human", data: { content: "x", additional_kwargs: {}, id: null } },
  { type: "user", uuid: "u", parentUuid: null, message: { role: "user", content: "x" } },
  { role: "x".repeat(64), content: "a long role", options: null, annotations: null },
  { role: "\0\ud800", content: "a strange role" },
];

/** Every shape of LlamaIndex's messages, and what breaks stores. */
function shapes(): Record<string, NewMessage[]> {
  const roles = ["user", "assistant", "system", "memory", "developer"] as const;
  const strings = [
    "",
    " ",
    "\0",
    "before\0after",
    "\ud800",
    "x\udfffy\ud800",
    "👩‍👩‍👧‍👦 🏳️‍🌈 \u{10ffff}",
    "é e\u0301 \u212b",
    "\u0001\u0007\u001b[31m\u007f",
    "\r\n\t\u2028\u2029\u0085",
    "\ufeffBOM\ufffe\uffff",
    "\\ \\\\ \\u0000 \\0 \\ud800",
    "~ ~\\u0000 ~~",
    "\"quotes\" 'single' `back`",
    "'; DROP TABLE messages; --",
    "%s %d $1 ? :name {{x}} $x <b>&amp;",
    "$where $$NOW $set a.b",
    '{"$":"text","value":"x"}',
    "مرحبا שלום 你好 नमस्ते",
    "a".repeat(100_000),
    "\u{1f600}".repeat(20_000),
  ];
  const call = { id: "call-1", name: "search", input: { query: "kittens", limit: 3 } };
  return {
    "every role": roles.map((role) => ({ role, content: role })),
    "every kind of part": [
      {
        role: "user",
        content: [
          { type: "text", text: "what is this?" },
          { type: "image_url", image_url: { url: "https://example.com/a.png?x=1&y=2" } },
          { type: "image_url", image_url: { url: "data:image/png;base64,AA==" }, detail: "high" },
          { type: "image", data: "AAECAw==", mimeType: "image/png" },
          { type: "audio", data: "", mimeType: "audio/wav" },
          { type: "video", data: "AAECAw==", mimeType: "video/mp4" },
          { type: "file", data: "AAECAw==", mimeType: "application/pdf" },
        ],
      },
      { role: "user", content: [] },
      { role: "user", content: [{ type: "text", text: "" }] },
      { role: "user", content: [{ type: "text", text: "\0\ud800" }] },
    ],
    "tool calls and results": [
      { role: "assistant", content: "", options: { toolCall: [call] } },
      { role: "assistant", content: "", options: { toolCall: [{ ...call, input: "partial {" }] } },
      { role: "assistant", content: "", options: { toolCall: [] } },
      {
        role: "user",
        content: "3 results",
        options: { toolResult: { id: "call-1", result: { ok: true, list: [1] }, isError: false } },
      },
    ],
    "every kind of text": strings.map((content) => ({ role: "user", content })),
    "values beyond JSON": [
      {
        role: "user",
        content: "values",
        options: {
          date: new Date("2026-02-28T23:59:59.999Z"),
          ancient: new Date(-8.64e15),
          invalid: new Date(Number.NaN),
          big: 2n ** 200n,
          negative: -1n,
          bytes: new Uint8Array([0, 1, 254, 255]),
          none: new Uint8Array(),
          map: new Map<unknown, unknown>([
            ["a", 1],
            [{ key: "object" }, new Set([1, "1", 1n])],
            [-0, undefined],
          ]),
          set: new Set<unknown>([[], {}, null]),
          undefined: undefined,
          null: null,
        },
        annotations: [undefined, null, new Date(0), 0n],
      },
    ],
    "messages of other frameworks": foreign as NewMessage[],
    "numbers to the last bit": [
      {
        role: "user",
        content: "numbers",
        options: {
          list: [
            0,
            -0,
            1e21,
            1e-7,
            5e-324,
            1.7976931348623157e308,
            0.1,
            0.30000000000000004,
            2 ** 53,
            2 ** 53 + 2,
            -(2 ** 63),
            4294967296,
            Number.NaN,
            Infinity,
            -Infinity,
            123456789.12345678,
          ],
        },
      },
    ],
    "every kind of key": [
      {
        role: "user",
        content: "keys",
        options: Object.fromEntries(
          [
            "__proto__",
            "constructor",
            "prototype",
            "toString",
            "toJSON",
            "hasOwnProperty",
            "$",
            "$where",
            "$set",
            "a.b",
            ".",
            "",
            " ",
            "0",
            "-1",
            "\0",
            "\ud800",
            "é",
            "e\u0301",
            "_id",
            "value",
            "v",
            "then",
          ].map((name) => [name, { [name === "__proto__" ? "x" : name]: name }]),
        ),
      },
    ],
    "what looks like the codec's own tags": [
      {
        role: "user",
        content: '{"$":"date","value":"2026-01-01T00:00:00.000Z"}',
        options: {
          tag: { $: "date", value: "2026-01-01T00:00:00.000Z" },
          nested: { $: { $: "undefined" } },
          unknown: { $: "nobody knows" },
          list: [{ $: "map", value: [["a", 1]] }],
        },
      },
    ],
    "annotations and fields that it does not know": [
      {
        role: "assistant",
        content: "x",
        annotations: [{ type: "sources", data: { nodes: [{ score: 0.25 }] } }, "text", 1],
        ...{ custom: { partial: true }, name: "bot", v: 9, extra: [1], data: "x", digest: "y" },
      },
      { role: "assistant", content: "x", annotations: [], options: {} },
    ],
    "times to the millisecond": [0, 1, -1, 253402300799999, 1767225600123].map((time) => ({
      role: "user",
      content: String(time),
      createdAt: new Date(time),
    })),
    "a photograph": [
      {
        role: "user",
        content: [{ type: "image", data: "Zm9v".repeat(500_000), mimeType: "image/jpeg" }],
      },
    ],
    "deep nesting": [
      {
        role: "user",
        content: "deep",
        options: Array.from({ length: 100 }).reduce<object>((inner) => ({ inner }), {}),
      },
    ],
  };
}
