import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { hostileValue, hostileWrappers } from "../src/conformance/hostile.ts";
import {
  ChatStoreError,
  createChatStore,
  decodeCursor,
  encodeCursor,
  InvalidOptionsError,
  InvalidSessionKeyError,
  MemoryBackend,
  memoryChatStore,
  parseSessionKey,
  rawSessionKey,
  recordDigest,
  sessionKey,
} from "../src/index.ts";

type Takes = (value: never) => unknown;

/** What is called without a store, or to make one. */
const functions: Readonly<Record<string, Takes>> = {
  sessionKey,
  "sessionKey of a user": (user) => sessionKey({ user }),
  "sessionKey of a conversation": (conversation) => sessionKey({ user: "a", conversation }),
  parseSessionKey,
  rawSessionKey,
  memoryChatStore,
  "memoryChatStore by name": (name) => memoryChatStore({ name }),
  "memoryChatStore by url": (url) => memoryChatStore({ url }),
  "memoryChatStore with limits": (limits) => memoryChatStore({ limits }),
  "memoryChatStore with a timeout": (timeout) => memoryChatStore({ timeout }),
  "memoryChatStore with a migrate": (migrate) => memoryChatStore({ migrate }),
  "a shared memoryChatStore": (name) => memoryChatStore({ shared: true, name }),
  "memoryChatStore that is shared": (shared) => memoryChatStore({ shared }),
  createChatStore: (options) => createChatStore("memory", options, {}, () => new MemoryBackend()),
  encodeCursor,
  "decodeCursor of a cursor": (cursor) => decodeCursor(cursor, ["string"]),
  recordDigest,
};

describe("any argument is taken or refused by a typed error", () => {
  test.each(Object.entries(functions))("%s", (_, call) => {
    const wrapped = fc.tuple(fc.constantFrom(...hostileWrappers), hostileValue).map(
      ([wrap, make]) =>
        () =>
          wrap(make()),
    );
    fc.assert(
      fc.property(fc.oneof(hostileValue, wrapped), (make) => {
        try {
          call(make() as never);
        } catch (error) {
          if (!(error instanceof ChatStoreError)) throw error;
        }
      }),
      { numRuns: 500 },
    );
  });
});

test("unknown names are refused, and said", () => {
  const wrong = { conversatoin: "1" } as object;
  expect(() => sessionKey({ user: "alice", ...wrong })).toThrow(InvalidSessionKeyError);
  expect(() => sessionKey({ user: "alice", ...wrong })).toThrow(/no part "conversatoin".*user/);
  expect(() => memoryChatStore({ ...wrong })).toThrow(InvalidOptionsError);
  expect(() => memoryChatStore({ ...wrong })).toThrow(/memory store have no "conversatoin"/);
  expect(() => memoryChatStore({ limits: { messageByte: 1 } as object })).toThrow(/messageByte/);
});

test("shared options may differ in their order, and functions in them have no identity", () => {
  const name = "shared order";
  expect(memoryChatStore({ shared: true, name, timeout: 9 })).toBe(
    memoryChatStore({ timeout: 9, name, shared: true }),
  );
  const token = { shared: true, pool: { password: () => "x" } };
  const make = () => createChatStore("x", token, { pool: true }, () => new MemoryBackend());
  expect(make).toThrow(/plain data, but options.pool.password is a function/);
});

test("a cursor holds whole numbers and texts that every engine can hold", () => {
  const cursor = (values: unknown) => Buffer.from(JSON.stringify(values)).toString("base64url");
  expect(decodeCursor(encodeCursor([1, "a"]), ["number", "string"])).toEqual([1, "a"]);
  for (const forged of [[1.5, "a"], [1e300, "a"], [1, "\0"], [1, "\ud800"], ["1", "a"], [1]]) {
    expect(() => decodeCursor(cursor(forged), ["number", "string"])).toThrow(InvalidOptionsError);
  }
  expect(() => decodeCursor(`${encodeCursor([1])}!`, ["number"])).toThrow(InvalidOptionsError);
});
