import { isDeepStrictEqual } from "node:util";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  decodeMessage,
  decodeState,
  encodeMessage,
  encodeState,
  recordDigest,
} from "../src/codec.ts";
import * as errors from "../src/errors.ts";
import {
  ChatStoreError,
  CorruptSessionError,
  InvalidMessageError,
  LimitExceededError,
  type NewMessage,
  SerializationError,
  UnsupportedFormatError,
} from "../src/index.ts";

/** Any UTF-16, lone surrogates and NULs included. */
const text = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.array(fc.integer({ min: 0, max: 0xffff })).map((units) => String.fromCharCode(...units)),
  fc.constantFrom("$", "__proto__", "$where", "a.b", "\\u0000", "\0", "\ud800", "~", "constructor"),
);
const value = fc.letrec((tie) => ({
  any: fc.oneof(
    { maxDepth: 4 },
    text,
    fc.double(),
    fc.constantFrom(-0, 0, undefined, null, true, false, 2 ** 53 + 2, 5e-324),
    fc.bigInt(),
    fc.date({ noInvalidDate: true }), // two invalid dates are not deeply equal; see below
    fc.uint8Array(),
    fc.array(tie("any"), { maxLength: 4 }),
    fc.dictionary(text, tie("any"), { maxKeys: 4, noNullPrototype: true }),
    fc.array(fc.tuple(tie("any"), tie("any")), { maxLength: 3 }).map((pairs) => new Map(pairs)),
    fc.array(tie("any"), { maxLength: 3 }).map((items) => new Set(items)),
  ),
})).any;

/** What JSON carries, if not as it was. */
const carried = fc.letrec((tie) => ({
  any: fc.oneof(
    { maxDepth: 4 },
    text,
    fc.double(),
    fc.constantFrom(undefined, null, true),
    fc.date(),
    fc.array(tie("any"), { maxLength: 4 }),
    fc.dictionary(text, tie("any"), { maxKeys: 4 }),
  ),
})).any;

/** One value of each kind that has a tag. */
const kinds = {
  date: new Date(5),
  invalid: new Date(Number.NaN),
  big: 2n ** 70n,
  bytes: new Uint8Array([0, 255]),
  buffer: Buffer.from("hi"),
  map: new Map<unknown, unknown>([["a", new Set([1])]]),
  numbers: [-0, Number.NaN, Number.POSITIVE_INFINITY],
  nothing: undefined,
  text: "a\0b\ud800",
  keys: { $: 1, "\0": 2, __proto__: null },
};

const golden: [string, NewMessage][] = [
  ["ajFt1jed4FpbOMvSX394vs", { role: "user", content: "Hello" }],
  [
    "YPx6HvCC2HR7eEae8QE1gS",
    {
      role: "assistant",
      content: "",
      options: { toolCall: [{ id: "1", name: "f", input: { b: 1, a: "x" } }] },
    },
  ],
  [
    "CriAKKesFKt9HCMF9WE45w",
    {
      role: "user",
      content: "sunny",
      options: { toolResult: { id: "1", result: "sunny", isError: false } },
    },
  ],
  [
    "M5e-op2vKNI7fcCx9w8IqM",
    {
      role: "user",
      content: [{ type: "image", data: "AAEC", mimeType: "image/png" }],
      annotations: [1, null],
    },
  ],
  ["q8X6H8e0RoF8JsQH3SyQVo", { role: "user", content: "a\0b\ud800é" }],
  ["oi1e2m3hLncPn-Qfnw7P5I", { role: "user", content: "all", options: { kinds } }],
  [
    "x6EI3SH9R2TRNIyWphPVtM",
    { type: "function_call", call_id: "1", arguments: "{}" } as unknown as NewMessage,
  ],
];

class Money {
  amount = 1;
}

function revoked(): object {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
}

const now = new Date(1_700_000_000_000);
const say = (more: object): NewMessage => ({ role: "user", content: "hi", ...more }) as NewMessage;
const encode = (message: unknown) => encodeMessage(message as NewMessage, "messages[0]");

describe("codec", () => {
  test("gives back exactly what it was given", () => {
    fc.assert(
      fc.property(value, text, (given, content) => {
        const message = say({ id: "a", createdAt: now, content, options: { given }, more: given });
        const record = encode(message);
        expect(record.data.replaceAll("\\\\", "")).not.toMatch(/\\u0000|\\ud[89a-f]/);
        expect(isDeepStrictEqual(decodeMessage(record), message)).toBe(true);
        expect(isDeepStrictEqual(decodeState(encodeState(given, "x"), "x"), given)).toBe(true);
      }),
      { numRuns: 2_000 },
    );
  });

  test("gives back an invalid date, and writes well-formed JSON that every engine can query", () => {
    const record = encode(say({ options: { at: new Date(Number.NaN) }, content: "a\0b\ud800" }));
    expect((decodeMessage(record).options as { at: Date }).at.getTime()).toBeNaN();
    expect(record.data).toBe(
      '{"v":1,"role":"user","content":{"$":"text","value":"a\\\\u0000b\\\\ud800"},"options":{"at":{"$":"date","value":null}}}',
    );
  });

  test("gives back ids as they were", () => {
    fc.assert(
      fc.property(text, (id) => {
        fc.pre(id !== "");
        const record = encode(say({ id, createdAt: now }));
        expect(record.id.isWellFormed() && !record.id.includes("\0")).toBe(true);
        expect(decodeMessage(record).id).toBe(id);
      }),
    );
  });

  test("leaves role and text readable in the stored form", () => {
    expect(encode(say({ id: "a", createdAt: now })).data).toBe(
      '{"v":1,"role":"user","content":"hi"}',
    );
  });

  test("does not let a stored key change the prototype of what is read", () => {
    const hostile = JSON.parse('{"role":"user","content":"hi","__proto__":{"polluted":true}}');
    const back = decodeMessage(encode({ ...hostile, id: "a" }));
    expect(Object.getPrototypeOf(back)).toBe(Object.prototype);
    expect(Object.hasOwn(back, "__proto__")).toBe(true);
  });

  test("compares content, not the order of keys, nor a time, nor what JSON leaves out", () => {
    const digest = (more: object) => encode(say({ id: "a", ...more })).digest;
    expect(digest({ options: { a: 1, b: { c: 2, d: 3 } } })).toBe(
      digest({ options: { b: { d: 3, c: 2 }, a: 1 } }),
    );
    expect(digest({})).toBe(digest({ createdAt: now }));
    expect(digest({})).toBe(digest({ createdAt: now.toISOString(), more: undefined }));
    expect(digest({ options: { $: undefined, a: { b: undefined } } })).toBe(
      digest({ options: { a: {} } }),
    );
    expect(digest({ options: { b: 1, ["__proto__"]: undefined } })).toBe(
      digest({ options: { b: 1 } }),
    );
    expect(digest({ options: { $: 1, a: 2 } })).toBe(digest({ options: { a: 2, $: 1 } }));
    expect(digest({})).not.toBe(digest({ content: "ho" }));
    expect(digest({})).not.toBe(digest({ role: "assistant" }));
    expect(digest({ options: { a: 1 } })).not.toBe(digest({ options: { a: "1" } }));
    expect(digest({ options: {} })).not.toBe(digest({}));
    expect(digest({ options: { $: "bytes", value: "AA==" } })).not.toBe(
      digest({ options: new Uint8Array(1) }),
    );
  });

  test("compares what a browser gave back as what it was given", () => {
    fc.assert(
      fc.property(carried, (given) => {
        const record = encode(say({ id: "a", options: { given }, more: given }));
        const back = JSON.parse(JSON.stringify(decodeMessage(record)));
        expect(encode(back)).toEqual({ ...record, data: expect.anything() });
      }),
      { numRuns: 1_000 },
    );
  });

  test("finds the digest in what is stored", () => {
    fc.assert(
      fc.property(value, text, (given, content) => {
        const { data, digest } = encode(say({ content, options: { given }, more: given }));
        expect(recordDigest(data)).toBe(digest);
      }),
      { numRuns: 1_000 },
    );
  });

  // A digest that changed between releases would make every message that is sent again a duplicate.
  test.each(golden)("has the digest %s for ever", (digest, message) => {
    expect(encode(message).digest).toBe(digest);
  });

  test("keeps a Buffer, an object without a prototype, and values of another realm", () => {
    const realm = runInNewContext(
      "({ at: new Date(5), list: [{ a: 1 }], map: new Map([[1, 2]]), bytes: new Uint8Array([1]) })",
    );
    const bare = Object.assign(Object.create(null), { a: 1 });
    const options = { buffer: Buffer.from("hi"), bare, realm };
    const back = decodeMessage(encode(say({ options }))).options as typeof options;
    expect(Buffer.isBuffer(back.buffer) && back.buffer.equals(options.buffer)).toBe(true);
    expect(Object.getPrototypeOf(back.bare)).toBeNull();
    expect(back.bare["a"]).toBe(1);
    expect(back.realm).toStrictEqual({
      at: new Date(5),
      list: [{ a: 1 }],
      map: new Map([[1, 2]]),
      bytes: new Uint8Array([1]),
    });
  });

  test("takes a time as JSON carries it", () => {
    const time = (createdAt: unknown) => encode(say({ createdAt })).createdAt;
    expect(time("2023-11-14T22:13:20.000Z")).toBe(now.getTime());
    expect(time("2023-11-14T23:13:20+01:00")).toBe(now.getTime());
    expect(time(runInNewContext("new Date(5)"))).toBe(5);
    expect(time(null)).toBeGreaterThan(now.getTime());
  });

  test("encodes what is shared as often as it occurs, but stops at the limit, at once", () => {
    let shared: unknown = ["x"];
    for (let level = 0; level < 40; level++) shared = [shared, { shared }];
    const message = say({ options: { shared } });
    expect(() => encodeMessage(message, "messages[0]", 8 * 1024 * 1024)).toThrow(
      LimitExceededError,
    );
    const twice = { list: [1] };
    const { options } = decodeMessage(encode(say({ options: { a: twice, b: twice } })));
    expect(options).toEqual({ a: twice, b: twice });
    const many = Array.from({ length: 3_000 }, () => twice);
    expect(decodeMessage(encode(say({ options: many }))).options).toEqual(many);
  });

  test("stops at the limit before it copies a text, and takes long numbers in bounded time", () => {
    const content = "x".repeat(1_001);
    expect(() => encodeMessage(say({ content }), "messages[0]", 1_000)).toThrow(LimitExceededError);
    const big = -(1n << 3_000_000n);
    expect((decodeMessage(encode(say({ options: { big } }))).options as { big: bigint }).big).toBe(
      big,
    );
  });

  const cycle: Record<string, unknown> = {};
  cycle["self"] = cycle;
  test.each([
    [
      "a function",
      { options: { toolCall: [{ input: { callback: () => 1 } }] } },
      "messages[0].options.toolCall[0].input.callback",
    ],
    ["a symbol", { annotations: [Symbol("x")] }, "messages[0].annotations[0]"],
    ["a cycle", { options: cycle }, "messages[0].options.self"],
    ["a class instance", { options: { price: new Money() } }, "messages[0].options.price"],
    ["a promise", { options: { later: Promise.resolve() } }, "messages[0].options.later"],
    ["a hole", { options: { list: new Array(2) } }, "messages[0].options.list[0]"],
    ["a symbol as key", { options: { [Symbol("x")]: 1 } }, "messages[0].options"],
    [
      "a subclass of Array",
      { options: { list: new (class List extends Array {})() } },
      "messages[0].options.list",
    ],
    [
      "a subclass of Date",
      { options: { at: new (class Day extends Date {})() } },
      "messages[0].options.at",
    ],
    [
      "a subclass of Map",
      { options: { map: new (class Dict extends Map {})() } },
      "messages[0].options.map",
    ],
    [
      "a subclass of Uint8Array",
      { options: { b: new (class B extends Uint8Array {})() } },
      "messages[0].options.b",
    ],
    ["another typed array", { options: { b: new Float32Array(1) } }, "messages[0].options.b"],
    [
      "a property of an array",
      { options: { list: Object.assign([1], { x: 1 }) } },
      "messages[0].options.list.x",
    ],
    [
      "a property of a Map",
      { options: { map: Object.assign(new Map(), { x: 1 }) } },
      "messages[0].options.map.x",
    ],
    [
      "a property of bytes",
      { options: { b: Object.assign(new Uint8Array(1), { x: 1 }) } },
      "messages[0].options.b.x",
    ],
    ["an inherited property", { options: { o: Object.create({ x: 1 }) } }, "messages[0].options.o"],
    ["toJSON", { options: { toJSON: () => 1 } }, "messages[0].options.toJSON"],
    ["a boxed text", { options: { s: new String("x") } }, "messages[0].options.s"],
    [
      "a getter that throws",
      {
        options: {
          get x() {
            throw new Error("no");
          },
        },
      },
      "messages[0].options.x",
    ],
    ["a revoked proxy", { options: { p: revoked() } }, "messages[0].options.p"],
    ["a field that is a function", { say() {} }, "messages[0].say"],
  ])("refuses %s and names where it is", (_, more, path) => {
    expect(() => encode(say(more))).toThrow(SerializationError);
    expect(() => encode(say(more))).toThrow(
      expect.objectContaining({ code: "SERIALIZATION", path }),
    );
  });

  test("refuses what is nested too deeply instead of overflowing the stack", () => {
    let deep: unknown = 0;
    for (let i = 0; i < 100_000; i++) deep = [deep];
    expect(() => encode(say({ options: { deep } }))).toThrow(SerializationError);
  });

  test.each([
    { role: "tool", content: "sunny", tool_call_id: "c1" },
    { role: "assistant", content: null, tool_calls: [{ id: "c1", type: "function" }] },
    { role: "model", parts: [{ text: "Hello" }] },
    { role: "user", content: [{ text: "x" }, "y"] },
    { role: "user", content: { type: "text", text: "x" } },
    { role: "user", parts: [{ type: "text", text: "x" }], metadata: null },
    { type: "function_call_output", call_id: "c1", output: "sunny" },
    { type: "human", data: { content: "x", additional_kwargs: {} } },
    { role: "user", content: "x", options: null, annotations: null },
    { role: "\0\ud800", content: "x" },
  ])("takes another framework's message %j", (message) => {
    const { id, createdAt, ...back } = decodeMessage(encode(message));
    expect(back).toEqual(message);
  });

  test.each([
    [null, /null/],
    ["hi", /"hi"; give a plain object/],
    [[], /an array/],
    [Promise.resolve(), /await it/],
    [new Money(), /an instance of Money/],
    [{}, /neither a "role" nor a "type"/],
    [{ content: "x" }, /neither a "role" nor a "type"; give .*setState/],
    [{ type: "", content: "x" }, /neither/],
    [{ role: "", content: "x" }, /role is ""/],
    [{ role: "r".repeat(65), content: "x" }, /1 to 64 characters/],
    [{ role: null, type: "x" }, /role is null/],
    [{ role: "user", content: 7 }, /content is 7/],
    [say({ id: "" }), /id/],
    [say({ id: 7 }), /id is 7/],
    [say({ id: "x".repeat(513) }), /513 bytes/],
    [say({ createdAt: new Date(Number.NaN) }), /invalid date/],
    [say({ options: "x" }), /options is "x"/],
    [say({ annotations: {} }), /annotations is an object.*native/],
    [say({ createdAt: "2026-01-01" }), /ISO text with a time zone/],
    [say({ createdAt: "2026-13-01T00:00:00Z" }), /createdAt/],
    [say({ createdAt: 0 }), /createdAt is 0/],
  ])("refuses the message %j", (message, why) => {
    expect(() => encode(message)).toThrow(InvalidMessageError);
    expect(() => encode(message)).toThrow(why);
  });

  test("refuses a record of a newer format and one that is damaged", () => {
    const read = (data: string) => decodeMessage({ id: "a", digest: "", data, createdAt: 0 });
    expect(() => read('{"v":2,"role":"user","content":"hi"}')).toThrow(UnsupportedFormatError);
    for (const data of [
      '{"v":1}',
      '{"v":1,"content":"hi"}',
      '{"v":1,"role":5,"content":"hi"}',
      '{"v":1,"role":"user","content":7}',
      '{"v":1,"role":"user","kontent":"hi"}',
      '{"v":1,"role":"user","content":"hi","extra":"abc"}',
      '{"v":1,"role":"user","content":{"$":"bigint","value":"1x"}}',
      '{"v":1,"role":"user","content":{"$":"bigint"}}',
      '{"v":1,"role":"user","content":{"$":"text","value":7}}',
      '{"v":1,"role":"user","content":{"$":"map","value":{}}}',
      '{"v":1,"role":"user","content":{"$":"map","value":[[1]]}}',
      '{"v":1,"role":"user","content":{"$":"set","value":7}}',
      '{"v":1,"role":"user","content":{"$":"date","value":"yesterday"}}',
      '{"v":1,"role":"user","content":{"$":"bytes","value":"A*=="}}',
      '{"v":1,"role":"user","content":{"$":"object","value":[["a"]]}}',
      `{"v":1,"role":"user","content":{"$":"x","value":${"[".repeat(50_000)}${"]".repeat(50_000)}}}`,
      '{"v":1,"role',
      "null",
      '"x"',
      '{"role":"user"}',
      '{"v":1,"role":"user","content":{"$":"what"}}',
    ]) {
      expect(() => read(data)).toThrow(CorruptSessionError);
    }
  });

  test("reads damaged data as a message or as a typed error, whatever byte was damaged", () => {
    const damaged = [...golden.map(([, message]) => message), say({ options: { every: kinds } })];
    for (const message of damaged) {
      const { data } = encode(message);
      const bytes = Buffer.from(data);
      for (const [index, byte] of bytes.entries()) {
        for (const other of [byte ^ 1, byte ^ 0x20, 0x22, 0x7d, 0x30]) {
          bytes[index] = other;
          const outcomes = [
            () => decodeMessage({ id: "a", digest: "", data: bytes.toString(), createdAt: 0 }),
            () => recordDigest(bytes.toString()),
          ];
          for (const read of outcomes) {
            try {
              read();
            } catch (error) {
              if (!(error instanceof ChatStoreError)) throw error;
            }
          }
        }
        bytes[index] = byte;
      }
    }
  });
});

test("errors are named by their code, which a minifier leaves alone", () => {
  class a extends errors.VersionConflictError {}
  expect(new a("key", null, null).name).toBe("VersionConflictError");
  const options = { retryable: false, outcome: "unknown" } as const;
  const thrown = [
    new errors.InvalidSessionKeyError("key", "is empty"),
    new errors.InvalidMessageError("x"),
    new errors.InvalidOptionsError("x"),
    new errors.SerializationError("x", "y"),
    new errors.LimitExceededError("x", 1, 2, "y"),
    new errors.DuplicateMessageError("key", ["x"], "the batch"),
    new errors.MessageNotFoundError("key", ["x"]),
    new errors.SessionNotFoundError("key"),
    new errors.BackendError("x", options),
    new errors.TimeoutError("x", options),
    new errors.ClosedError(),
    new errors.CorruptSessionError("x"),
    new errors.UnsupportedFormatError("x"),
    new errors.SchemaError("x"),
    new errors.BackendNotInstalledError("x", "y"),
    new errors.BackendNotLoadedError("x", "y"),
    new errors.QueueFullError("x"),
  ];
  for (const error of thrown) expect(error.name).toBe(error.constructor.name);
});
