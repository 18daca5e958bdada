import { setTimeout as delay } from "node:timers/promises";
import type { ChatStore } from "../chat-store.js";
import { rawSessionKey, type SessionKey, sessionKey } from "../session-key.js";
import type { ListOptions, SessionInfo } from "../store-types.js";
import { holds, same } from "./claims.js";
import { abcde, ids, say } from "./messages.js";
import type { Subject } from "./subject.js";
import { test } from "./tools.js";

/** What lists of sessions show. */
export function lists(subject: Subject): void {
  const namespace = subject.namespace();

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

  test("an old session that is taken up again comes first", async () => {
    const user = subject.user();
    const store = subject.open(namespace);
    const keyOf = (n: number) => sessionKey({ user, conversation: `${n}` });
    // Less than an hour apart, and more than a day.
    const hours = [0, 0.2, 1.1, 30, 31, 400];
    for (const [n, hour] of hours.entries()) {
      const updatedAt = new Date(Date.UTC(2024, 0) - hour * 3_600_000);
      const times = { createdAt: new Date(0), updatedAt };
      await store.importSession(keyOf(n), { messages: [say("x")], ...times });
    }
    const first = hours.length - 1;
    for (const order of [hours.keys(), [first, ...hours.slice(1).keys()]]) {
      const keys = [...order].map(keyOf);
      for (const limit of [1, 2, 50]) {
        const listed = (await listAll(store, { user, limit })).map(({ key }) => key);
        same(listed, keys, `Sessions of different days are in the wrong order, ${limit} to a page`);
      }
      await store.addMessages(keyOf(first), [say("again")]);
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

  test("a session that is changed between pages is listed all the same", async () => {
    const store = subject.open(subject.namespace());
    const [tenant, user] = ["acme", "alice"];
    for (const scope of [{ tenant }, {}]) {
      const keys = Array.from({ length: 15 }, (_, n) =>
        sessionKey({ tenant, user: `${user}${n % 4}`, conversation: `${n}` }),
      );
      for (const key of keys) await store.addMessages(key, [say("x")]);
      const seen = new Set<string>();
      let cursor: string | undefined;
      do {
        const page = await store.listSessions({ ...scope, limit: 4, cursor });
        for (const { key } of page.sessions) seen.add(key);
        cursor = page.cursor;
        // Whatever the engine sorts by, what is still to come moves to either end of it.
        await delay(2);
        for (const key of keys) if (!seen.has(key)) await store.addMessages(key, [say("again")]);
      } while (cursor !== undefined);
      same(
        [...seen].sort(),
        keys.toSorted(),
        "A session that was written to while an export ran is not in the export",
      );
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
}

/** All sessions of a list, page by page. */
export async function listAll(
  store: Pick<ChatStore, "listSessions">,
  options: ListOptions,
): Promise<SessionInfo[]> {
  const found: SessionInfo[] = [];
  const cursors = new Set<string>();
  let { cursor } = options;
  do {
    const page = await store.listSessions({ ...options, cursor });
    holds(page.sessions.length <= (options.limit ?? 50), "A page is longer than its limit");
    found.push(...page.sessions);
    cursor = page.cursor;
    if (cursor !== undefined) {
      holds(!cursors.has(cursor), "A list does not end: it gave the same cursor twice");
      cursors.add(cursor);
    }
  } while (cursor !== undefined);
  return found;
}
