import { setTimeout as delay } from "node:timers/promises";
import type { ChatStore } from "../chat-store.js";
import type { NewMessage } from "../messages.js";
import type { SessionKey } from "../session-key.js";
import type { SessionInfo } from "../store-types.js";
import { forAll } from "./arbitraries.js";
import { holds, refused, same } from "./claims.js";
import { listAll } from "./lists.js";
import { abcde, ids, say, stored, texts } from "./messages.js";
import type { Subject } from "./subject.js";
import { describe, fc, test } from "./tools.js";

/** What the methods that read and change a session mean, beyond the guarantees. */
export function sessions(subject: Subject): void {
  const namespace = subject.namespace();

  describe("a session", () => {
    test("exists from its first change until it is erased", async () => {
      const store = subject.open(namespace);
      const begins: Readonly<Record<string, (key: SessionKey) => Promise<unknown>>> = {
        addMessage: (key) => store.addMessage(key, say("x")),
        addMessages: (key) => store.addMessages(key, [say("x")]),
        setMessages: (key) => store.setMessages(key, [say("x")]),
        "setMessages to nothing": (key) => store.setMessages(key, []),
        setTitle: (key) => store.setTitle(key, "x"),
        setState: (key) => store.setState(key, { x: 1 }),
      };
      for (const [name, begin] of Object.entries(begins)) {
        const key = subject.key();
        same(await store.readSession(key), { session: undefined, messages: [] }, "It is not new");
        await begin(key);
        holds((await store.getSession(key)) !== undefined, `${name} did not begin a session`);
        const listed = await listAll(store, { tenant: "acme", user: userOf(key) });
        same(
          listed.map((one) => one.key),
          [key],
          `A session begun by ${name} is not listed`,
        );
        await store.deleteMessages(key);
        same(
          await store.readSession(key),
          { session: undefined, messages: [] },
          "deleteMessages left the session",
        );
        same(
          await listAll(store, { tenant: "acme", user: userOf(key) }),
          [],
          "deleteMessages left the session in the list",
        );
      }
    });

    test("emptied by setMessages stays, with title and state", async () => {
      const key = subject.key();
      const store = subject.open(namespace);
      await store.addMessages(key, abcde);
      await store.setTitle(key, "Kittens");
      await store.setState(key, { facts: 1 });
      const result = await store.setMessages(key, []);
      const { session, messages } = await store.readSession(key);
      same(
        [messages, session?.messageCount, session?.title, session?.state, session?.version],
        [[], 0, "Kittens", { facts: 1 }, result.version],
        "An emptied session lost more than its messages",
      );
      await store.deleteMessages(key);
      await store.addMessages(key, abcde);
      const again = await store.getSession(key);
      same([again?.title, again?.state], [undefined, {}], "Title or state outlived the session");
    });

    test("emptied message by message stays", async () => {
      const key = subject.key();
      const store = subject.open(namespace);
      await store.addMessages(key, abcde.slice(0, 2));
      same((await store.deleteLastMessage(key)).messageCount, 1, "Undo removed the wrong number");
      same((await store.deleteLastMessage(key)).messageCount, 0, "Undo removed the wrong number");
      const before = await store.getSession(key);
      same(before?.messageCount, 0, "A session without messages vanished");
      same(
        await store.deleteLastMessage(key),
        { version: before?.version, messageCount: 0 },
        "Undo in an empty session is no no-op",
      );
      await store.addMessages(key, [say("again")]);
      same(texts(await store.getMessages(key)), ["again"], "An empty session takes no messages");
    });

    test("keeps its time of creation; every change moves the time of the last one", async () => {
      const key = subject.key();
      const store = subject.open(namespace);
      await store.addMessages(key, abcde);
      const first = await store.getSession(key);
      const clock = Math.abs(Number(first?.createdAt) - Date.now());
      holds(clock < 10 * 60_000, `A new session was created ${clock} ms from now`);
      same(first?.createdAt, first?.updatedAt, "A new session was changed before it was created");
      let last = first as SessionInfo;
      const changes: readonly (() => Promise<unknown>)[] = [
        () => store.addMessages(key, [say("x")]),
        () => store.setTitle(key, "Kittens"),
        () => store.setState(key, { x: 1 }),
        () => store.updateMessage(key, "a", say("A")),
        () => store.deleteLastMessage(key),
        () => store.setMessages(key, abcde),
      ];
      for (const change of changes) {
        await delay(5);
        await change();
        const session = (await store.getSession(key)) as SessionInfo;
        same(session.createdAt, first?.createdAt, `${change} changed the time of creation`);
        holds(session.updatedAt > last.updatedAt, `${change} did not move the time of change`);
        last = session;
        await delay(5);
        await store.getMessages(key);
        same((await store.getSession(key))?.updatedAt, last.updatedAt, "Reading moved the time");
      }
    });
  });

  describe("positions", () => {
    const positions = [0, 1, 2, 4, 5, 6, 100, -1, -2, -5, -6, -100, 1.7, -1.2];
    const strange = [Number.NaN, Infinity, -Infinity, -0];

    test("to insert at follow Array.splice", async () => {
      const store = subject.open(namespace);
      for (const length of [0, 1, 5]) {
        for (const index of [...positions, ...strange]) {
          const key = subject.key();
          await store.setMessages(key, abcde.slice(0, length));
          const expected = ["a", "b", "c", "d", "e"].slice(0, length);
          expected.splice(index, 0, "new");
          const result = await store.addMessage(key, say("x", { id: "new" }), index);
          const { session, messages } = await store.readSession(key);
          same(ids(messages), expected, `Insertion at ${index} of ${length} went elsewhere`);
          same(
            result,
            { version: session?.version, messageCount: length + 1 },
            "Insertion returned another version or count",
          );
        }
      }
    });

    test("to remove at follow Array.splice", async () => {
      const store = subject.open(namespace);
      for (const length of [0, 1, 5]) {
        for (const index of [...positions, ...strange]) {
          const key = subject.key();
          await store.setMessages(key, abcde.slice(0, length));
          const expected = ["a", "b", "c", "d", "e"].slice(0, length);
          expected.splice(index, 1);
          const { messageCount } = await store.deleteMessage(key, index);
          same(
            ids(await store.getMessages(key)),
            expected,
            `Removal at ${index} of ${length} hit another message`,
          );
          same(messageCount, expected.length, "Removal returned a wrong count");
        }
      }
    });

    test("of an absent session", async () => {
      const [inserted, removed] = [subject.key(), subject.key()];
      const store = subject.open(namespace);
      await store.addMessage(inserted, say("x"), 3);
      same(texts(await store.getMessages(inserted)), ["x"], "Insertion did not begin a session");
      await store.deleteMessage(removed, 0);
      same(await store.getSession(removed), undefined, "Removal began a session");
    });
  });

  describe("reading", () => {
    test("the newest, and pages, agree with slices of the whole", async () => {
      const key = subject.key();
      const store = subject.open(namespace);
      await store.addMessages(key, abcde);
      await store.setTitle(key, "Kittens");
      const session = await store.getSession(key);
      const whole = abcde.map((message) => stored(message));
      const limits = [undefined, 0, 1, 2, 5, 6, 1_000_000];
      for (const limit of limits) {
        const most = limit ?? Infinity;
        const expected: [Parameters<ChatStore["readSession"]>[1], typeof whole][] = [
          [{ limit }, whole.slice(0, most)],
          [{ last: limit }, whole.slice(Math.max(0, 5 - most))],
          ...abcde.flatMap(({ id }, index): [object, typeof whole][] => [
            [{ after: id, limit }, whole.slice(index + 1, index + 1 + most)],
            [{ before: id, limit }, whole.slice(Math.max(0, index - most), index)],
          ]),
        ];
        for (const [options, messages] of expected) {
          same(
            await store.readSession(key, options),
            { session, messages },
            `The wrong page for ${JSON.stringify(options)}`,
          );
        }
      }
    });

    test("each half alone agrees with both", async () => {
      const key = subject.key();
      const store = subject.open(namespace);
      await store.addMessages(key, abcde);
      await store.setState(key, { facts: [1] });
      const both = await store.readSession(key);
      same(await store.getSession(key), both.session, "getSession disagrees with readSession");
      same(await store.getMessages(key), both.messages, "getMessages disagrees with readSession");
    });

    test.each<[string, (store: ChatStore, key: SessionKey) => Promise<unknown>]>([
      ["reads", (store, key) => store.getMessages(key)],
      ["writes", (store, key) => store.addMessages(key, [say("a", { id: "a" })])],
    ])("who %s in a loop leaves everybody else their turn", async (does, call) => {
      const key = subject.key();
      const store = subject.open(namespace);
      await store.addMessages(key, [say("a", { id: "a" })]);
      same(ids(await store.getMessages(key)), ["a"], "A message is not there");
      let hadTurn = false;
      setTimeout(() => {
        hadTurn = true;
      }, 1);
      // On an engine that answers at once, no call need wait for the event loop.
      const begin = performance.now();
      while (!hadTurn && performance.now() - begin < 5_000) await call(store, key);
      holds(
        hadTurn,
        `Nothing else ran in the process for 5 seconds while somebody ${does} in a loop`,
      );
    });

    test("ids and times that core made are unique and of now", async () => {
      const key = subject.key();
      const store = subject.open(namespace);
      await store.addMessages(key, [say("x"), say("y")]);
      await store.setMessages(key, [...(await store.getMessages(key)), say("z")]);
      const messages = await store.getMessages(key);
      same(new Set(ids(messages)).size, 3, "Messages without ids were given equal ones");
      for (const { createdAt } of messages) {
        holds(Math.abs(+createdAt - Date.now()) < 60_000, "A message is not stamped with now");
      }
    });
  });

  describe("editing", () => {
    test("updateMessage keeps place, id and, unless given, the time", async () => {
      const key = subject.key();
      const store = subject.open(namespace);
      await store.addMessages(key, abcde);
      await store.updateMessage(key, "b", {
        role: "assistant",
        content: "edited",
        options: { x: 1 },
      });
      await store.updateMessage(key, "c", say("edited", { id: "c", createdAt: new Date(5) }));
      const expected = abcde.map((message) => stored(message));
      expected[1] = stored({
        ...(abcde[1] as NewMessage),
        role: "assistant",
        content: "edited",
        options: { x: 1 },
      });
      expected[2] = stored(say("edited", { id: "c", createdAt: new Date(5) }));
      same(await store.getMessages(key), expected, "Editing a message moved or mixed it");
    });

    test("deleteMessagesAfter keeps the message and what is before it", async () => {
      const key = subject.key();
      const store = subject.open(namespace);
      await store.addMessages(key, abcde);
      same((await store.deleteMessagesAfter(key, "c")).messageCount, 3, "It left a wrong number");
      same(ids(await store.getMessages(key)), ["a", "b", "c"], "The wrong messages are left");
      await store.deleteMessagesAfter(key, "a");
      same(ids(await store.getMessages(key)), ["a"], "The wrong messages are left");
    });

    test("setMessages takes what getMessages gave", async () => {
      const key = subject.key();
      const store = subject.open(namespace);
      await store.addMessages(key, [...abcde, say("without id")]);
      const before = await store.getMessages(key);
      await store.setMessages(key, before);
      same(await store.getMessages(key), before, "Writing back what was read changed it");
      await store.setMessages(key, before.toReversed());
      same(await store.getMessages(key), before.toReversed(), "The order was not replaced");
      same(await store.addMessages(key, abcde), await resultOf(store, key), "It is no retry now");
    });

    test("results name the version and count that the session then has", async () => {
      const key = subject.key();
      const store = subject.open(namespace);
      const writes: readonly (() => Promise<unknown>)[] = [
        () => store.addMessages(key, abcde),
        () => store.addMessage(key, say("x", { id: "x" })),
        () => store.addMessage(key, say("y"), 1),
        () => store.updateMessage(key, "a", say("A")),
        () => store.deleteMessage(key, 0),
        () => store.deleteLastMessage(key),
        () => store.deleteMessagesAfter(key, "c"),
        () => store.setTitle(key, "Kittens"),
        () => store.setState(key, { x: 1 }),
        () => store.setMessages(key, abcde),
        () => store.addMessages(key, abcde),
        () => store.addMessages(key, []),
      ];
      for (const write of writes) {
        same(await write(), await resultOf(store, key), `${write} returned something else`);
      }
      same(
        await store.deleteMessages(key),
        { version: null, messageCount: 0 },
        "Erasing returned something else",
      );
    });
  });

  describe("title and state", () => {
    test("are set, replaced and removed", async () => {
      const key = subject.key();
      const store = subject.open(namespace);
      await store.setTitle(key, "one");
      await store.setTitle(key, "two");
      same((await store.getSession(key))?.title, "two", "A title was not replaced");
      await store.setTitle(key, "");
      same((await store.getSession(key))?.title, "", "An empty title is no title");
      await store.setTitle(key, null);
      const session = await store.getSession(key);
      holds(session !== undefined && !("title" in session), "A title was not removed");
    });

    test("state is merged by entry", async () => {
      const key = subject.key();
      const store = subject.open(namespace);
      await store.setState(key, { a: 1, b: { c: [1] }, [`x${"y".repeat(63)}`]: "long" });
      await store.setState(key, { A: "other", b: "replaced", d: false });
      await store.setState(key, { a: null, e: 0, absent: null });
      same(
        (await store.getSession(key))?.state,
        { A: "other", b: "replaced", d: false, e: 0, [`x${"y".repeat(63)}`]: "long" },
        "State was overwritten instead of merged",
      );
      const message = await store.addMessages(key, [say("x")]);
      same(message.messageCount, 1, "State was counted as a message");
      same(Object.keys((await store.getSession(key))?.state ?? {}).length, 5, "It lost state");
    });
  });

  describe("forkSession", () => {
    test("copies messages, state and title, and no later change", async () => {
      const [from, to] = [subject.key("from"), subject.key("to")];
      const store = subject.open(namespace);
      await store.addMessages(from, [...abcde, say("own id")]);
      await store.setTitle(from, "Kittens");
      await store.setState(from, { facts: [1] });
      const original = await store.readSession(from);
      const result = await store.forkSession(from, to);
      const copy = await store.readSession(to);
      same(copy.messages, original.messages, "A copy has other messages");
      same(
        [copy.session?.title, copy.session?.state, copy.session?.messageCount],
        ["Kittens", { facts: [1] }, 6],
        "A copy lacks title or state",
      );
      same(result, await resultOf(store, to), "forkSession returned something else");
      holds(copy.session?.version !== original.session?.version, "Two sessions share a version");
      await store.updateMessage(to, "a", say("edited"));
      await store.deleteLastMessage(to);
      await store.setState(to, { facts: null });
      same(await store.readSession(from), original, "Editing a copy changed the original");
      const edited = await store.readSession(to);
      await store.deleteMessages(from);
      same(await store.readSession(to), edited, "Erasing the original changed the copy");
    });

    test("copies up to a message, that one included", async () => {
      const from = subject.key();
      const store = subject.open(namespace);
      await store.addMessages(from, abcde);
      for (const [index, { id }] of abcde.entries()) {
        const to = subject.key();
        await store.forkSession(from, to, { upTo: id });
        same(
          ids(await store.getMessages(to)),
          ["a", "b", "c", "d", "e"].slice(0, index + 1),
          `A copy up to ${id} ends elsewhere`,
        );
      }
    });

    test("copies an empty session, refuses an absent one and one that exists", async () => {
      const [from, to, absent] = [subject.key(), subject.key(), subject.key()];
      const store = subject.open(namespace);
      await store.setMessages(from, []);
      await store.forkSession(from, to);
      same((await store.getSession(to))?.messageCount, 0, "An empty session was not copied");
      await refused(store.forkSession(from, to), "VERSION_CONFLICT", "A session was overwritten");
      await refused(
        store.forkSession(absent, subject.key()),
        "SESSION_NOT_FOUND",
        "Nothing was copied",
      );
      await refused(
        store.forkSession(from, absent, { upTo: "gone" }),
        "MESSAGE_NOT_FOUND",
        "A copy up to a message that is gone was made",
      );
      same(await store.getSession(absent), undefined, "A refused copy left something");
    });
  });

  describe("importSession", () => {
    test("keeps a session's own times, title and state", async () => {
      const key = subject.key();
      const store = subject.open(namespace);
      const times = {
        createdAt: new Date("2020-01-01T00:00:00.001Z"),
        updatedAt: new Date("2021-01-01T00:00:00.999Z"),
        expiresAt: new Date(Math.trunc(Date.now() / 1_000) * 1_000 + 3_600_123),
      };
      const title = "Kittens";
      const state = { facts: [1] };
      const result = await store.importSession(key, { messages: abcde, title, state, ...times });
      const { session, messages } = await subject.open(namespace).readSession(key);
      same(
        session,
        { key, version: result.version, messageCount: 5, title, state, ...times },
        "Migration changed a session",
      );
      same(
        messages,
        abcde.map((message) => stored(message)),
        "Migration changed messages",
      );
      await refused(
        store.importSession(key, { messages: [], ...times }),
        "VERSION_CONFLICT",
        "Migration overwrote a session",
      );
      await store.setTitle(key, "changed");
      const changed = await store.getSession(key);
      same(changed?.createdAt, times.createdAt, "A later change lost the time of creation");
      holds(Number(changed?.updatedAt) > Number(times.updatedAt), "It kept the time of change");
    });

    test("without an expiry imports a session that stays, whatever the handle's ttl", async () => {
      const key = subject.key();
      const store = subject.open(namespace, { ttl: 60_000 });
      const times = { createdAt: new Date(1), updatedAt: new Date(2) };
      await store.importSession(key, { messages: abcde, ...times });
      same((await store.getSession(key))?.expiresAt, undefined, "Migration made a session expire");
    });

    test("of a session that has expired leaves it absent", async () => {
      const key = subject.key();
      const store = subject.open(namespace);
      const times = { createdAt: new Date(1), updatedAt: new Date(2), expiresAt: new Date(3) };
      await store.importSession(key, { messages: abcde, ...times });
      same(await store.getSession(key), undefined, "An expired session was revived");
    });
  });

  test("random sequences of insertions and removals agree with an array", async () => {
    const store = subject.open(namespace);
    const step = fc.record({
      remove: fc.boolean(),
      index: fc.integer({ min: -8, max: 8 }),
    });
    await forAll(fc.array(step, { minLength: 1, maxLength: 12 }), 25, async (steps) => {
      const key = subject.key();
      const expected: string[] = [];
      for (const [n, { remove, index }] of steps.entries()) {
        if (remove) {
          expected.splice(index, 1);
          await store.deleteMessage(key, index);
        } else {
          expected.splice(index, 0, `${n}`);
          await store.addMessage(key, say(`${n}`), index);
        }
      }
      same(texts(await store.getMessages(key)), expected, "Positions went astray");
    });
  });
}

async function resultOf(store: ChatStore, key: string) {
  const session = await store.getSession(key);
  return { version: session?.version ?? null, messageCount: session?.messageCount ?? 0 };
}

function userOf(key: SessionKey): string {
  return /u:([^/]+)/.exec(key)?.[1] ?? "";
}
