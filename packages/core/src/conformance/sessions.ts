import { setTimeout as delay } from "node:timers/promises";
import fc from "fast-check";
import { describe, test } from "vitest";
import type { ChatStore, SessionInfo } from "../chat-store.js";
import type { NewMessage } from "../messages.js";
import { rawSessionKey, type SessionKey, sessionKey } from "../session-key.js";
import { check } from "./arbitraries.js";
import { holds, refused, same } from "./claims.js";
import { listAll } from "./listing.js";
import { ids, say, stored, texts } from "./messages.js";
import type { Subject } from "./subject.js";

const abcde = ["a", "b", "c", "d", "e"].map((id) => say(id, { id, createdAt: new Date(1_000) }));

/** What the methods mean, beyond the guarantees. */
export function semantics(subject: Subject): void {
  const namespace = subject.namespace();

  test("the store declares a name and capabilities", () => {
    const { name, capabilities } = subject.open(namespace);
    holds(/^[a-z][a-z0-9-]*$/.test(name), `The name ${name} is not lower-case, as in a package`);
    holds(typeof capabilities.multiProcess === "boolean", "capabilities.multiProcess is missing");
    holds(typeof capabilities.sweepsItself === "boolean", "capabilities.sweepsItself is missing");
    holds(
      ["nothing", "process", "host", "failover"].includes(capabilities.survives),
      `capabilities.survives is ${capabilities.survives}`,
    );
  });

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
      await store.setState(key, { b: "replaced", d: false });
      await store.setState(key, { a: null, e: 0, absent: null });
      same(
        (await store.getSession(key))?.state,
        { b: "replaced", d: false, e: 0, [`x${"y".repeat(63)}`]: "long" },
        "State was overwritten instead of merged",
      );
      const message = await store.addMessages(key, [say("x")]);
      same(message.messageCount, 1, "State was counted as a message");
      same(Object.keys((await store.getSession(key))?.state ?? {}).length, 4, "It lost state");
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

  describe("listing", () => {
    test("a user's sessions come newest first, in pages, with titles and counts", async () => {
      const user = subject.user();
      const store = subject.open(namespace);
      const count = 12;
      const keyOf = (n: number) => sessionKey({ user, conversation: `${n}` });
      for (let n = 0; n < count; n++) {
        await store.addMessages(keyOf(n), abcde.slice(0, n % 5));
        await store.setTitle(keyOf(n), `Title ${n}`);
        await delay(3);
      }
      await store.addMessages(keyOf(3), [say("newest")]);
      const expected = [3, 11, 10, 9, 8, 7, 6, 5, 4, 2, 1, 0].map(keyOf);
      for (const limit of [1, 5, 12, 13, 1_000]) {
        const listed = await listAll(store, { user, limit });
        same(
          listed.map(({ key }) => key),
          expected,
          `A list in pages of ${limit} is wrong`,
        );
        for (const session of listed) {
          const { state: _, ...info } = (await store.getSession(session.key)) as SessionInfo & {
            state: unknown;
          };
          same(session, info, "A list shows a session otherwise than reading it does");
        }
      }
    });

    test("a list of all sessions has each of them once", async () => {
      const store = subject.open(subject.namespace());
      const keys: string[] = [];
      for (let n = 0; n < 45; n++) {
        const parts = { user: `user${n % 7}`, conversation: `${n}` };
        const key =
          n % 3 === 0
            ? rawSessionKey(`old-${n}`)
            : sessionKey(n % 3 === 1 ? { tenant: `t${n % 2}`, ...parts } : parts);
        keys.push(key);
        await store.addMessages(key, [say("x")]);
      }
      for (const limit of [1, 7, 45, 46, 1_000]) {
        same(
          (await listAll(store, { limit })).map(({ key }) => key).sort(),
          [...keys].sort(),
          `A list of all in pages of ${limit} skips sessions: an export loses them`,
        );
        for (const tenant of ["t0", "t1"]) {
          same(
            (await listAll(store, { tenant, limit })).map(({ key }) => key).sort(),
            keys.filter((key) => key.startsWith(`t:${tenant}/`)).sort(),
            `A tenant's list in pages of ${limit} is wrong`,
          );
        }
      }
      const all = await store.getKeys();
      holds(typeof all.next === "function", "getKeys() does not return an iterator");
      same([...all].sort(), [...keys].sort(), "getKeys() skips sessions");
    });

    test("more sessions than one page holds are listed, and erased", async () => {
      const store = subject.open(subject.namespace());
      const user = subject.user();
      const keys = Array.from({ length: 1_050 }, (_, n) =>
        sessionKey({ user, conversation: `${n}` }),
      );
      for (let start = 0; start < keys.length; start += 50) {
        await Promise.all(keys.slice(start, start + 50).map((key) => store.setTitle(key, "x")));
      }
      const sorted = keys.toSorted();
      same([...(await store.getKeys())].sort(), sorted, "getKeys() ends after its first page");
      const listed = await listAll(store, { user, limit: 1_000 });
      same(listed.map(({ key }) => key).sort(), sorted, "A long list of a user is incomplete");
      same(await store.deleteSessions({ user }), keys.length, "A user was erased in part");
      same([...(await store.getKeys())], [], "A user with many sessions was erased in part");
    });

    test("sessions of one instant are all listed", async () => {
      const user = subject.user();
      const store = subject.open(namespace);
      const times = { createdAt: new Date(1_000), updatedAt: new Date(2_000) };
      // The order of these differs between UTF-16, UTF-8 and a language's collation.
      const names = [
        ..."aAbBzZ_-0~",
        "é",
        "e\u0301",
        "ß",
        "ss",
        "\uffee",
        "\u{10000}",
        "👋",
        "aa",
        "a-b",
      ];
      const keys = names.map((conversation) => sessionKey({ user, conversation }));
      for (const key of keys) await store.importSession(key, { messages: [], ...times });
      for (const limit of [1, 2, 3, 7, 50]) {
        same(
          (await listAll(store, { user, limit })).map(({ key }) => key).sort(),
          [...keys].sort(),
          `Of sessions changed in the same instant, a list in pages of ${limit} skips or repeats some`,
        );
      }
    });

    test("a session that is erased between pages hides no other", async () => {
      const store = subject.open(subject.namespace());
      const [tenant, user] = ["acme", "alice"];
      for (const scope of [{ tenant, user }, { tenant }, {}]) {
        const keys = Array.from({ length: 10 }, (_, n) =>
          sessionKey({ tenant, user, conversation: `${n}` }),
        );
        for (const key of keys) await store.addMessages(key, [say("x")]);
        const first = await store.listSessions({ ...scope, limit: 4 });
        const seen = first.sessions.map(({ key }) => key);
        const [next, ...unseen] = keys.filter((key) => !seen.includes(key));
        // Some that were listed, among them the one that the cursor stands at, and one that was not.
        for (const key of [seen[0], seen.at(-1), next]) await store.deleteMessages(key as string);
        const rest = await listAll(store, { ...scope, limit: 4, cursor: first.cursor });
        same(
          rest.map(({ key }) => key).sort(),
          unseen.sort(),
          "A session that was erased while an export ran hid another one, or is still listed",
        );
        await store.deleteSessions({ tenant, user });
      }
    });

    test("erasing a user erases all of the user's sessions and says how many", async () => {
      const user = subject.user();
      const store = subject.open(namespace);
      const keys = Array.from({ length: 25 }, (_, n) => sessionKey({ user, conversation: `${n}` }));
      await Promise.all(keys.map((key) => store.addMessages(key, abcde)));
      same(await store.deleteSessions({ user }), 25, "The number of erased sessions is wrong");
      for (const key of keys) same(await store.getSession(key), undefined, "A session is left");
      same(await listAll(store, { user }), [], "An erased user is still listed");
      same(await store.deleteSessions({ user }), 0, "An erased user was erased again");
      await store.addMessages(keys[0] as SessionKey, abcde);
      same(ids(await store.getMessages(keys[0] as SessionKey)).length, 5, "The user cannot return");
    });
  });

  describe("limits", () => {
    const limits = { messageBytes: 1_000, batchMessages: 3, batchBytes: 2_000, stateBytes: 500 };

    test("are adjustable, and refuse before anything is written", async () => {
      const key = subject.key();
      const store = subject.open(namespace, { limits });
      await store.addMessages(key, [say("a", { id: "a" })]);
      const before = await store.readSession(key);
      const cases: Readonly<Record<string, readonly (() => Promise<unknown>)[]>> = {
        messageBytes: [
          () => store.addMessage(key, say("x".repeat(1_000))),
          () => store.addMessages(key, [say("ok"), say("é".repeat(500))]),
          () => store.setMessages(key, [say("x".repeat(1_000))]),
          () => store.updateMessage(key, "a", say("x".repeat(1_000))),
          () => store.addMessage(key, say("x".repeat(1_000)), 0),
        ],
        batchMessages: [
          () =>
            store.addMessages(
              key,
              Array.from({ length: 4 }, () => say("x")),
            ),
        ],
        batchBytes: [
          () =>
            store.addMessages(
              key,
              Array.from({ length: 3 }, () => say("x".repeat(800))),
            ),
        ],
        stateBytes: [
          () => store.setState(key, { x: "x".repeat(500) }),
          () => store.setState(key, { x: "x".repeat(300), y: "x".repeat(300) }),
        ],
        titleBytes: [() => store.setTitle(key, "x".repeat(1_025))],
      };
      for (const [limit, calls] of Object.entries(cases)) {
        for (const call of calls) {
          const error = await refused(call(), "LIMIT_EXCEEDED", `${call} exceeded ${limit}`);
          same((error as { limit?: unknown }).limit, limit, "The error names another limit");
        }
      }
      same(await store.readSession(key), before, "A refused write changed the session");
      await store.setMessages(
        key,
        Array.from({ length: 10 }, () => say("x".repeat(800))),
      );
      same((await store.getMessages(key)).length, 10, "setMessages has no limit of number");
    });

    test("at their defaults hold what they promise", async () => {
      const [large, many, replaced, copy] = [1, 2, 3, 4].map(() => subject.key()) as [
        SessionKey,
        SessionKey,
        SessionKey,
        SessionKey,
      ];
      const store = subject.open(namespace);
      const photograph = "A".repeat(8 * 1024 * 1024 - 1_000);
      await store.addMessage(large, say(photograph));
      const [found] = await store.getMessages(large);
      holds(found?.content === photograph, "A message of 8 MiB came back changed");
      await refused(
        store.addMessage(large, say("A".repeat(8 * 1024 * 1024))),
        "LIMIT_EXCEEDED",
        "A message beyond 8 MiB was accepted",
      );
      const thousand = Array.from({ length: 1_000 }, (_, n) => say(`${n}`, { id: `${n}` }));
      await store.addMessages(many, thousand);
      await store.addMessages(
        many,
        thousand.map((message) => ({ ...message, id: `+${message.id}` })),
      );
      same((await store.getMessages(many)).length, 2_000, "Batches of 1,000 were cut short");
      await store.setMessages(replaced, await store.getMessages(many));
      await store.forkSession(replaced, copy);
      same(
        ids(await store.getMessages(copy)),
        ids(await store.getMessages(many)),
        "A history of 2,000 messages was cut short when it was replaced or copied",
      );
      const state = "x".repeat(256 * 1024 - 100);
      await store.setState(many, { state });
      holds((await store.getSession(many))?.state["state"] === state, "State was cut short");
      await store.setTitle(many, "x".repeat(1_024));
      same((await store.getSession(many))?.title?.length, 1_024, "A title was cut short");
    });
  });

  describe("opening", () => {
    test("with migrate check and off works on a schema that is there", async () => {
      const own = subject.namespace();
      const key = subject.key();
      await subject.open(own, { migrate: "auto" }).addMessages(key, [say("a")]);
      for (const migrate of ["check", "off"] as const) {
        const store = subject.open(own, { migrate });
        await store.open();
        await store.addMessages(key, [say(migrate)]);
      }
      same(
        texts(await subject.open(own).getMessages(key)),
        ["a", "check", "off"],
        "A store that may not migrate does not work",
      );
    });

    test("with migrate check either works on an empty store, or says that it has no schema", async () => {
      const own = subject.namespace();
      const key = subject.key();
      const store = subject.open(own, { migrate: "check" });
      const opened = await store.open().then(
        () => "opened",
        (error: { code: string }) => error.code,
      );
      holds(opened === "opened" || opened === "SCHEMA", `open() failed with ${opened}`);
      const ready = subject.open(own);
      await ready.open();
      await store.addMessages(key, [say("a")]);
      same(texts(await ready.getMessages(key)), ["a"], "A failed open() left the store unusable");
    });

    test("refuses wrong options, whoever made the factory", () => {
      const own = subject.namespace();
      const wrong: readonly object[] = [
        { ttl: 0 },
        { ttl: -1 },
        { ttl: "1d" },
        { timeout: 0 },
        { timeout: Number.NaN },
        { migrate: "always" },
        { limits: { messageBytes: 0 } },
        { limits: { messageBytes: 1e9 } },
        { limits: { messages: 5 } },
      ];
      for (const options of wrong) {
        let code = "nothing";
        try {
          subject.openWith({ ...subject.optionsOf(own), ...options });
        } catch (error) {
          code = (error as { code: string }).code;
        }
        same(code, "INVALID_OPTIONS", `The factory accepts ${JSON.stringify(options)}`);
      }
    });

    test("twice, and with shared: true, gives one handle", async () => {
      const own = subject.namespace();
      const options = subject.optionsOf(own, { shared: true });
      const [first, second] = [subject.openWith(options), subject.openWith(options)];
      holds(first === second, "A development server opens a new pool at each hot reload");
      await Promise.all([first.open(), first.open(), second.open()]);
      await first.close();
      const third = subject.openWith(options);
      holds(third !== first, "A closed handle was shared");
      await third.open();
    });
  });

  test("random sequences of insertions and removals agree with an array", async () => {
    const store = subject.open(namespace);
    const step = fc.record({
      remove: fc.boolean(),
      index: fc.integer({ min: -8, max: 8 }),
    });
    await check(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 12 }), async (steps) => {
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
      }),
      25,
    );
  });
}

async function resultOf(store: ChatStore, key: string) {
  const session = await store.getSession(key);
  return { version: session?.version ?? null, messageCount: session?.messageCount ?? 0 };
}

function userOf(key: SessionKey): string {
  return /u:([^/]+)/.exec(key)?.[1] ?? "";
}
