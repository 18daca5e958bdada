import { randomBytes } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import type { ChatStore } from "../chat-store.js";
import { type SessionKey, sessionKey } from "../session-key.js";
import { untilWritten } from "./child.js";
import { holds, same } from "./claims.js";
import { say, texts } from "./messages.js";
import type { Handle } from "./remote.js";
import { need, type Subject } from "./subject.js";
import { test } from "./tools.js";

interface Erasure {
  /** Texts that must be gone from the engine; `write` puts them there, `erase` removes them. */
  readonly write: (store: ChatStore, key: SessionKey, canary: string) => Promise<unknown>;
  readonly erase: (store: ChatStore, key: SessionKey) => Promise<unknown>;
  /** How many messages are left. */
  readonly left: number;
}

const threeMessages = (store: ChatStore, key: SessionKey, canary: string) =>
  store.addMessages(key, [
    say("first", { id: "a" }),
    say(canary, { id: "b" }),
    say(`and ${canary}`, { id: "c", annotations: [canary], options: { canary } }),
  ]);
/** So many that a store may keep them in several places, and that one step of a thousand leaves some. */
const manyMessages = async (store: ChatStore, key: SessionKey, canary: string) => {
  await store.addMessages(key, [say("first", { id: "a" })]);
  for (let batch = 0; batch < 3; batch++) {
    await store.addMessages(
      key,
      Array.from({ length: 400 }, () => say(`${canary} ${"x".repeat(300)}`)),
    );
  }
};

const erasures: Readonly<Record<string, Erasure>> = {
  deleteMessages: {
    write: async (store, key, canary) => {
      await threeMessages(store, key, canary);
      await store.setTitle(key, canary);
      await store.setState(key, { facts: [canary] });
    },
    erase: (store, key) => store.deleteMessages(key),
    left: 0,
  },
  "deleteMessages of a long session": {
    write: manyMessages,
    erase: (store, key) => store.deleteMessages(key),
    left: 0,
  },
  deleteSessions: {
    write: async (store, key, canary) => {
      await threeMessages(store, key, canary);
      await store.setTitle(key, canary);
      await store.setState(key, { facts: [canary] });
    },
    erase: async (store, key) => store.deleteSessions({ tenant: "acme", user: userOf(key) }),
    left: 0,
  },
  updateMessage: {
    write: threeMessages,
    erase: async (store, key) => {
      await store.updateMessage(key, "b", say("edited"));
      await store.updateMessage(key, "c", say("edited"));
    },
    left: 3,
  },
  deleteMessage: {
    write: threeMessages,
    erase: async (store, key) => {
      await store.deleteMessage(key, 1);
      await store.deleteMessage(key, 1);
    },
    left: 1,
  },
  deleteLastMessage: {
    write: threeMessages,
    erase: async (store, key) => {
      await store.deleteLastMessage(key);
      await store.deleteLastMessage(key);
    },
    left: 1,
  },
  deleteMessagesAfter: {
    write: threeMessages,
    erase: (store, key) => store.deleteMessagesAfter(key, "a"),
    left: 1,
  },
  replaceMessagesAfter: {
    write: threeMessages,
    erase: (store, key) => store.replaceMessagesAfter(key, "a", [say("new")]),
    left: 2,
  },
  "replaceMessagesAfter in a long session": {
    write: manyMessages,
    erase: (store, key) => store.replaceMessagesAfter(key, "a", [say("new")]),
    left: 2,
  },
  "deleteMessagesAfter in a long session": {
    write: manyMessages,
    erase: (store, key) => store.deleteMessagesAfter(key, "a"),
    left: 1,
  },
  setMessages: {
    write: threeMessages,
    erase: (store, key) => store.setMessages(key, [say("new")]),
    left: 1,
  },
  "setMessages in a long session": {
    write: manyMessages,
    erase: (store, key) => store.setMessages(key, [say("new"), say("history")]),
    left: 2,
  },
  setTitle: {
    write: (store, key, canary) => store.setTitle(key, canary),
    erase: (store, key) => store.setTitle(key, null),
    left: 0,
  },
  setState: {
    write: (store, key, canary) => store.setState(key, { facts: [canary], other: canary }),
    erase: (store, key) => store.setState(key, { facts: null, other: ["nothing"] }),
    left: 0,
  },
};

/** What is erased can be read nowhere through the engine. */
export function erases(subject: Subject): void {
  for (const [name, { write, erase, left }] of Object.entries(erasures)) {
    test(`${name} leaves no trace`, async (context) => {
      const dump = need(context, subject.hooks.dump, "dump");
      const namespace = subject.namespace();
      const key = sessionKey({ tenant: "acme", user: subject.user(), conversation: "x" });
      const store = subject.open(namespace);
      const canary = newCanary();
      await write(store, key, canary);
      holds((await dump(namespace)).includes(canary), "The dump hook does not see stored text");
      await erase(store, key);
      holds(
        !(await dump(namespace)).includes(canary),
        `After ${name}, what a user asked to erase is still readable in the engine`,
      );
      same((await store.getMessages(key)).length, left, `${name} erased too much or too little`);
    });
  }

  test("erasing and purging remove what has expired", async (context) => {
    const dump = need(context, subject.hooks.dump, "dump");
    const namespace = subject.namespace();
    const store = subject.open(namespace, { ttl: 200 });
    const canaries = [newCanary(), newCanary(), newCanary()];
    const user = subject.user();
    const keys = ["a", "b", "c"].map((conversation, index) =>
      sessionKey({ tenant: "acme", user: index === 0 ? user : subject.user(), conversation }),
    ) as [SessionKey, SessionKey, SessionKey];
    await Promise.all(
      keys.map((key, index) => threeMessages(store, key, canaries[index] as string)),
    );
    await delay(300);
    const gone = async (index: number, loss: string) =>
      holds(!(await dump(namespace)).includes(canaries[index] as string), loss);
    await store.deleteSessions({ tenant: "acme", user });
    await gone(0, "Erasing a user left an expired session readable in the engine");
    await store.deleteMessages(keys[1]);
    await gone(1, "Erasing an expired session left it readable in the engine");
    await store.purgeExpired();
    await gone(2, "purgeExpired left an expired session readable in the engine");
  });

  test("a session begun anew after expiry keeps nothing of the old one", async (context) => {
    const dump = need(context, subject.hooks.dump, "dump");
    const namespace = subject.namespace();
    const key = subject.key();
    const canary = newCanary();
    const store = subject.open(namespace, { ttl: 200 });
    await threeMessages(store, key, canary);
    await delay(300);
    const lasting = subject.open(namespace);
    await lasting.addMessages(key, [say("new")]);
    await lasting.purgeExpired();
    holds(!(await dump(namespace)).includes(canary), "An expired conversation is still readable");
    await lasting.deleteMessages(key);
    holds(!(await dump(namespace)).includes(canary), "An expired conversation outlived erasure");
  });

  if (subject.capabilities.survives !== "nothing") {
    test("what killed processes left behind goes with the session", async (context) => {
      const dump = need(context, subject.hooks.dump, "dump");
      const namespace = subject.namespace();
      const key = subject.key();
      const canary = newCanary();
      for (let round = 0; round < 3; round++) {
        const child = subject.child();
        const handle = await child.open(subject.opening(namespace));
        let acknowledged = 0;
        const args = { key, label: canary, size: 300, text: "x".repeat(200) };
        const writing = handle.run("replace", args, () => acknowledged++);
        await untilWritten(writing, () => acknowledged > 0);
        await delay(Math.random() * 30);
        await child.kill();
        await writing.catch(() => undefined);
      }
      const store = subject.open(namespace);
      same((await store.getMessages(key)).length, 300, "A killed process left half a history");
      holds((await dump(namespace)).includes(canary), "The dump hook does not see stored text");
      await store.deleteMessages(key);
      holds(
        !(await dump(namespace)).includes(canary),
        "A process was killed while it wrote; what it left outlives the session's erasure",
      );
    });
  }

  test("erasing a user leaves alone what others write, and what is begun meanwhile", async () => {
    const namespace = subject.namespace();
    const [near, far] = (await subject.handles(namespace, 2)) as [Handle, Handle];
    const [user, other] = [subject.user(), subject.user()];
    const keyOf = (owner: string, n: number) => sessionKey({ user: owner, conversation: `${n}` });
    await Promise.all(
      Array.from({ length: 30 }, async (_, n) => {
        await near.addMessages(keyOf(user, n), [say("old")]);
        await near.addMessages(keyOf(other, n), [say("other")]);
      }),
    );
    const [erased] = await Promise.all([
      near.deleteSessions({ user }),
      ...Array.from({ length: 30 }, (_, n) =>
        far.addMessages(keyOf(user, 100 + n), [say(`new ${n}`)]),
      ),
    ]);
    const remaining = await near.listSessions({ user, limit: 1_000 });
    for (const { key } of remaining.sessions) {
      same(texts(await near.getMessages(key)).length, 1, "A half-erased session is listed");
      holds(!texts(await near.getMessages(key)).includes("old"), "An erased session is back");
    }
    same(erased + remaining.sessions.length, 60, "Sessions vanished or were counted twice");
    same(
      (await near.listSessions({ user: other, limit: 1_000 })).sessions.length,
      30,
      "Erasing one user erased another",
    );
    same(await near.deleteSessions({ user }), remaining.sessions.length, "The rest is not there");
    same((await far.listSessions({ user })).sessions, [], "An erased user is still listed");
  });
}

function newCanary(): string {
  return `canary${randomBytes(8).toString("hex")}`;
}

function userOf(key: SessionKey): string {
  return /u:([^/]+)/.exec(key)?.[1] ?? "";
}
