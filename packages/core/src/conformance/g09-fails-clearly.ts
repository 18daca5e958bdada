import { setTimeout as delay } from "node:timers/promises";
import { inspect } from "node:util";
import type { BackendError, ChatStoreError, ErrorCode } from "../errors.js";
import type { ChatStoreOptions } from "../store-types.js";
import { forAll } from "./arbitraries.js";
import { calls } from "./calls.js";
import { holds, rejection, same, within } from "./claims.js";
import { forgedCursors } from "./cursors.js";
import { discreet } from "./discretion.js";
import { hostileCalls, hostileValue, hostileWrappers } from "./hostile.js";
import { lateCalls } from "./late-calls.js";
import { ids, say } from "./messages.js";
import { survivesLostAnswers } from "./outcomes.js";
import { secrets, tellsNoSecret } from "./secrets.js";
import { need, type Subject } from "./subject.js";
import { describe, fc, test } from "./tools.js";

/** Failures are typed errors, and nothing is swallowed. */
export function failsClearly(subject: Subject): void {
  const namespace = subject.namespace();

  const keyed = Object.entries(calls).filter(([, call]) => call.length === 2);
  test("a wrong key is refused by every method", async () => {
    const store = subject.open(namespace);
    const wrong = [
      "chat_history",
      "",
      "user1",
      "u:",
      "u:a/b",
      "u:a%2fb",
      "t:a",
      "u:a\0",
      "u:\ud800",
    ];
    for (const key of [...wrong, undefined, null, 42, {}]) {
      for (const [name, call] of keyed) {
        await fails(() => call(store, key as string), "INVALID_SESSION_KEY", `${name}(${key})`);
      }
    }
    const error = await rejection(store.getMessages("chat_history"), "A shared key is accepted");
    holds(
      error.message.includes("sessionKey("),
      "LlamaIndex's default key is refused without saying what to do",
    );
    for (const scope of [{ user: "" }, { user: "\0" }, { tenant: "", user: "a" }]) {
      await fails(() => store.listSessions(scope), "INVALID_SESSION_KEY", "listSessions");
      await fails(() => store.deleteSessions(scope), "INVALID_SESSION_KEY", "deleteSessions");
    }
    same([...(await store.getKeys())], [], "A refused call wrote something");
  });

  test("wrong arguments are refused before anything is written", async () => {
    const key = subject.key();
    const store = subject.open(namespace);
    await store.addMessages(key, [say("a", { id: "a" })]);
    const before = await store.readSession(key);
    const anything = (value: unknown) => value as never;
    const cases: readonly (readonly [ErrorCode, () => Promise<unknown>])[] = [
      ...[
        anything(null),
        anything("hello"),
        anything([]),
        anything(
          new (class Message {
            role = "user";
            content = "x";
          })(),
        ),
        anything({}),
        anything({ content: "x" }),
        anything({ role: "", content: "x" }),
        anything({ role: "r".repeat(65), content: "x" }),
        anything({ role: 5, type: "x" }),
        anything({ type: "" }),
        anything({ role: "user", content: 5 }),
        anything({ role: "user", content: "x", id: "" }),
        anything({ role: "user", content: "x", id: 5 }),
        anything({ role: "user", content: "x", id: "x".repeat(513) }),
        anything({ role: "user", content: "x", createdAt: "2026-01-01" }),
        anything({ role: "user", content: "x", createdAt: new Date(Number.NaN) }),
        anything({ role: "user", content: "x", createdAt: 1 }),
        anything({ role: "user", content: "x", options: "x" }),
        anything({ role: "user", content: "x", annotations: {} }),
      ].flatMap((message): [ErrorCode, () => Promise<unknown>][] => [
        ["INVALID_MESSAGE", () => store.addMessage(key, message)],
        ["INVALID_MESSAGE", () => store.addMessages(key, [say("x"), message])],
        ["INVALID_MESSAGE", () => store.setMessages(key, [message])],
      ]),
      ["INVALID_MESSAGE", () => store.addMessages(key, anything("hello"))],
      ["INVALID_MESSAGE", () => store.addMessages(key, anything(undefined))],
      ["INVALID_MESSAGE", () => store.updateMessage(key, "a", say("x", { id: "b" }))],
      ["INVALID_OPTIONS", () => store.addMessages(key, [], { ifVersion: anything(1) })],
      ...["", "a b", "a\0", "\ud800", "x".repeat(129)].map(
        (ifVersion): [ErrorCode, () => Promise<unknown>] => [
          "INVALID_OPTIONS",
          () => store.addMessages(key, [say("x")], { ifVersion }),
        ],
      ),
      ["INVALID_OPTIONS", () => store.addMessages(key, [], anything({ ifversion: null }))],
      ["INVALID_OPTIONS", () => store.setTitle(key, "x", anything({ title: "y" }))],
      ["INVALID_OPTIONS", () => store.getMessages(key, anything({ lastN: 1 }))],
      ["INVALID_OPTIONS", () => store.getMessages(key, anything("a"))],
      ["INVALID_OPTIONS", () => store.getMessages(key, { after: "x".repeat(513) })],
      ["INVALID_OPTIONS", () => store.listSessions(anything({ users: "alice" }))],
      ["INVALID_OPTIONS", () => store.listSessions(anything(undefined))],
      ["INVALID_OPTIONS", () => store.deleteSessions(anything({ user: "alice", thread: "1" }))],
      ["INVALID_OPTIONS", () => store.forkSession(key, subject.key(), anything({ upto: "a" }))],
      ["INVALID_OPTIONS", () => store.importSession(subject.key(), anything({ message: [] }))],
      ["INVALID_OPTIONS", () => store.deleteMessagesAfter(key, "")],
      ["INVALID_OPTIONS", () => store.replaceMessagesAfter(key, "", [say("x")])],
      ["INVALID_OPTIONS", () => store.setTitle(key, anything(5))],
      ["INVALID_OPTIONS", () => store.setState(key, anything(null))],
      ["INVALID_OPTIONS", () => store.setState(key, { "a b": 1 })],
      ["INVALID_OPTIONS", () => store.setState(key, { "": 1 })],
      ["INVALID_OPTIONS", () => store.setState(key, { __proto_: 1, $x: 1 })],
      ["SERIALIZATION", () => store.setState(key, { entry: { f: () => {} } })],
      ["INVALID_OPTIONS", () => store.getMessages(key, { last: -1 })],
      ["INVALID_OPTIONS", () => store.getMessages(key, { last: 1.5 })],
      ["INVALID_OPTIONS", () => store.getMessages(key, { last: 1, after: "a" })],
      ["INVALID_OPTIONS", () => store.getMessages(key, { before: "a", after: "a" })],
      ["INVALID_OPTIONS", () => store.getMessages(key, { before: "" })],
      ["INVALID_OPTIONS", () => store.listSessions({ limit: 0 })],
      ["INVALID_OPTIONS", () => store.listSessions({ limit: 1_001 })],
      ["INVALID_OPTIONS", () => store.listSessions({ cursor: "garbage" })],
      ["INVALID_OPTIONS", () => store.listSessions({ user: "alice", cursor: "garbage" })],
      ...forged().flatMap((cursor): [ErrorCode, () => Promise<unknown>][] => [
        ["INVALID_OPTIONS", () => store.listSessions({ cursor: anything(cursor) })],
        ["INVALID_OPTIONS", () => store.listSessions({ user: "alice", cursor: anything(cursor) })],
      ]),
      ["MESSAGE_NOT_FOUND", () => store.updateMessage(key, "gone", say("x"))],
      ["MESSAGE_NOT_FOUND", () => store.updateMessage(subject.key(), "gone", say("x"))],
      ["MESSAGE_NOT_FOUND", () => store.deleteMessagesAfter(key, "gone")],
      ["MESSAGE_NOT_FOUND", () => store.replaceMessagesAfter(key, "gone", [say("x")])],
      ["MESSAGE_NOT_FOUND", () => store.deleteMessagesAfter(subject.key(), "gone")],
      ["MESSAGE_NOT_FOUND", () => store.getMessages(key, { after: "gone" })],
      ["MESSAGE_NOT_FOUND", () => store.getMessages(key, { before: "gone", limit: 5 })],
      ["MESSAGE_NOT_FOUND", () => store.forkSession(key, subject.key(), { upTo: "gone" })],
      ["SESSION_NOT_FOUND", () => store.forkSession(subject.key(), subject.key())],
      ["VERSION_CONFLICT", () => store.forkSession(key, key)],
    ];
    for (const [code, call] of cases) await fails(call, code, String(call));
    same(await store.readSession(key), before, "A refused call changed the session");
  });

  test("an unknown option of the store is refused", () => {
    const unknown = { timeOut: 1_000 } as ChatStoreOptions;
    let code: unknown;
    try {
      subject.open(subject.namespace(), unknown);
    } catch (error) {
      code = (error as { code?: unknown }).code;
    }
    same(code, "INVALID_OPTIONS", "A misspelt option was ignored in silence");
  });

  test("a ttl that looks like seconds is warned of", () => {
    const heard: string[] = [];
    const onWarning = (warning: string) => heard.push(warning);
    subject.open(subject.namespace(), { ttl: 3_600, onWarning });
    same(heard.filter((warning) => warning.includes("ttl")).length, 1, "Nobody was warned");
    subject.open(subject.namespace(), { ttl: 60_000, onWarning });
    same(heard.length, 1, "A ttl of a minute was warned of");
  });

  test("any argument is taken or refused by a typed error", async () => {
    const [key, kept] = [subject.key(), subject.key()];
    const store = subject.open(namespace, { onError: () => {} });
    await store.addMessages(kept, [say("a", { id: "a" })]);
    const before = await store.readSession(kept);
    const methods = fc.constantFrom(...Object.entries(hostileCalls));
    const wrappers = fc.constantFrom(...hostileWrappers);
    const wrapped = fc.tuple(wrappers, hostileValue).map(
      ([wrap, make]) =>
        () =>
          wrap(make()),
    );
    await forAll(fc.tuple(methods, fc.oneof(hostileValue, wrapped)), 400, async ([call, make]) => {
      const [name, method] = call;
      const settled = await method(store, key, make() as never).then(
        () => undefined,
        (error: unknown) => error,
      );
      const { code, retryable } = (settled ?? {
        code: "INVALID_OPTIONS",
        retryable: false,
      }) as ChatStoreError;
      // The engine is there: a failure of it would be an argument that it was given unchecked.
      const isTyped = typeof retryable === "boolean" && code !== "BACKEND" && code !== "TIMEOUT";
      holds(isTyped, `${name} failed otherwise: ${inspect(settled)}`);
    });
    same(await store.readSession(kept), before, "A refused call changed another session");
  });

  describe("secrets", () => secrets(subject));

  forgedCursors(subject);
  lateCalls(subject);
  discreet(subject);

  describe("an engine that cannot be reached", () => {
    test("makes every method reject in time", async (context) => {
      const options = need(context, subject.unreachable, "unreachable");
      const timeout = 1_000;
      const store = subject.openWith({ ...options, timeout, onError: () => {} });
      await Promise.all(
        Object.entries(calls).map(async ([name, call]) => {
          const loss = `${name} on an engine that cannot be reached`;
          const error = await failure(call(store, subject.key()), timeout, loss);
          tellsNoSecret(error, loss);
        }),
      );
      await within(timeout + 9_000, store.close(), "close() of a store that never opened");
    });

    test("loses no write in silence", async (context) => {
      const options = need(context, subject.unreachable, "unreachable");
      const heard: string[] = [];
      const onError = ({ code }: { code: string }) => heard.push(code);
      const store = subject.openWith({ ...options, timeout: 500, onError });
      void store.addMessage(subject.key(), say("nobody awaits this"));
      const error = await rejection(store.flush(), "flush() said that a lost write is stored");
      holds(["BACKEND", "TIMEOUT"].includes(error.code), `flush() threw ${error.code}`);
      same(heard, [error.code], "onError was not told of a lost write");
    });
  });

  test("a store outlives an outage of its engine", async (context) => {
    const outage = need(context, subject.hooks.outage, "outage");
    const own = subject.namespace();
    const timeout = 1_000;
    const store = subject.open(own, { timeout, onError: () => {} });
    const key = subject.key();
    await store.addMessages(key, [say("before", { id: "before" })]);
    const lost = new Set<string>();
    await outage(own, async () => {
      const away = Object.entries(calls).filter(([name]) => name !== "open");
      await Promise.all(
        away.map(async ([name, call]) => {
          const loss = `${name} while the engine is away`;
          const error = await failure(call(store, subject.key()), timeout, loss);
          holds(error.retryable, `${loss}: it is worth repeating later, and does not say so`);
        }),
      );
      for (let n = 0; n < 3; n++) {
        const id = `during${n}`;
        const append = store.addMessages(key, [say(id, { id })]);
        const error = (await rejection(append, "A write during an outage")) as BackendError;
        if (error.outcome === "not-applied") lost.add(id);
      }
    });
    // Nobody opens it anew: the same handle works again, at the latest at a second try.
    await store.getMessages(key).catch(() => undefined);
    // What somebody kept back, against his word, comes as soon as the engine is there again.
    await delay(250);
    const found = ids(await subject.open(own).getMessages(key));
    same(found[0], "before", "An outage lost what was stored before it");
    same(
      found.filter((id) => lost.has(id)),
      [],
      "A write that was said not to have happened has happened",
    );
    const after = Array.from({ length: 3 }, (_, n) => say(`during${n}`, { id: `during${n}` }));
    await store.addMessages(key, after);
    same(
      ids(await store.getMessages(key))
        .filter((id) => id.startsWith("during"))
        .sort(),
      ["during0", "during1", "during2"],
      "Repeating the writes of an outage lost or doubled messages",
    );
  });

  describe("an answer that is lost, and the connection with it, does not harm", () =>
    survivesLostAnswers(subject));

  describe("cut connections", () => {
    test("do not lose, double or reorder appends, and the store recovers", async (context) => {
      const cut = need(context, subject.hooks.cutConnections, "cutConnections");
      const own = subject.namespace();
      const store = subject.open(own);
      const keys = Array.from({ length: 4 }, () => subject.key());
      const count = 60;
      await Promise.all(keys.map((key) => store.addMessages(key, [say("first", { id: "first" })])));
      const appends = keys.map(async (key) => {
        for (let n = 0; n < count; n++) {
          await store.addMessages(key, [say(`${n}`, { id: `${n}` })]);
          if (n % 20 === 10) await delay(5);
        }
      });
      const cuts = (async () => {
        for (let round = 0; round < 4; round++) {
          await delay(15);
          await cut(own);
        }
      })();
      await Promise.all([...appends, cuts]);
      const expected = ["first", ...Array.from({ length: count }, (_, n) => `${n}`)];
      for (const key of keys) {
        same(
          ids(await store.getMessages(key)),
          expected,
          "A broken connection lost, doubled or reordered messages",
        );
      }
    });

    test("under a call do not crash the process or leave the store unusable", async (context) => {
      const cut = need(context, subject.hooks.cutConnections, "cutConnections");
      const own = subject.namespace();
      const store = subject.open(own, { onError: () => {} });
      const key = subject.key();
      await store.addMessages(key, [say("a", { id: "a" }), say("b", { id: "b" })]);
      for (let round = 0; round < 5; round++) {
        const replaced = [say(`${round}`, { id: `${round}` })];
        const writes = [
          store.setMessages(key, replaced),
          store.setTitle(key, `${round}`),
          store.getMessages(key),
          store.listSessions({ user: "alice" }),
        ];
        await cut(own);
        for (const result of await Promise.allSettled(writes)) {
          holds(
            result.status === "fulfilled" || typeof result.reason.retryable === "boolean",
            "A broken connection threw the driver's own error",
          );
        }
        await store.setMessages(key, replaced);
        // Also one that nobody uses at the moment, with nobody there to hear of it.
        await cut(own);
        await delay(20);
        same(ids(await store.getMessages(key)), [`${round}`], "The store did not recover");
      }
    });
  });
}

/** Cursors that no list returned, as a client might send them. */
function forged(): unknown[] {
  const values = [
    [1.5],
    [1.5, "a"],
    ["\0"],
    [1, "\0"],
    [1e300, "a"],
    [null],
    {},
    [[]],
    [1, 2, 3, 4],
  ];
  return [
    ...values.map((value) => Buffer.from(JSON.stringify(value)).toString("base64url")),
    ...["", "\0", "a b", "\ud800", "x".repeat(5_000), 5, null, { length: 1e9 }, ["a"], () => "x"],
  ];
}

/** The error of a call to an engine that is away: in time, typed, and saying whether to try again. */
async function failure(
  call: Promise<unknown>,
  timeout: number,
  loss: string,
): Promise<ChatStoreError> {
  const error = await within(timeout + 9_000, rejection(call, loss), loss);
  holds(["BACKEND", "TIMEOUT"].includes(error.code), `${loss} failed otherwise: ${error.stack}`);
  holds(typeof error.retryable === "boolean", `${loss}: the error does not say \`retryable\``);
  return error;
}

/** The call returns a promise that rejects with this code, and does not throw. */
async function fails(call: () => Promise<unknown>, code: ErrorCode, what: string): Promise<void> {
  let promise: Promise<unknown>;
  try {
    promise = call();
  } catch (error) {
    throw new Error(`${what} threw at once instead of rejecting`, { cause: error });
  }
  const error = await rejection(promise, `${what} was accepted`);
  same(error.code, code, `${what} failed otherwise: ${error.stack}`);
  holds(error instanceof Error && error.message.length > 0, `${what}: an error without a message`);
  same(error.retryable, false, `${what}: a wrong call is not worth repeating`);
}
