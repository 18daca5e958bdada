/** Random messages, keys and values, as hostile as callers may be. */

import type { Arbitrary } from "fast-check";
import type { MessageContentPart, NewMessage } from "../messages.js";
import { type SessionKeyParts, sessionKey } from "../session-key.js";
import { fc } from "./tools.js";

/** How many times longer than usual to look, for nights and hunts. */
const effort = Number(process.env["CHATSTORE_CONFORMANCE_EFFORT"] ?? 1);
/** Milliseconds after which a property has been looked at enough, on a slow engine, and after which it is not shrunk further. */
const enough = Math.min(15_000 * effort, 50_000);
const shrunk = 70_000;

/** Check that a property holds for so many random values; what fails is shrunk to the smallest that does. */
export async function forAll<T>(
  values: Arbitrary<T>,
  runs: number,
  property: (value: T) => Promise<void>,
): Promise<void> {
  const start = performance.now();
  let failed = false;
  const limited = fc.asyncProperty(values, async (value) => {
    if (!failed && performance.now() - start > enough) return;
    try {
      await property(value);
    } catch (error) {
      failed = true;
      throw error;
    }
  });
  await fc.assert(limited, {
    numRuns: runs * effort,
    interruptAfterTimeLimit: shrunk,
    includeErrorInReport: true,
  });
}

/** An object without a prototype comes back with the ordinary one: it is no other value. */
function plain<T>(members: { [Name in keyof T]: Arbitrary<T[Name]> }): Arbitrary<T> {
  return fc.record(members, { noNullPrototype: true }) as Arbitrary<T>;
}

/** Any JavaScript string: all planes, NUL, lone surrogates, and what codecs and engines treat specially. */
export const anyString: Arbitrary<string> = fc.oneof(
  fc.string({ unit: "grapheme" }),
  fc.string({ unit: fc.integer({ min: 0, max: 0xffff }).map((code) => String.fromCharCode(code)) }),
  fc.constantFrom(
    "",
    "\0",
    "a\0b",
    "\ud800",
    "\udc00\ud800",
    "~",
    "~\\u0000",
    "\\u0000",
    "$",
    "$where",
    "$$NOW",
    "a.b",
    "__proto__",
    '{"$":"text"}',
    "\u2028",
    "\ufeff",
    "é",
    "e\u0301",
    "%00",
    "'; DROP TABLE messages; --",
    "\r\n",
  ),
);

const propertyName = fc.oneof(
  anyString,
  fc.constantFrom("$", "__proto__", "constructor", "toString", "a.b", "", "value", "v", "id", "0"),
);

/** Any value that can be kept exactly. */
export const anyValue: Arbitrary<unknown> = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    anyString,
    fc.double(),
    fc.integer(),
    fc.constantFrom(-0, Number.NaN, Infinity, -Infinity, Number.MAX_SAFE_INTEGER + 2, 5e-324),
    fc.boolean(),
    fc.constantFrom(null, undefined),
    fc.bigInt(),
    fc.date(),
    fc.uint8Array({ maxLength: 20 }),
    tie("array"),
    tie("object"),
    fc.array(fc.tuple(tie("value"), tie("value")), { maxLength: 3 }).map((list) => new Map(list)),
    fc.array(tie("value"), { maxLength: 3 }).map((list) => new Set(list)),
  ),
  array: fc.array(tie("value"), { maxLength: 4 }),
  object: fc
    .array(fc.tuple(propertyName, tie("value")), { maxLength: 4 })
    // fromEntries defines `__proto__` as a property; a literal would set the prototype.
    .map((list) => Object.fromEntries(list)),
})).value;

const base64 = fc
  .uint8Array({ maxLength: 30 })
  .map((bytes) => Buffer.from(bytes).toString("base64"));

const part: Arbitrary<MessageContentPart> = fc.oneof(
  plain({ type: fc.constant("text" as const), text: anyString }),
  fc.record(
    {
      type: fc.constant("image_url" as const),
      image_url: plain({ url: fc.oneof(fc.webUrl(), anyString) }),
      detail: fc.constantFrom("high" as const, "low" as const, "auto" as const),
    },
    { requiredKeys: ["type", "image_url"], noNullPrototype: true },
  ),
  plain({
    type: fc.constantFrom("audio" as const, "video" as const, "image" as const, "file" as const),
    data: base64,
    mimeType: fc.constantFrom("image/png", "audio/wav", "application/pdf"),
  }),
);

const toolCall = plain({ id: anyString, name: anyString, input: anyValue });
const toolResult = plain({ id: anyString, result: anyString, isError: fc.boolean() });

const options = fc.oneof(
  plain({ toolCall: fc.array(toolCall, { maxLength: 3 }) }),
  plain({ toolResult }),
  fc
    .array(fc.tuple(propertyName, anyValue), { maxLength: 3 })
    .map((list) => Object.fromEntries(list)),
);

/** LlamaIndex's messages of all shapes, without ids. */
export const anyLlamaIndexMessage: Arbitrary<NewMessage> = fc.record(
  {
    role: fc.constantFrom("user", "assistant", "system", "memory", "developer"),
    content: fc.oneof(anyString, fc.array(part, { maxLength: 4 })),
    options,
    createdAt: fc.date({ noInvalidDate: true }),
    annotations: fc.array(anyValue, { maxLength: 3 }),
  },
  { requiredKeys: ["role", "content"], noNullPrototype: true },
);

/** Another framework's: any role or a type, any content, further fields. */
const foreignMessage = fc
  .tuple(
    fc.record(
      {
        role: anyString.filter((role) => role !== "" && role.length <= 64),
        content: fc.oneof(fc.constant(null), anyString, fc.array(anyValue, { maxLength: 3 })),
        parts: fc.array(anyValue, { maxLength: 3 }),
        name: anyString,
      },
      { requiredKeys: [], noNullPrototype: true },
    ),
    fc.constantFrom("function_call", "human", "user"),
  )
  .map(([fields, type]) => ({ type, ...fields }) as unknown as NewMessage);

/** Messages of all shapes, without ids. */
export const anyMessage: Arbitrary<NewMessage> = fc.oneof(
  { weight: 3, arbitrary: anyLlamaIndexMessage },
  { weight: 1, arbitrary: foreignMessage },
);

/** An id that a caller may choose. */
export const anyId: Arbitrary<string> = anyString.filter((id) => id !== "" && id.length < 60);

/** A part of a session key: no control characters, no lone surrogates, not empty. */
const keyPart = fc.oneof(
  fc.constantFrom(
    "user1",
    "user10",
    "a/b",
    "a%2Fb",
    "__proto__",
    "*",
    "%",
    "_",
    "{a}",
    "é",
    "e\u0301",
  ),
  fc
    .string({ unit: "grapheme", minLength: 1, maxLength: 20 })
    // biome-ignore lint/suspicious/noControlCharactersInRegex: keys may not hold them
    .filter((text) => !/[\u0000-\u001f\u007f-\u009f]/.test(text)),
);

/** The parts of a session key. */
export const anyKeyParts: Arbitrary<SessionKeyParts> = fc
  .record({ tenant: keyPart, user: keyPart, conversation: keyPart }, { requiredKeys: ["user"] })
  .filter((parts) => {
    try {
      return sessionKey(parts) !== "";
    } catch {
      return false;
    }
  });
