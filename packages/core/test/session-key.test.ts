import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  InvalidSessionKeyError,
  memoryChatStore,
  parseSessionKey,
  rawSessionKey,
  sessionKey,
} from "../src/index.ts";

/** Any string that a part may hold: no control characters, no lone surrogates, not empty, short enough. */
const part = fc.oneof(
  fc.string({ minLength: 1, maxLength: 20, unit: "grapheme" }),
  fc.string({ minLength: 1, maxLength: 20, unit: fc.constantFrom(..."%/{}:utc2F7BDaraw") }),
);
const valid = part.filter((text) => !/\p{Cc}/u.test(text));
const parts = fc.record(
  { tenant: valid, user: valid, conversation: valid },
  { requiredKeys: ["user"] },
);

describe("session keys", () => {
  test("are readable", () => {
    expect(sessionKey({ tenant: "acme", user: "alice", conversation: "support" })).toBe(
      "t:acme/u:alice/c:support",
    );
    expect(sessionKey({ user: "zoë@example.com" })).toBe("u:zoë@example.com");
    expect(rawSessionKey("legacy:42")).toBe("raw:legacy:42");
  });

  test("parse back to what they were made of, whatever it holds", () => {
    fc.assert(
      fc.property(parts, (given) => {
        expect(parseSessionKey(sessionKey(given))).toEqual(given);
      }),
      { numRuns: 1_000 },
    );
    fc.assert(
      fc.property(valid, (raw) => {
        expect(parseSessionKey(rawSessionKey(raw))).toEqual({ raw });
      }),
      { numRuns: 1_000 },
    );
  });

  test("never give two people one conversation", () => {
    fc.assert(
      fc.property(parts, parts, (one, other) => {
        const same = JSON.stringify(Object.entries(one)) === JSON.stringify(Object.entries(other));
        fc.pre(!same);
        expect(sessionKey(one)).not.toBe(sessionKey(other));
      }),
      { numRuns: 2_000 },
    );
    expect(sessionKey({ user: "a/c:b" })).not.toBe(sessionKey({ user: "a", conversation: "b" }));
    expect(sessionKey({ user: "a%2Fb" })).not.toBe(sessionKey({ user: "a/b" }));
    expect(rawSessionKey("u:a")).not.toBe(sessionKey({ user: "a" }));
  });

  test.each([
    [{ user: "" }, "user", /empty/],
    [{ tenant: "", user: "a" }, "tenant", /empty/],
    [{ user: "a", conversation: "" }, "conversation", /empty/],
    [{ user: "a\u0000b" }, "user", /control/],
    [{ user: "a\nb" }, "user", /control/],
    [{ user: "a\u0085b" }, "user", /control/],
    [{ user: "\ud800" }, "user", /surrogate/],
    [{ user: "é".repeat(256) }, "key", /514 bytes.*512/],
    [{ user: 7 }, "user", /number/],
    [{ user: null }, "user", /null/],
    [{}, "user", /undefined/],
    [null, "key", /parts/],
  ])("refuse %j and say which part and why", (given, which, why) => {
    const attempt = () => sessionKey(given as { user: string });
    expect(attempt).toThrow(InvalidSessionKeyError);
    expect(attempt).toThrow(expect.objectContaining({ code: "INVALID_SESSION_KEY", part: which }));
    expect(attempt).toThrow(why);
  });

  test.each([
    "chat_history",
    "",
    "alice",
    "u:",
    "u:a/",
    "u:a/c:",
    "t:a",
    "t:a/c:b",
    "u:a/c:b/c:d",
    "u:a%2fb",
    "u:%41",
    "u:a{b}",
    "raw:",
    "raw:a/b",
    `u:${"a".repeat(511)}`,
    "u:a\nb",
  ])("a store refuses %j, which no function returned", async (key) => {
    const store = memoryChatStore();
    await expect(store.getMessages(key)).rejects.toThrow(InvalidSessionKeyError);
    await expect(store.addMessage(key, { role: "user", content: "hi" })).rejects.toThrow(
      key === "chat_history" ? /LlamaIndex's default key, shared/ : InvalidSessionKeyError,
    );
    expect([...(await store.getKeys())]).toEqual([]);
  });
});
