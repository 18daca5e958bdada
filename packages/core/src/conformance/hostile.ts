/** Values that no caller should give, and that careless or malicious ones do. */
import type { Arbitrary } from "fast-check";
import type { ChatStore } from "../chat-store.js";
import { say } from "./messages.js";
import { fc } from "./tools.js";

/** Whatever is asked of it throws. */
export const throwing: ProxyHandler<object> = Object.fromEntries(
  Reflect.ownKeys(Reflect)
    .filter((name) => typeof name === "string")
    .map((name) => [
      name,
      () => {
        throw new Error("a trap");
      },
    ]),
);

const makers: readonly (() => unknown)[] = [
  ...[null, undefined, true, Number.NaN, -1, 0, 1.5, 1e9, Infinity, 2n ** 70n, Symbol("s")].map(
    (value) => () => value,
  ),
  ...["", "a", "\0", "\ud800", "x".repeat(100_000), "__proto__", "u:alice"].map(
    (text) => () => text,
  ),
  () => () => "x",
  () => [],
  () => [undefined],
  () => new Array(1e9),
  () => Object.assign([1, 2], { x: 1 }),
  () => ({}),
  () => ({ length: 1e9 }),
  () => ({ toString: 1 }),
  () => ({ toJSON: () => "x", valueOf: () => 1 }),
  () => Object.create(null),
  () => new Date(Number.NaN),
  () => new Map([[{}, 1]]),
  () => new Float64Array(3),
  () => Buffer.from("x"),
  () => /x/g,
  () => new Error("x"),
  () => Promise.resolve("x"),
  () => new (class Thing {})(),
  () => ({
    get x() {
      throw new Error("a getter");
    },
    get constructor() {
      throw new Error("a getter");
    },
  }),
  () => new Proxy({}, throwing),
  () => new Proxy([], throwing),
  () => {
    const { proxy, revoke } = Proxy.revocable([], {});
    revoke();
    return proxy;
  },
  () => {
    const cycle: Record<string, unknown> = {};
    cycle["self"] = cycle;
    return cycle;
  },
  () => {
    let shared: unknown = {};
    for (let level = 0; level < 40; level++) shared = { a: shared, b: [shared] };
    return shared;
  },
  () => {
    let deep: unknown = 0;
    for (let level = 0; level < 10_000; level++) deep = [deep];
    return deep;
  },
];

/** Makes a hostile value. Of each run its own: some change when they are looked at. */
export const hostileValue: Arbitrary<() => unknown> = fc.constantFrom(...makers);

const members = [
  ...[
    "ifVersion",
    "title",
    "state",
    "last",
    "before",
    "after",
    "limit",
    "cursor",
    "user",
    "tenant",
  ],
  ...["upTo", "messages", "createdAt", "updatedAt", "id", "lastN"],
];

/** Where a hostile value may be hidden. */
export const hostileWrappers: readonly ((value: unknown) => unknown)[] = [
  (value) => [value],
  ...members.map((name) => (value: unknown) => ({ [name]: value })),
  ...["role", "content", "options", "annotations", "id", "createdAt", "further"].map(
    (name) => (value: unknown) => ({ ...say("x"), [name]: value }),
  ),
  (value) => [say("x"), { ...say("x"), options: { deep: [value] } }],
  (value) => ({ messages: [say("x")], createdAt: new Date(0), updatedAt: new Date(0), x: value }),
];

type HostileCall = (store: ChatStore, key: string, value: never) => Promise<unknown>;

/** Every method, with a hostile argument in each place. Erasing is only asked for whom nobody is. */
export const hostileCalls: Readonly<Record<string, HostileCall>> = {
  "addMessage(key)": (store, _, value) => store.addMessage(value, say("x")),
  "addMessage(message)": (store, key, value) => store.addMessage(key, value),
  "addMessage(index)": (store, key, value) => store.addMessage(key, say("x"), value),
  "addMessages(messages)": (store, key, value) => store.addMessages(key, value),
  "addMessages(options)": (store, key, value) => store.addMessages(key, [say("x")], value),
  "setMessages(messages)": (store, key, value) => store.setMessages(key, value),
  "setMessages(options)": (store, key, value) => store.setMessages(key, [], value),
  "updateMessage(id)": (store, key, value) => store.updateMessage(key, value, say("x")),
  "updateMessage(message)": (store, key, value) => store.updateMessage(key, "a", value),
  "updateMessage(options)": (store, key, value) => store.updateMessage(key, "a", say("x"), value),
  "replaceMessagesAfter(id)": (store, key, value) => store.replaceMessagesAfter(key, value, []),
  "replaceMessagesAfter(messages)": (store, key, value) =>
    store.replaceMessagesAfter(key, null, value),
  "replaceMessagesAfter(options)": (store, key, value) =>
    store.replaceMessagesAfter(key, null, [], value),
  "deleteMessage(index)": (store, key, value) => store.deleteMessage(key, value),
  "deleteLastMessage(options)": (store, key, value) => store.deleteLastMessage(key, value),
  "deleteMessagesAfter(id)": (store, key, value) => store.deleteMessagesAfter(key, value),
  "deleteMessagesAfter(options)": (store, key, value) => store.deleteMessagesAfter(key, "a", value),
  "deleteMessages(key)": (store, _, value) => store.deleteMessages(value),
  "setState(entries)": (store, key, value) => store.setState(key, value),
  "setState(entry)": (store, key, value) => store.setState(key, { entry: value }),
  "setState(options)": (store, key, value) => store.setState(key, { x: 1 }, value),
  "setTitle(title)": (store, key, value) => store.setTitle(key, value),
  "setTitle(options)": (store, key, value) => store.setTitle(key, "x", value),
  "forkSession(from)": (store, key, value) => store.forkSession(value, key),
  "forkSession(to)": (store, key, value) => store.forkSession(key, value),
  "forkSession(options)": (store, key, value) => store.forkSession(key, `${key}2`, value),
  "importSession(session)": (store, key, value) => store.importSession(key, value),
  "getMessages(key)": (store, _, value) => store.getMessages(value),
  "getMessages(options)": (store, key, value) => store.getMessages(key, value),
  "getSession(key)": (store, _, value) => store.getSession(value),
  "verifySession(key)": (store, _, value) => store.verifySession(value),
  "readSession(options)": (store, key, value) => store.readSession(key, value),
  "listSessions(options)": (store, _, value) => store.listSessions(value),
  "listSessions(cursor)": (store, _, value) => store.listSessions({ cursor: value }),
  "listSessions(user)": (store, _, value) => store.listSessions({ user: value, limit: 1 }),
  "deleteSessions(scope)": (store, _, value) => store.deleteSessions(value),
};
