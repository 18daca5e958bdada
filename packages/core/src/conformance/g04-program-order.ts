import type { ChatStore } from "../chat-store.js";
import { memoryChatStore } from "../memory-backend.js";
import type { StoredMessage } from "../messages.js";
import { sessionKey } from "../session-key.js";
import type { Session, SessionInfo } from "../store-types.js";
import { holds, refused, same } from "./claims.js";
import { say, texts } from "./messages.js";
import type { Subject } from "./subject.js";
import { test } from "./tools.js";

/** Calls on one session through one handle take effect in call order, even when nobody awaits them. */
export function programOrdered(subject: Subject): void {
  const namespace = subject.namespace();

  test("messages that nobody awaits are stored in the order of the calls", async () => {
    const key = subject.key();
    const store = subject.open(namespace);
    const expected = Array.from({ length: 100 }, (_, index) => `m${index}`);
    for (const text of expected) void store.addMessage(key, say(text));
    same(
      texts(await store.getMessages(key)),
      expected,
      "An agent does not await its writes, and its next read lacks what it just said",
    );
  });

  test("the first calls of a store may come all at once", async () => {
    const store = subject.open(subject.namespace());
    const keys = Array.from({ length: 20 }, () => subject.key());
    await Promise.all(keys.map((key) => store.addMessages(key, [say("hello")])));
    const found = await Promise.all(keys.map((key) => store.getMessages(key)));
    same(
      found.map(({ length }) => length),
      keys.map(() => 1),
      "Requests that came while the store opened lost their messages",
    );
  });

  test("different calls in one go have the effect that they have one by one", async () => {
    const key = subject.key();
    const copy = subject.key();
    const steps: readonly ((store: ChatStore) => Promise<unknown>)[] = [
      (store) => store.addMessages(key, [say("a", { id: "a" }), say("b", { id: "b" })]),
      (store) => store.getMessages(key),
      (store) => store.setTitle(key, "one"),
      (store) => store.addMessage(key, say("c", { id: "c" })),
      (store) => store.deleteMessage(key, 0),
      (store) => store.getSession(key),
      (store) => store.addMessage(key, say("d", { id: "d" }), 1),
      (store) => store.updateMessage(key, "b", say("B")),
      (store) => store.getMessages(key, { last: 2 }),
      (store) => store.setState(key, { facts: 1 }),
      (store) => store.forkSession(key, copy),
      (store) => store.addMessage(key, say("e", { id: "e" })),
      (store) => store.readSession(copy),
      (store) => store.deleteMessagesAfter(key, "d"),
      (store) => store.addMessages(copy, [say("only in the copy", { id: "f" })]),
      (store) => store.readSession(key),
      (store) => store.setMessages(key, [say("z", { id: "z" })]),
      (store) =>
        store.replaceMessagesAfter(key, "z", [say("y", { id: "y" }), say("q", { id: "q" })]),
      (store) => store.deleteLastMessage(key),
      (store) => store.readSession(key),
      (store) => store.setTitle(key, null),
      (store) => store.deleteMessages(key),
      (store) => store.getSession(key),
      (store) => store.addMessages(key, [say("new", { id: "a" })]),
      (store) => store.readSession(key),
      (store) => store.readSession(copy),
    ];
    const reference = memoryChatStore();
    const expected: unknown[] = [];
    for (const step of steps) expected.push(timeless(await step(reference)));
    const store = subject.open(namespace);
    const results = await Promise.all(steps.map((step) => step(store)));
    for (const [index, result] of results.entries()) {
      same(
        timeless(result),
        expected[index],
        `Calls overtook each other: step ${index} of ${steps.length}, ${steps[index]}`,
      );
    }
  });

  test("what concerns all sessions of a user waits its turn", async () => {
    const user = subject.user();
    const key = sessionKey({ user, conversation: "a" });
    const store = subject.open(namespace);
    void store.addMessages(key, [say("first")]);
    const listed = store.listSessions({ user });
    const all = store.getKeys();
    same((await listed).sessions.length, 1, "A list lacks the session that was written before it");
    holds([...(await all)].includes(key), "getKeys() lacks the session that was written before it");
    void store.addMessages(sessionKey({ user, conversation: "b" }), [say("also")]);
    const erased = store.deleteSessions({ user });
    void store.addMessages(key, [say("second")]);
    const after = store.getMessages(key);
    same(await erased, 2, "A user's erasure missed what was written before it");
    same(texts(await after), ["second"], "A user's erasure took what was written after it");
  });

  test("a call that fails does not stop those behind it", async () => {
    const key = subject.key();
    const store = subject.open(namespace, { onError: () => {} });
    void store.addMessages(key, [say("a", { id: "a" })]);
    const failing = store.addMessages(key, [say("other", { id: "a" })]);
    void store.addMessages(key, [say("b")]);
    const read = store.getMessages(key);
    await refused(failing, "DUPLICATE_MESSAGE", "A wrong write was accepted");
    same(texts(await read), ["a", "b"], "A failed write took others with it");
  });

  test("a failed write that nobody awaits is heard of, and flush throws it", async () => {
    const key = subject.key();
    const heard: string[] = [];
    const store = subject.open(namespace, { onError: ({ code }) => heard.push(code) });
    void store.addMessages(key, [say("a", { id: "a" })]);
    void store.addMessages(key, [say("other", { id: "a" })]);
    await refused(store.flush(), "DUPLICATE_MESSAGE", "flush() did not tell that a write failed");
    same(heard, ["DUPLICATE_MESSAGE"], "onError was not told of a failed write");
    await store.flush();
  });
}

/** A result without what differs between two stores: versions and the engine's times. */
function timeless(result: unknown): unknown {
  if (typeof result !== "object" || result === null) return result;
  if (Array.isArray(result)) return result.map(timeless);
  const { version, createdAt, updatedAt, ...rest } = result as Partial<
    Session & SessionInfo & StoredMessage
  >;
  const { session, messages } = rest as { session?: object; messages?: unknown[] };
  return {
    ...rest,
    ...(session && { session: timeless(session) }),
    ...(messages && { messages: timeless(messages) }),
    absent: version === null,
  };
}
