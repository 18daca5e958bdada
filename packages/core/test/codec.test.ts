import { isDeepStrictEqual } from "node:util";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decodeMessage, decodeState, encodeMessage, encodeState } from "../src/codec.ts";
import {
  CorruptSessionError,
  InvalidMessageError,
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

  test("compares content, not the order of keys nor a time that it filled in", () => {
    const digest = (more: object) => encode(say({ id: "a", ...more })).digest;
    expect(digest({ options: { a: 1, b: { c: 2, d: 3 } } })).toBe(
      digest({ options: { b: { d: 3, c: 2 }, a: 1 } }),
    );
    expect(digest({})).toBe(digest({ createdAt: undefined }));
    expect(digest({})).not.toBe(digest({ createdAt: now }));
    expect(digest({})).not.toBe(digest({ content: "ho" }));
    expect(digest({})).not.toBe(digest({ role: "assistant" }));
    expect(digest({ options: { a: 1 } })).not.toBe(digest({ options: { a: "1" } }));
    expect(digest({ options: {} })).not.toBe(digest({}));
  });

  const cycle: Record<string, unknown> = {};
  cycle["self"] = cycle;
  class Money {
    amount = 1;
  }
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
    [null, /null/],
    ["hi", /string/],
    [{ role: "tool", content: "x" }, /role is "tool"/],
    [{ role: "user", content: null }, /content is null/],
    [{ role: "user", content: [{ text: "x" }] }, /content\[0\]/],
    [say({ id: "" }), /id/],
    [say({ id: 7 }), /id is 7/],
    [say({ id: "x".repeat(513) }), /513 bytes/],
    [say({ createdAt: new Date(Number.NaN) }), /invalid date/],
    [say({ createdAt: "2026-01-01" }), /createdAt/],
    [say({ options: null }), /options is null/],
    [say({ annotations: {} }), /annotations is an object/],
  ])("refuses the message %j", (message, why) => {
    expect(() => encode(message)).toThrow(InvalidMessageError);
    expect(() => encode(message)).toThrow(why);
  });

  test("refuses a record of a newer format and one that is damaged", () => {
    const read = (data: string) => decodeMessage({ id: "a", digest: "", data, createdAt: 0 });
    expect(() => read('{"v":2,"role":"user","content":"hi"}')).toThrow(UnsupportedFormatError);
    for (const data of [
      '{"v":1,"role',
      "null",
      '"x"',
      '{"role":"user"}',
      '{"v":1,"role":"user","content":{"$":"what"}}',
    ]) {
      expect(() => read(data)).toThrow(CorruptSessionError);
    }
  });
});
