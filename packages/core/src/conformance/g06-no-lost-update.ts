import { setTimeout as delay } from "node:timers/promises";
import type { ChatStore } from "../chat-store.js";
import { holds, refused, rejection, same } from "./claims.js";
import { ids, say, texts } from "./messages.js";
import { knowsOutcomes } from "./outcomes.js";
import type { Handle } from "./remote.js";
import type { Subject } from "./subject.js";
import { describe, test } from "./tools.js";

type ConditionalWrite = (
  handle: ChatStore | Handle,
  key: string,
  ifVersion: string | null,
  label: string,
) => Promise<{ version: string | null; messageCount: number }>;

/** Every method that takes `ifVersion`, as a write that changes a session of the messages a, b, c. */
const conditional: Readonly<Record<string, ConditionalWrite>> = {
  addMessages: (handle, key, ifVersion, label) =>
    handle.addMessages(key, [say(label)], { ifVersion }),
  setMessages: (handle, key, ifVersion, label) =>
    handle.setMessages(key, [say(label), say("b", { id: "b" })], { ifVersion }),
  updateMessage: (handle, key, ifVersion, label) =>
    handle.updateMessage(key, "b", say(label), { ifVersion }),
  deleteLastMessage: (handle, key, ifVersion) => handle.deleteLastMessage(key, { ifVersion }),
  deleteMessagesAfter: (handle, key, ifVersion) =>
    handle.deleteMessagesAfter(key, "a", { ifVersion }),
  replaceMessagesAfter: (handle, key, ifVersion, label) =>
    handle.replaceMessagesAfter(key, "a", [say(label)], { ifVersion }),
  setTitle: (handle, key, ifVersion, label) => handle.setTitle(key, label, { ifVersion }),
  setState: (handle, key, ifVersion, label) => handle.setState(key, { label }, { ifVersion }),
};
const abc = ["a", "b", "c"].map((id) => say(id, { id }));

/** Nobody's change is overwritten by somebody who had not seen it. */
export function withoutLostUpdates(subject: Subject): void {
  const namespace = subject.namespace();

  describe("a repetition of", () => knowsOutcomes(subject));

  for (const [name, write] of Object.entries(conditional)) {
    test(`${name} refuses another version than ifVersion`, async () => {
      const key = subject.key();
      const store = subject.open(namespace);
      const first = await store.addMessages(key, abc);
      const second = await store.setTitle(key, "somebody else was here");
      const before = await store.readSession(key);
      for (const stale of [first.version, null, "never-was"]) {
        const error = await refused(
          write(store, key, stale, "mine"),
          "VERSION_CONFLICT",
          `${name} overwrote a change that the writer had not seen`,
        );
        same(
          (error as { currentVersion?: unknown }).currentVersion,
          second.version,
          "The error does not carry the current version",
        );
      }
      same(await store.readSession(key), before, "A refused write changed the session");
      const third = await write(store, key, second.version, "mine");
      const after = await store.readSession(key);
      same(
        { version: after.session?.version, messageCount: after.messages.length },
        third,
        "A write does not return the version and count that it made",
      );
      holds(third.version !== second.version, `${name} changed the session and kept its version`);
    });

    test(`of racing ${name} on one version exactly one wins`, async () => {
      const handles = await subject.handles(namespace, 4);
      for (let round = 0; round < 5; round++) {
        const key = subject.key();
        const { version } = await (handles[0] as Handle).addMessages(key, abc);
        const results = await Promise.allSettled(
          handles.map((handle, index) => write(handle, key, version, `by ${index}`)),
        );
        const won = results.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
        const lost = results.flatMap((one) => (one.status === "rejected" ? [one.reason] : []));
        same(won.length, 1, `${won.length} of 4 writers were told that they alone wrote`);
        const after = await (handles[0] as Handle).readSession(key);
        same(
          { version: after.session?.version, messageCount: after.messages.length },
          won[0],
          "The session is not what the winner was told",
        );
        for (const error of lost) {
          same(
            [error.code, error.currentVersion],
            ["VERSION_CONFLICT", won[0]?.version],
            `A loser was not told of the winner's version: ${error.stack}`,
          );
        }
      }
    });
  }

  test("ifVersion null means that the session must not exist", async () => {
    const store = subject.open(namespace);
    for (const name of ["addMessages", "setMessages", "setTitle", "setState"]) {
      const write = conditional[name] as ConditionalWrite;
      const key = subject.key();
      const { version } = await write(store, key, null, "new");
      const error = await refused(
        write(store, key, null, "other"),
        "VERSION_CONFLICT",
        `${name} with ifVersion: null wrote to a session that exists`,
      );
      same((error as { currentVersion?: unknown }).currentVersion, version, "Wrong version");
      await store.deleteMessages(key);
      await write(store, key, null, "again");
      const absent = await refused(
        write(store, subject.key(), version, "new"),
        "VERSION_CONFLICT",
        `${name} with a version wrote to a session that does not exist`,
      );
      same((absent as { currentVersion?: unknown }).currentVersion, null, "Wrong version");
    }
    const key = subject.key();
    await store.setMessages(key, []);
    await refused(
      store.addMessages(key, [say("new")], { ifVersion: null }),
      "VERSION_CONFLICT",
      "An empty session was taken for an absent one",
    );
  });

  test("of many that begin a session at once exactly one does", async () => {
    const handles = await subject.handles(namespace, 4);
    const begin: readonly ((handle: Handle, key: string, label: string) => Promise<unknown>)[] = [
      (handle, key, label) => handle.addMessages(key, [say(label)], { ifVersion: null }),
      (handle, key, label) => handle.setMessages(key, [say(label)], { ifVersion: null }),
      (handle, key, label) =>
        handle.importSession(key, {
          messages: [say(label)],
          createdAt: new Date(0),
          updatedAt: new Date(0),
        }),
    ];
    for (const write of begin) {
      for (let round = 0; round < 5; round++) {
        const key = subject.key();
        const results = await Promise.allSettled(
          handles.map((handle, index) => write(handle, key, `by ${index}`)),
        );
        const winners = results.flatMap((one, index) =>
          one.status === "fulfilled" ? [index] : [],
        );
        same(winners.length, 1, `${winners.length} of 4 were told that they began the session`);
        same(
          texts(await (handles[0] as Handle).getMessages(key)),
          [`by ${winners[0]}`],
          "What is stored is not the winner's",
        );
      }
    }
  });

  test("counting by read and conditional write loses no count", async () => {
    const key = subject.key();
    const handles = await subject.handles(namespace, 3);
    const wins = 12;
    const versions = await Promise.all(
      handles.map((handle, index) => handle.run("compareAndSet", { key, label: `${index}`, wins })),
    );
    const session = await (handles[0] as Handle).getSession(key);
    same(session?.state["count"], 3 * wins, "Counts were lost: two writers won on one version");
    same(new Set(versions.flat()).size, 3 * wins, "Two changes have the same version");
  });

  test("a version never returns, also when the session is erased and begun anew", async () => {
    const key = subject.key();
    const store = subject.open(namespace);
    const seen: (string | null)[] = [];
    for (let round = 0; round < 3; round++) {
      seen.push((await store.addMessages(key, [say("a", { id: "a" })])).version);
      seen.push((await store.addMessages(key, [say("b", { id: "b" })])).version);
      seen.push((await store.setTitle(key, "Kittens")).version);
      seen.push((await store.setTitle(key, null)).version);
      seen.push((await store.updateMessage(key, "a", say("A"))).version);
      seen.push((await store.updateMessage(key, "a", say("a"))).version);
      seen.push((await store.setMessages(key, [say("a", { id: "a" })])).version);
      await store.deleteMessages(key);
    }
    same(new Set(seen).size, seen.length, "A version came back: a stale writer could win");
    holds(!seen.includes(null), "A write left no version");
    await store.addMessages(key, [say("a", { id: "a" })]);
    for (const version of seen) {
      await refused(
        store.addMessages(key, [say("stale")], { ifVersion: version }),
        "VERSION_CONFLICT",
        "A writer that knew the erased session wrote to the new one",
      );
    }
  });

  test("what changes nothing keeps the version", async () => {
    const key = subject.key();
    const store = subject.open(namespace);
    await store.addMessages(key, abc);
    await store.setTitle(key, "Kittens");
    await store.setState(key, { facts: [1] });
    const before = await store.readSession(key);
    const result = { version: before.session?.version, messageCount: 3 };
    const nothing: Readonly<Record<string, () => Promise<unknown>>> = {
      "an empty batch": () => store.addMessages(key, []),
      "a retry": () => store.addMessages(key, abc),
      "the same title": () => store.setTitle(key, "Kittens"),
      "the same state": () => store.setState(key, { facts: [1] }),
      "no state": () => store.setState(key, {}),
      "removing absent state": () => store.setState(key, { other: null }),
      "the same message": () => store.updateMessage(key, "b", say("b")),
      "cutting after the last": () => store.deleteMessagesAfter(key, "c"),
      "replacing nothing by nothing": () => store.replaceMessagesAfter(key, "c", []),
      "removing past the end": () => store.deleteMessage(key, 3),
    };
    for (const [name, write] of Object.entries(nothing)) {
      same(await write(), result, `${name}: not the current version and count`);
      same(await store.readSession(key), before, `${name} changed the session`);
    }
    await store.getMessages(key, { last: 1 });
    await store.listSessions({ user: "nobody" });
    await store.purgeExpired();
    same(await store.readSession(key), before, "Reading or sweeping changed the session");

    const absent = subject.key();
    for (const write of [
      () => store.addMessages(absent, []),
      () => store.setTitle(absent, null),
      () => store.setState(absent, { facts: null }),
      () => store.deleteLastMessage(absent),
      () => store.deleteMessage(absent, 0),
      () => store.deleteMessages(absent),
    ]) {
      same(await write(), { version: null, messageCount: 0 }, "Nothing, done to nothing");
      same(await store.getSession(absent), undefined, "Doing nothing created a session");
    }
  });

  test("setMessages is seen whole, and loses to nobody in part", async () => {
    const key = subject.key();
    const handles = await subject.handles(namespace, 3);
    const [near, writer, appender] = handles as [Handle, Handle, Handle];
    const contents = ["a", "b"].map((label, index) =>
      Array.from({ length: index === 0 ? 60 : 140 }, (_, n) => say(label, { id: `${label}${n}` })),
    );
    await near.setMessages(key, contents[0] as typeof abc);
    let writing = true;
    const replaces = (async () => {
      for (let round = 1; round <= 16; round++) {
        await writer.setMessages(key, contents[round % 2] as typeof abc);
      }
      writing = false;
    })();
    const appends = (async () => {
      for (let n = 0; writing; n++) {
        await appender.addMessages(key, [say("+", { id: `+${n}` })]);
        await delay(2);
      }
    })();
    const reads = (async () => {
      while (writing) {
        const { session, messages } = await near.readSession(key);
        const found = texts(messages).join("");
        holds(
          /^(a{60}|b{140})\+*$/.test(found),
          `A reader saw a mixture of an old and a new history: ${found}`,
        );
        same(session?.messageCount, messages.length, "The count is not of the same snapshot");
        await delay(1);
      }
    })();
    await Promise.all([replaces, appends, reads]);
    const found = texts(await near.getMessages(key)).join("");
    holds(/^a{60}\+*$/.test(found), `After all, the history is a mixture: ${found}`);
  });

  test("cutting off the end and a racing append happen one after the other", async () => {
    const [near, far] = (await subject.handles(namespace, 2)) as [Handle, Handle];
    for (let round = 0; round < 15; round++) {
      const key = subject.key();
      await near.addMessages(key, abc);
      const [cut, append] = await Promise.all([
        near.deleteMessagesAfter(key, "a"),
        far.addMessages(key, [say("new", { id: "new" })]),
      ]);
      const { session, messages } = await near.readSession(key);
      same(cut.messageCount, 1, "Cutting after the first message left more than one");
      const appendedFirst = append.messageCount === 4;
      same(
        { ids: ids(messages), version: session?.version, count: session?.messageCount },
        appendedFirst
          ? { ids: ["a"], version: cut.version, count: 1 }
          : { ids: ["a", "new"], version: append.version, count: 2 },
        "A message that was said before the cut is still there, or one said after it is gone",
      );
    }
  });

  test("racing edits of one session all take effect, or say that they did not", async () => {
    const key = subject.key();
    const handles = await subject.handles(namespace, 4);
    const count = 24;
    await (handles[0] as Handle).addMessages(
      key,
      Array.from({ length: count }, (_, n) => say(`${n}`, { id: `${n}` })),
    );
    await Promise.all(
      Array.from({ length: count }, (_, n) => {
        const handle = handles[n % handles.length] as Handle;
        return handle.updateMessage(key, `${n}`, say(`edited ${n}`));
      }),
    );
    same(
      texts(await (handles[0] as Handle).getMessages(key)),
      Array.from({ length: count }, (_, n) => `edited ${n}`),
      "An edit was overwritten by another one",
    );
    await Promise.all(handles.map((handle) => handle.deleteMessage(key, 0)));
    await Promise.all(handles.map((handle) => handle.deleteLastMessage(key)));
    same(
      ids(await (handles[0] as Handle).getMessages(key)),
      Array.from({ length: count - 8 }, (_, n) => `${n + 4}`),
      "Racing removals removed the wrong number of messages",
    );
  });

  test("racing copies to one session: one is made, the others are told", async () => {
    const handles = await subject.handles(namespace, 4);
    const [from, to] = [subject.key(), subject.key()];
    await (handles[0] as Handle).addMessages(from, abc);
    const results = await Promise.allSettled(handles.map((handle) => handle.forkSession(from, to)));
    same(
      results.filter(({ status }) => status === "fulfilled").length,
      1,
      "Several copies were made to one session",
    );
    const error = await rejection((handles[0] as Handle).forkSession(from, to), "Copied over");
    same(error.code, "VERSION_CONFLICT", "A copy onto a session that exists fails otherwise");
    same(ids(await (handles[0] as Handle).getMessages(to)), ["a", "b", "c"], "The copy is wrong");
  });
}
