import { setTimeout as delay } from "node:timers/promises";
import type { ChatStore } from "../chat-store.js";
import { type SessionKey, sessionKey } from "../session-key.js";
import { holds, refused, rejection, same } from "./claims.js";
import { listAll } from "./lists.js";
import { batchOf, ids, say, texts } from "./messages.js";
import type { Handle } from "./remote.js";
import type { Subject } from "./subject.js";
import { describe, test } from "./tools.js";

const short = 300;
const minute = 60_000;
/** Engines count in whole milliseconds, and not all from the same instant. */
const margin = 60;

type Change = (store: ChatStore, key: string) => Promise<unknown>;
const changes: Readonly<Record<string, Change>> = {
  addMessages: (store, key) => store.addMessages(key, [say("new")]),
  "addMessage at a position": (store, key) => store.addMessage(key, say("new"), 0),
  setMessages: (store, key) => store.setMessages(key, [say("new")]),
  updateMessage: (store, key) => store.updateMessage(key, "a", say("new")),
  deleteMessage: (store, key) => store.deleteMessage(key, 0),
  deleteLastMessage: (store, key) => store.deleteLastMessage(key),
  deleteMessagesAfter: (store, key) => store.deleteMessagesAfter(key, "a"),
  replaceMessagesAfter: (store, key) => store.replaceMessagesAfter(key, "a", [say("new")]),
  setTitle: (store, key) => store.setTitle(key, "new"),
  setState: (store, key) => store.setState(key, { facts: "new" }),
};
const unchanging: Readonly<Record<string, Change>> = {
  "a retried append": (store, key) => store.addMessages(key, ab),
  "the same title": (store, key) => store.setTitle(key, "old"),
  "the same state": (store, key) => store.setState(key, { facts: "old" }),
  "the same message": (store, key) => store.updateMessage(key, "a", say("a")),
  "an empty batch": (store, key) => store.addMessages(key, []),
  reading: (store, key) => store.readSession(key),
};
const ab = [say("a", { id: "a" }), say("b", { id: "b" })];

/** Writes that begin a session, and what it then has. Other content under old ids: what expired is no duplicate. */
const beginnings: readonly {
  readonly name: string;
  readonly write: Change;
  readonly left: readonly string[];
  readonly title?: string;
  readonly state?: object;
}[] = [
  { name: "addMessages", write: (store, key) => store.addMessages(key, anew()), left: ["a", "c"] },
  {
    name: "addMessages if absent",
    write: (store, key) => store.addMessages(key, anew(), { ifVersion: null }),
    left: ["a", "c"],
  },
  {
    name: "addMessage at a position",
    write: (store, key) => store.addMessage(key, say("A", { id: "a" }), 1),
    left: ["a"],
  },
  { name: "setMessages", write: (store, key) => store.setMessages(key, anew()), left: ["a", "c"] },
  {
    name: "importSession",
    write: (store, key) => {
      const time = new Date(1_000);
      return store.importSession(key, { messages: anew(), createdAt: time, updatedAt: time });
    },
    left: ["a", "c"],
  },
  {
    name: "forkSession",
    write: async (store, key) => {
      const from = `${key}-from`;
      await store.addMessages(from, anew());
      return store.forkSession(from, key);
    },
    left: ["a", "c"],
  },
  { name: "setTitle", write: (store, key) => store.setTitle(key, "new"), left: [], title: "new" },
  {
    name: "setState",
    write: (store, key) => store.setState(key, { other: 1 }),
    left: [],
    state: { other: 1 },
  },
];

function anew() {
  return [say("A", { id: "a" }), say("C", { id: "c" })];
}

/** A session idle for its `ttl` is absent everywhere at once. */
export function expires(subject: Subject): void {
  const namespace = subject.namespace();

  /** Sessions that have expired a moment ago. */
  async function expired(store: ChatStore, count: number): Promise<SessionKey[]> {
    const keys = Array.from({ length: count }, () => subject.key("old"));
    await Promise.all(keys.map((key) => begin(store, key)));
    await delay(short + margin);
    return keys;
  }

  test("an expired session is absent for every reader", async () => {
    const own = subject.namespace();
    const store = subject.open(own, { ttl: short });
    const user = subject.user();
    const key = sessionKey({ tenant: "acme", user });
    await begin(store, key);
    const living = sessionKey({ tenant: "acme", user, conversation: "living" });
    await subject.open(own).addMessages(living, [say("living")]);
    await delay(short + margin);
    const readers = [
      store,
      subject.open(own),
      subject.open(own, { ttl: minute }),
      await subject.far(own),
    ];
    for (const reader of readers) {
      const loss = "An expired session is still shown by";
      same(await reader.getSession(key), undefined, `${loss} getSession`);
      same(
        await reader.readSession(key),
        { session: undefined, messages: [] },
        `${loss} readSession`,
      );
      for (const options of [{}, { last: 1 }, { limit: 1 }, { after: "a" }, { before: "b" }]) {
        same(
          await reader.getMessages(key, options),
          [],
          `${loss} getMessages(${JSON.stringify(options)})`,
        );
      }
      for (const scope of [{ tenant: "acme", user }, { tenant: "acme" }, {}]) {
        const { sessions } = await reader.listSessions(scope);
        same(
          sessions.map((session) => session.key),
          [living],
          `${loss} listSessions(${JSON.stringify(scope)})`,
        );
      }
      same([...(await reader.getKeys())], [living], `${loss} getKeys`);
      await refused(
        reader.forkSession(key, subject.key()),
        "SESSION_NOT_FOUND",
        `${loss} forkSession`,
      );
    }
  });

  test("a write to an expired session begins a new one, which stays", async () => {
    const keys = await expired(subject.open(namespace, { ttl: short }), beginnings.length);
    const store = subject.open(namespace);
    for (const [index, { name, write }] of beginnings.entries()) {
      await write(store, keys[index] as SessionKey).catch((cause: unknown) => {
        throw new Error(`${name} was refused because of an expired session`, { cause });
      });
    }
    const check = async (loss: string) => {
      for (const [index, { name, left, title, state = {} }] of beginnings.entries()) {
        const { session, messages } = await store.readSession(keys[index] as SessionKey);
        same(
          [ids(messages), session?.messageCount, session?.title, session?.state],
          [left, left.length, title, state],
          `${name}: ${loss}`,
        );
        same(session?.expiresAt, undefined, `${name}: the new session has the old one's expiry`);
        same(session?.createdAt, session?.updatedAt, `${name}: it has the old one's beginning`);
      }
    };
    await check("the new session has something of the expired one");
    await delay(short + margin);
    await store.purgeExpired();
    await check("the new session died with the expired one");
  });

  test("of an expired session there is nothing left to edit", async () => {
    const store = subject.open(namespace);
    const loss = "An expired session was edited";
    const nothing = { version: null, messageCount: 0 };
    const edits: readonly ((key: string) => Promise<unknown>)[] = [
      (key) => refused(store.updateMessage(key, "a", say("x")), "MESSAGE_NOT_FOUND", loss),
      (key) => refused(store.deleteMessagesAfter(key, "a"), "MESSAGE_NOT_FOUND", loss),
      (key) => refused(store.replaceMessagesAfter(key, "a", [say("x")]), "MESSAGE_NOT_FOUND", loss),
      (key) => refused(store.addMessages(key, ab, { ifVersion: "old" }), "VERSION_CONFLICT", loss),
      async (key) => same(await store.deleteLastMessage(key), nothing, loss),
      async (key) => same(await store.deleteMessage(key, 0), nothing, loss),
      async (key) => same(await store.deleteMessages(key), nothing, loss),
      async (key) => same(await store.setTitle(key, null), nothing, loss),
    ];
    const keys = await expired(subject.open(namespace, { ttl: short }), edits.length);
    for (const [index, edit] of edits.entries()) await edit(keys[index] as SessionKey);
    for (const key of keys) same(await store.getSession(key), undefined, loss);
  });

  test("a long session that expired leaves nothing to the one begun anew", async () => {
    const own = subject.namespace();
    const key = subject.key();
    const store = subject.open(own, { ttl: short });
    const fresh = subject.open(own);
    const long = Array.from({ length: 400 }, (_, n) => say(`old ${n}`, { id: `${n}` }));
    await store.addMessages(key, long.slice(0, 200));
    await store.addMessages(key, long.slice(200));
    await delay(short + margin);
    const anew = ["7", "399", "new"].map((id) => say(`new ${id}`, { id }));
    await fresh.addMessages(key, anew);
    for (const step of ["", " after a sweep"]) {
      const loss = `An expired conversation showed in the one begun anew${step}`;
      same(texts(await fresh.getMessages(key)), ["new 7", "new 399", "new new"], loss);
      same(ids(await fresh.getMessages(key, { before: "new", limit: 5 })), ["7", "399"], loss);
      await refused(fresh.getMessages(key, { after: "8" }), "MESSAGE_NOT_FOUND", loss);
      await refused(fresh.updateMessage(key, "0", say("x")), "MESSAGE_NOT_FOUND", loss);
      await fresh.purgeExpired();
    }
  });

  test("many that begin an expired session anew at once begin one", async () => {
    const handles = await subject.handles(namespace, 3);
    const keys = await expired(subject.open(namespace, { ttl: short }), 10);
    for (const [index, key] of keys.entries()) {
      const options = index % 2 === 0 ? { ifVersion: null } : {};
      const results = await Promise.allSettled(
        handles.map((handle, n) => handle.addMessages(key, batchOf(`by${n}`, 2), options)),
      );
      const begun = results.flatMap(({ status }, n) => (status === "fulfilled" ? [`by${n}`] : []));
      const { session, messages } = await (handles[0] as Handle).readSession(key);
      same(begun.length, index % 2 === 0 ? 1 : 3, "The wrong number of writers succeeded");
      same(
        [ids(messages).sort(), session?.messageCount, session?.title],
        [begun.flatMap((by) => [`${by}.0`, `${by}.1`]).sort(), 2 * begun.length, undefined],
        "Writers that met on an expired session lost messages, or brought old ones back",
      );
    }
  });

  test("a sweep takes nothing that is begun anew meanwhile", async () => {
    const [near, far] = (await subject.handles(namespace, 2)) as [Handle, Handle];
    const keys = await expired(subject.open(namespace, { ttl: short }), 30);
    await Promise.all([
      far.purgeExpired(),
      ...keys.map((key) => near.addMessages(key, [say("new", { id: "a" })])),
      far.purgeExpired(),
    ]);
    for (const key of keys) {
      same(
        texts(await near.getMessages(key)),
        ["new"],
        "A sweep took a conversation that had just begun anew",
      );
    }
  });

  test("erasing a user counts the living only", async () => {
    const user = subject.user();
    const store = subject.open(namespace, { ttl: short });
    await begin(store, sessionKey({ user, conversation: "old" }));
    await delay(short + margin);
    const fresh = subject.open(namespace);
    await fresh.addMessages(sessionKey({ user, conversation: "new" }), [say("x")]);
    same(await fresh.deleteSessions({ user }), 1, "An expired session was counted");
  });

  test("every change sets the expiry anew", async () => {
    const first = subject.open(namespace, { ttl: 10 * minute });
    const second = subject.open(namespace, { ttl: 60 * minute });
    for (const [name, change] of Object.entries(changes)) {
      const key = subject.key();
      await begin(first, key);
      const before = await expiryOf(first, key);
      await change(second, key);
      const after = await expiryOf(second, key);
      holds(
        Number(after) - Number(before) > 40 * minute,
        `${name} did not extend the session: a conversation in use is forgotten`,
      );
    }
    const key = subject.key();
    await begin(first, key);
    const session = await first.getSession(key);
    const lifetime = Number(session?.expiresAt) - Number(session?.updatedAt);
    holds(
      Math.abs(lifetime - 10 * minute) < 5_000,
      `A session with a ttl of ten minutes lives for ${lifetime} ms after its last change`,
    );
  });

  test("what changes nothing does not extend", async () => {
    const first = subject.open(namespace, { ttl: 10 * minute });
    const second = subject.open(namespace, { ttl: 60 * minute });
    const key = subject.key();
    await begin(first, key);
    const before = await expiryOf(first, key);
    for (const [name, call] of Object.entries(unchanging)) {
      await call(second, key);
      same(await expiryOf(second, key), before, `${name} kept an idle session alive`);
    }
  });

  test("a write that is refused does not extend", async () => {
    const first = subject.open(namespace, { ttl: 10 * minute });
    const second = subject.open(namespace, { ttl: 60 * minute });
    const key = subject.key();
    await begin(first, key);
    const before = await expiryOf(first, key);
    const stale = { ifVersion: "stale" };
    const writes: readonly (() => Promise<unknown>)[] = [
      () => second.addMessages(key, [say("other", { id: "a" })]),
      () => second.addMessages(key, [say("c")], stale),
      () => second.addMessages(key, [say("c")], { ifVersion: null }),
      () => second.setMessages(key, [say("c")], stale),
      () => second.updateMessage(key, "gone", say("c")),
      () => second.deleteLastMessage(key, stale),
      () => second.deleteMessagesAfter(key, "gone"),
      () => second.replaceMessagesAfter(key, "gone", [say("c")]),
      () => second.replaceMessagesAfter(key, "b", [say("c", { id: "a" })]),
      () => second.replaceMessagesAfter(key, "a", [say("c")], stale),
      () => second.setTitle(key, "new", stale),
      () => second.setState(key, { facts: "new" }, stale),
      async () => {
        const other = subject.key();
        await first.addMessages(other, ab);
        await second.forkSession(other, key);
      },
    ];
    for (const write of writes) {
      await rejection(write(), `${write} was not refused`);
      same(await expiryOf(second, key), before, `${write} was refused, and kept the session alive`);
    }
  });

  test("a life may be longer than a counter of milliseconds holds", async () => {
    const day = 24 * 60 * minute;
    for (const days of [24, 25, 49, 50, 60, 3_650, 36_500]) {
      const key = subject.key();
      const store = subject.open(namespace, { ttl: days * day });
      for (const write of [() => begin(store, key), () => store.setMessages(key, ab)]) {
        await write();
        const { session, messages } = await store.readSession(key);
        same(ids(messages), ["a", "b"], `A session that may live ${days} days is gone at once`);
        const lifetime = Number(session?.expiresAt) - Number(session?.updatedAt);
        holds(
          Math.abs(lifetime - days * day) < 5_000,
          `A session that may live ${days} days lives ${lifetime / day}`,
        );
      }
    }
  });

  test("expired sessions end no list", async () => {
    const own = subject.namespace();
    const user = subject.user();
    const keyOf = (n: number) => sessionKey({ tenant: "acme", user, conversation: `${n}` });
    const living = subject.open(own);
    const dying = subject.open(own, { ttl: short });
    // By time, and by key, the expired are between those that live.
    const keys = [10, 50].map(keyOf);
    await living.addMessages(keys[0] as SessionKey, ab);
    for (let n = 20; n < 40; n++) await dying.addMessages(keyOf(n), ab);
    await living.addMessages(keys[1] as SessionKey, ab);
    await delay(short + margin);
    for (const scope of [{ tenant: "acme", user }, { tenant: "acme" }, {}]) {
      for (const limit of [1, 4]) {
        const listed = await listAll(living, { ...scope, limit });
        same(
          listed.map(({ key }) => key).sort(),
          keys,
          `Behind expired sessions a list of ${JSON.stringify(scope)} ends, ${limit} to a page`,
        );
      }
    }
  });

  test("a handle without ttl leaves expiry alone", async () => {
    const first = subject.open(namespace, { ttl: 10 * minute });
    const second = subject.open(namespace);
    for (const [name, change] of Object.entries(changes)) {
      const key = subject.key();
      await begin(first, key);
      const before = await expiryOf(first, key);
      await change(second, key);
      same(await expiryOf(second, key), before, `${name} without ttl changed the expiry`);
    }
    const key = subject.key();
    await second.addMessages(key, ab);
    same(await expiryOf(second, key), undefined, "A session without ttl expires");
    await first.setTitle(key, "new");
    holds((await expiryOf(first, key)) !== undefined, "A handle with ttl set no expiry");
  });

  test("a session lives as a whole, not message by message", async () => {
    const later = subject.open(namespace, { ttl: 10 * minute });
    for (let ttl = 1_000; ; ttl *= 2) {
      const key = subject.key();
      const store = subject.open(namespace, { ttl });
      await begin(store, key);
      const { messageCount } = await later.addMessages(key, [say("c", { id: "c" })]);
      // On a machine that took longer than the ttl for this, the session was gone by then.
      if (messageCount !== 3) continue;
      await delay(ttl + margin);
      const { session, messages } = await later.readSession(key);
      same(
        [ids(messages), session?.title, session?.state],
        [["a", "b", "c"], "old", { facts: "old" }],
        "A session in use lost its older messages, its title or its state",
      );
      return;
    }
  });

  test("a copy lives by the handle that made it", async () => {
    const store = subject.open(namespace, { ttl: 10 * minute });
    const [from, kept, expiring] = [subject.key(), subject.key(), subject.key()];
    await begin(store, from);
    await subject.open(namespace).forkSession(from, kept);
    await subject.open(namespace, { ttl: 60 * minute }).forkSession(from, expiring);
    same(await expiryOf(store, kept), undefined, "A copy inherited an expiry");
    holds(Number(await expiryOf(store, expiring)) > Date.now() + 30 * minute, "It has no expiry");
  });

  if (subject.capabilities.sweepsItself) {
    test("the engine sweeps by itself: purgeExpired finds nothing to do", async () => {
      const store = subject.open(namespace, { ttl: short });
      await expired(store, 3);
      same(await store.purgeExpired(), 0, "The store says that it sweeps itself, but did not");
    });
  } else {
    test("purgeExpired removes the expired, counts them, and leaves the others", async () => {
      const store = subject.open(subject.namespace(), { ttl: short });
      const own = subject.namespace();
      const purged = subject.open(own, { ttl: short });
      const lasting = subject.open(own, { ttl: 10 * minute });
      const forever = subject.open(own);
      const [a, b, c] = [subject.key(), subject.key(), subject.key()];
      await begin(lasting, a);
      await begin(forever, b);
      await begin(store, c);
      const [again] = await expired(purged, 120);
      await forever.addMessages(again as string, ab);
      same(await forever.purgeExpired(), 119, "The number of swept sessions is wrong");
      same(await forever.purgeExpired(), 0, "A second sweep found something");
      for (const key of [a, b, again as string]) {
        same(ids(await forever.getMessages(key)), ["a", "b"], "A sweep took a living session");
      }
    });
  }

  if (subject.capabilities.multiProcess) {
    describe("a machine whose clock is wrong", () => {
      const hour = 3_600_000;

      test("does not expire the sessions of others", async () => {
        const own = subject.namespace();
        const key = subject.key();
        const here = subject.open(own, { ttl: 30 * minute });
        await begin(here, key);
        const fast = await subject.child(hour).open(subject.opening(own));
        await stillThere(fast, key);
        await fast.purgeExpired();
        await fast.addMessages(key, [say("c", { id: "c" })]);
        same(
          ids(await here.getMessages(key)),
          ["a", "b", "c"],
          "A machine whose clock is an hour fast expired a session that is half an hour old",
        );
      });

      test("does not see what has expired, and stamps no wrong times", async () => {
        const own = subject.namespace();
        const [key, written] = [subject.key(), subject.key()];
        const here = subject.open(own, { ttl: short });
        await begin(here, key);
        await delay(short + margin);
        const slow = await subject.child(-hour).open(subject.opening(own, { ttl: 10 * minute }));
        same(
          await slow.getMessages(key),
          [],
          "A machine whose clock is an hour slow shows an expired session",
        );
        same((await slow.listSessions({})).sessions, [], "It lists an expired session");
        await slow.addMessages(written, ab);
        const session = await here.getSession(written);
        holds(
          session !== undefined,
          "What a machine with a slow clock writes is expired for the others at once",
        );
        for (const time of [session?.createdAt, session?.updatedAt]) {
          holds(
            Math.abs(Number(time) - Date.now()) < 10 * minute,
            "A session was stamped by the clock of one machine, not by the engine's",
          );
        }
      });
    });
  }
}

async function begin(store: ChatStore, key: string): Promise<void> {
  await Promise.all([
    store.addMessages(key, ab),
    store.setTitle(key, "old"),
    store.setState(key, { facts: "old" }),
  ]);
}

async function expiryOf(store: ChatStore, key: string): Promise<Date | undefined> {
  return (await store.getSession(key))?.expiresAt;
}

async function stillThere(handle: Handle, key: string): Promise<void> {
  const loss = "A machine whose clock is fast does not see a session that lives";
  same(ids(await handle.getMessages(key)), ["a", "b"], loss);
  holds((await handle.listSessions({})).sessions.length === 1, loss);
}
