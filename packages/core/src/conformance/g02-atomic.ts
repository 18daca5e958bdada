import { setTimeout as delay } from "node:timers/promises";
import type { NewMessage } from "../messages.js";
import { untilWritten } from "./child.js";
import { holds, refused, same } from "./claims.js";
import { batchOf, brokenBatches, say, texts } from "./messages.js";
import type { Handle } from "./remote.js";
import type { Subject } from "./subject.js";
import { test } from "./tools.js";

/** A batch is stored whole or not at all; no reader ever sees part of one. */
export function atomic(subject: Subject): void {
  test("no reader sees part of a batch while others append", async () => {
    const key = subject.key();
    const handles = await subject.handles(subject.namespace(), 4);
    const [near, first, second, far] = handles as [Handle, Handle, Handle, Handle];
    const total = 2 * 40 * 7;
    const append = (label: string) => ({ key, label, batches: 40, size: 7 });
    const [, , ...problems] = await Promise.all([
      first.run("append", append("a")),
      second.run("append", append("b")),
      near.run("watch", { key, total }),
      far.run("watch", { key, total }),
    ]);
    same(problems, [[], []], "A reader saw half of what was said at once");
  });

  test("a batch of the largest size is never seen in part", async () => {
    const key = subject.key();
    const [near, far] = (await subject.handles(subject.namespace(), 2)) as [Handle, Handle];
    const [, problems] = await Promise.all([
      far.run("append", { key, label: "large", batches: 3, size: 1_000 }),
      near.run("watch", { key, total: 3_000 }),
    ]);
    same(problems, [], "A reader saw a part of a large batch");
  });

  test("a batch of photographs is stored whole", async () => {
    const key = subject.key();
    const store = subject.open(subject.namespace());
    const photograph = "A".repeat(3 * 1024 * 1024);
    const batch = batchOf("photos", 3, photograph);
    same(
      (await store.addMessages(key, batch)).messageCount,
      3,
      "A batch of 9 MiB, within the limit of 12, was not stored whole",
    );
    const found = await store.getMessages(key, { last: 3 });
    same(brokenBatches(found), [], "Photographs of a batch are missing");
    holds(
      found.every(({ content }, index) => content === batch[index]?.content),
      "A photograph came back changed",
    );
  });

  test("a long history is read from one version while it is rewritten", async () => {
    const key = subject.key();
    const [near, far] = (await subject.handles(subject.namespace(), 2)) as [Handle, Handle];
    const histories = ["a", "b"].map((text, index) =>
      Array.from({ length: 1_500 + 700 * index }, (_, n) => say(text, { id: `${text}${n}` })),
    ) as [NewMessage[], NewMessage[]];
    await near.setMessages(key, histories[0]);
    let writing = true;
    const rewrite = async () => {
      for (const history of [1, 0, 1, 0, 1]) {
        await far.setMessages(key, histories[history] as NewMessage[]);
        await far.updateMessage(key, history === 0 ? "a0" : "b0", say("edited"));
      }
    };
    const read = async () => {
      while (writing) {
        const { session, messages } = await near.readSession(key);
        const found = new Set(messages.slice(1).map(({ content }) => content));
        same(
          [found.size, messages.length],
          [1, messages[1]?.content === "a" ? 1_500 : 2_200],
          "A reader saw a mixture of two versions of a long history",
        );
        same(session?.messageCount, messages.length, "The count is of another version");
        await delay(1);
      }
    };
    const rewritten = rewrite().finally(() => {
      writing = false;
    });
    await Promise.all([rewritten, read()]);
  });

  test("title, state and messages that are read together were there together", async () => {
    const namespace = subject.namespace();
    const key = subject.key();
    const writer = subject.near(namespace);
    const readers = [subject.near(namespace), ...(await subject.handles(namespace, 2))];
    await writer.addMessages(key, [say("first", { id: "first" })]);
    let writing = true;
    const write = async () => {
      for (let n = 0; n < 150; n++) {
        const both = { title: `${n}`, state: { n } };
        await writer.replaceMessagesAfter(key, "first", [say(`${n}`)], both);
      }
      writing = false;
    };
    const versions = new Map<string, string>();
    const read = async (reader: Handle) => {
      while (writing) {
        const { session, messages } = await reader.readSession(key);
        const text = messages.length < 2 ? undefined : texts(messages).at(-1);
        same(
          [session?.title, session?.state["n"]],
          [text, text === undefined ? undefined : Number(text)],
          "Messages were read with a title or a state of another time",
        );
        const version = session?.version ?? "";
        same(versions.get(version) ?? text, text, "One version was read with two contents");
        if (text !== undefined) versions.set(version, text);
      }
    };
    await Promise.all([write().finally(() => (writing = false)), ...readers.map(read)]);
  });

  test("a copied session appears with all its messages, title and state", async () => {
    const namespace = subject.namespace();
    const [near, far] = (await subject.handles(namespace, 2)) as [Handle, Handle];
    const key = subject.key();
    await near.addMessages(key, batchOf("a", 200));
    await near.setTitle(key, "Kittens");
    await near.setState(key, { facts: ["likes kittens"] });
    for (let round = 0; round < 5; round++) {
      const copy = subject.key();
      const appears = (async () => {
        for (;;) {
          const found = await near.readSession(copy);
          if (found.session !== undefined) return found;
          await delay(1);
        }
      })();
      const [, { session, messages }] = await Promise.all([far.forkSession(key, copy), appears]);
      same(
        {
          messages: messages.length,
          count: session?.messageCount,
          title: session?.title,
          state: session?.state,
        },
        { messages: 200, count: 200, title: "Kittens", state: { facts: ["likes kittens"] } },
        "A reader saw a part of a copied session",
      );
    }
  });

  test("a batch that is refused leaves nothing behind", async () => {
    const key = subject.key();
    const absent = subject.key();
    const store = subject.open(subject.namespace(), { limits: { batchBytes: 10_000 } });
    await store.addMessages(key, [say("hello", { id: "a" })]);
    const before = await store.readSession(key);
    const bad = { callback: () => {} };
    const batches: readonly [NewMessage[], Parameters<typeof refused>[1]][] = [
      [[say("new"), say("not JSON", { options: bad })], "SERIALIZATION"],
      [[say("new"), { content: "of nobody" } as never], "INVALID_MESSAGE"],
      [[say("new", { id: "n" }), say("twice", { id: "n" })], "DUPLICATE_MESSAGE"],
      [[say("new"), say("x".repeat(10_000))], "LIMIT_EXCEEDED"],
    ];
    for (const [batch, code] of batches) {
      for (const target of [key, absent]) {
        await refused(store.addMessages(target, batch), code, "A wrong batch was accepted");
      }
    }
    await refused(
      store.addMessages(key, [say("new"), say("other", { id: "a" })]),
      "DUPLICATE_MESSAGE",
      "Other content under a stored id was accepted",
    );
    same(await store.readSession(key), before, "A refused batch left something behind");
    same(await store.getSession(absent), undefined, "A refused batch created a session");
  });

  if (subject.capabilities.survives !== "nothing") {
    test("a process killed within large batches leaves each of them whole or absent", async () => {
      const namespace = subject.namespace();
      const key = subject.key();
      for (let round = 0; round < 4; round++) {
        const child = subject.child();
        const handle = await child.open(subject.opening(namespace));
        let acknowledged = 0;
        const args = { key, label: `r${round}`, batches: 1e9, size: 400 };
        const writing = handle.run("append", args, () => acknowledged++);
        await untilWritten(writing, () => acknowledged > 0);
        await delay(Math.random() * 40);
        await child.kill();
        await writing.catch(() => undefined);
      }
      const { session, messages } = await subject.open(namespace).readSession(key);
      same(brokenBatches(messages), [], "A killed process left a part of a batch behind");
      same(session?.messageCount, messages.length, "A killed process left a wrong count behind");
    });
  }
}
