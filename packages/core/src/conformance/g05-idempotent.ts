import type { NewMessage } from "../messages.js";
import { sessionKey } from "../session-key.js";
import type { SessionImport } from "../store-types.js";
import { holds, refused, same } from "./claims.js";
import { ids, say, texts } from "./messages.js";
import type { Handle } from "./remote.js";
import type { Subject } from "./subject.js";
import { describe, test } from "./tools.js";

/** A repeated append is one append. */
export function idempotent(subject: Subject): void {
  const namespace = subject.namespace();
  const a = say("a", { id: "a" });
  const b = say("b", { id: "b" });
  const c = say("c", { id: "c" });
  const times = { createdAt: new Date(0), updatedAt: new Date(0) };

  test("a repeated append changes nothing", async () => {
    const key = subject.key();
    const store = subject.open(namespace);
    const first = await store.addMessages(key, [a, b]);
    const before = await store.readSession(key);
    same(await store.addMessages(key, [a, b]), first, "A retry has another result");
    same(await store.addMessages(key, [b]), first, "A retry of a part has another result");
    same(await store.addMessages(key, [b, a]), first, "A retry in other order is other");
    same(await store.readSession(key), before, "A retried request stored a message twice");
    const fresh = subject.open(namespace);
    same(await fresh.addMessages(key, [a, b]), first, "A retry by another handle is other");
    same(await fresh.readSession(key), before, "A retry by another handle changed the session");
  });

  test("a repeated append does not look at ifVersion", async () => {
    const key = subject.key();
    const store = subject.open(namespace);
    const first = await store.addMessages(key, [a], { ifVersion: null });
    same(
      await store.addMessages(key, [a], { ifVersion: null }),
      first,
      "A client that repeats its first message is told of a conflict",
    );
    const second = await store.addMessages(key, [b], { ifVersion: first.version });
    same(
      await store.addMessages(key, [b], { ifVersion: first.version }),
      second,
      "A client that repeats a message is told of a conflict",
    );
    await refused(
      store.addMessages(key, [b, c], { ifVersion: first.version }),
      "VERSION_CONFLICT",
      "A new message was appended in spite of ifVersion, because another one was a retry",
    );
  });

  test("of a batch that is partly there, the missing ones are appended in its order", async () => {
    const key = subject.key();
    const store = subject.open(namespace);
    await store.addMessages(key, [b]);
    const result = await store.addMessages(key, [say("d", { id: "d" }), a, b, c]);
    same(
      ids(await store.getMessages(key)),
      ["b", "d", "a", "c"],
      "A retry after half a failure lost or reordered messages",
    );
    same(result.messageCount, 4, "The count is wrong after a partial retry");
  });

  test("an id twice in one batch is refused", async () => {
    const key = subject.key();
    const store = subject.open(namespace);
    for (const write of [
      () => store.addMessages(key, [a, b, a]),
      () => store.addMessages(key, [a, say("other", { id: "a" })]),
      () => store.setMessages(key, [a, b, a]),
      () => store.importSession(key, { messages: [a, b, a], ...times }),
    ]) {
      const error = await refused(write(), "DUPLICATE_MESSAGE", "An id was stored twice");
      same((error as { ids?: unknown }).ids, ["a"], "The error does not name the id");
    }
    same(await store.getSession(key), undefined, "A refused batch created a session");
  });

  test("other content under a stored id is refused, and nothing is written", async () => {
    const key = subject.key();
    const store = subject.open(namespace);
    const { version } = await store.addMessages(key, [a, b]);
    const before = await store.readSession(key);
    const others: NewMessage[] = [
      say("A", { id: "a" }),
      say("", { id: "a" }),
      say("a ", { id: "a" }),
      say("a\0", { id: "a" }),
      { ...a, role: "assistant" },
      { ...a, options: { toolCall: [] } },
      { ...a, annotations: [] },
      { ...a, content: [{ type: "text", text: "a" }] },
    ];
    for (const other of others) {
      for (const options of [{}, { ifVersion: version }, { ifVersion: "stale" }]) {
        const error = await refused(
          store.addMessages(key, [c, other], options),
          "DUPLICATE_MESSAGE",
          "Another message under the same id was taken for a retry, and is lost",
        );
        same((error as { ids?: unknown }).ids, ["a"], "The error does not name the id");
      }
    }
    same(await store.readSession(key), before, "A refused append changed the session");
  });

  test("content is compared as a value", async () => {
    const key = subject.key();
    const store = subject.open(namespace);
    const options = { toolCall: [{ id: "1", name: "f", input: { x: 1, y: [1n, new Date(5)] } }] };
    const first = await store.addMessages(key, [
      { id: "m", role: "assistant", content: "x", options },
    ]);
    const turned = { toolCall: [{ input: { y: [1n, new Date(5)], x: 1 }, name: "f", id: "1" }] };
    same(
      await store.addMessages(key, [{ options: turned, content: "x", role: "assistant", id: "m" }]),
      first,
      "The same message with its keys in another order was taken for another one",
    );
    for (const input of [
      { x: 1, y: [1, new Date(5)] },
      { x: 1, y: ["1", new Date(5)] },
      { x: 1, y: [new Date(5), 1n] },
      { x: "1", y: [1n, new Date(5)] },
    ]) {
      const other = { toolCall: [{ id: "1", name: "f", input }] };
      await refused(
        store.addMessages(key, [{ id: "m", role: "assistant", content: "x", options: other }]),
        "DUPLICATE_MESSAGE",
        "A tool call with other arguments was taken for a retry",
      );
    }
  });

  test("an inserted message is judged as an appended one", async () => {
    const key = subject.key();
    const store = subject.open(namespace);
    const first = await store.addMessages(key, [a, b, c]);
    for (const index of [0, 1, 3, -1]) {
      same(await store.addMessage(key, b, index), first, "A repeated insertion is no retry");
      await refused(
        store.addMessage(key, say("other", { id: "b" }), index),
        "DUPLICATE_MESSAGE",
        "Another message under a stored id was inserted",
      );
    }
    same(ids(await store.getMessages(key)), ["a", "b", "c"], "A repeated insertion was stored");
  });

  test("ids as long as they may be are told apart", async () => {
    const key = subject.key();
    const store = subject.open(namespace);
    const long = ["1", "2"].flatMap((end) => [
      `${"i".repeat(511)}${end}`,
      `${"é".repeat(255)}x${end}`,
    ]);
    const batch = long.map((id) => say(`under ${id}`, { id }));
    const first = await store.addMessages(key, batch);
    same(ids(await store.getMessages(key)), long, "A long id was cut short");
    same(await store.addMessages(key, batch), first, "A long id is not known again");
    await store.updateMessage(key, long[2] as string, say("edited"));
    same(
      texts(await store.getMessages(key, { after: long[1], limit: 1 })),
      ["edited"],
      "A long id was taken for one that is equal but for its end",
    );
  });

  describe("what a read returned can be given back", () => {
    const ways: Readonly<Record<string, (value: unknown) => unknown>> = {
      "as it is": (value) => value,
      "as a copy": (value) => structuredClone(value),
      "by way of JSON and a browser": (value) => JSON.parse(JSON.stringify(value)),
    };
    for (const [way, carry] of Object.entries(ways)) {
      test(way, async () => {
        const [key, copy, whole] = [subject.key(), subject.key(), subject.key()];
        const store = subject.open(namespace);
        const back = async (of: string) => carry(await store.getMessages(of)) as NewMessage[];
        await store.setMessages(key, carried());
        const first = await store.readSession(key);
        const { version } = first.session as { version: string };
        for (const again of [
          () => back(key).then((messages) => store.addMessages(key, messages)),
          () => back(key).then(([message]) => store.addMessage(key, message as NewMessage)),
          () => back(key).then(([message]) => store.addMessage(key, message as NewMessage, 0)),
          () =>
            back(key).then(([message]) =>
              store.updateMessage(key, String(message?.id), message as NewMessage),
            ),
        ]) {
          same((await again()).version, version, "A message given back was taken for another one");
        }
        same(await store.readSession(key), first, "Giving back what was read changed the session");
        await store.addMessages(key, [...(await back(key)), say("next")]);
        same(texts(await store.getMessages(key, { last: 2 })).at(-1), "next", "It is not appended");
        same(
          (await store.getMessages(key)).length,
          carried().length + 1,
          "Messages that were given back were stored a second time",
        );
        await store.setMessages(copy, await back(key));
        same(ids(await store.getMessages(copy)), ids(await store.getMessages(key)), "Ids changed");
        const replaced = await store.setMessages(key, await back(key));
        same(
          (await store.addMessages(key, await back(copy))).version,
          replaced.version,
          "A message that was replaced by itself is another one",
        );
        const session = carry(await store.getSession(key)) as never as SessionImport;
        await store.importSession(whole, { ...session, messages: await back(key) });
        const imported = (await store.getSession(whole))?.version;
        same(
          (await store.addMessages(whole, await back(key))).version,
          imported ?? null,
          "A message that was imported is another one",
        );
      });
    }
  });

  test("a time is no content, and the first one stays", async () => {
    const key = subject.key();
    const store = subject.open(namespace);
    const createdAt = new Date("2026-01-01T00:00:00.000Z");
    const filled = await store.addMessages(key, [a]);
    await new Promise((resolve) => setTimeout(resolve, 5));
    const given = await store.addMessages(key, [{ ...b, createdAt }]);
    for (const time of [undefined, new Date(+createdAt + 1), "2026-01-01T00:00:00+01:00"]) {
      same(
        await store.addMessages(key, [a, { ...b, createdAt: time }]),
        given,
        "A message that was sent again with another time was taken for another one",
      );
    }
    holds(filled.version !== given.version, "The second message was not appended");
    same((await store.getMessages(key))[1]?.createdAt, createdAt, "The time of a message changed");
  });

  test("an updated message is compared by its new content", async () => {
    const key = subject.key();
    const store = subject.open(namespace);
    await store.addMessages(key, [a, b]);
    const updated = await store.updateMessage(key, "a", say("A"));
    same(
      await store.addMessages(key, [say("A", { id: "a" })]),
      updated,
      "The edited message, sent again, was taken for another one",
    );
    await refused(store.addMessages(key, [a]), "DUPLICATE_MESSAGE", "Old content was accepted");
  });

  test("a removed id may return", async () => {
    const key = subject.key();
    const store = subject.open(namespace);
    await store.addMessages(key, [a, b, c]);
    await store.deleteMessage(key, 0);
    await store.addMessages(key, [say("A", { id: "a" })]);
    await store.deleteMessagesAfter(key, "b");
    await store.addMessages(key, [say("C", { id: "c" })]);
    await store.deleteLastMessage(key);
    await store.addMessages(key, [c]);
    same(texts(await store.getMessages(key)), ["b", "c"], "A removed id could not return");
    await store.setMessages(key, [b]);
    await store.addMessages(key, [a, c]);
    same(texts(await store.getMessages(key)), ["b", "a", "c"], "A replaced id could not return");
    await store.deleteMessages(key);
    await store.addMessages(key, [say("anew", { id: "b" })]);
    same(texts(await store.getMessages(key)), ["anew"], "An erased id could not return");
  });

  test("ids far back in a long history are known", async () => {
    const key = subject.key();
    const store = subject.open(namespace);
    // Far beyond what anybody takes for the newest ones.
    const expected = Array.from({ length: 2_100 }, (_, n) => `m${n}`);
    const text = "x".repeat(500);
    const long = expected.map((id) => say(`${id} ${text}`, { id }));
    for (let start = 0; start < 1_000; start += 50) {
      await store.addMessages(key, long.slice(start, start + 50));
    }
    await store.addMessages(key, long.slice(1_000, 2_000));
    await store.addMessages(key, long.slice(2_000));
    const far = [3, 333, 666, 996].map((n) => long[n] as NewMessage);
    const before = await store.getSession(key);
    for (const message of far) {
      same(
        (await store.addMessages(key, [message])).version,
        before?.version,
        "A retry of a message far back was stored again",
      );
      await refused(
        store.addMessages(key, [say("new"), say("other", { id: message.id })]),
        "DUPLICATE_MESSAGE",
        "Another message under an id far back was stored",
      );
    }
    await store.addMessages(key, [...far, say("new", { id: "new" })]);
    expected.push("new");
    for (const { id = "" } of far) {
      await store.updateMessage(key, id, say(`${id} edited`));
      await store.deleteMessage(key, expected.indexOf(id) - 1);
      const [removed = ""] = expected.splice(expected.indexOf(id) - 1, 1);
      await store.addMessages(key, [say(`${removed} again`, { id: removed })]);
      expected.push(removed);
      same(ids(await store.getMessages(key)), expected, "Edits far back went astray");
      same(
        texts(
          await store.getMessages(key, { after: expected[expected.indexOf(id) - 1], limit: 1 }),
        ),
        [`${id} edited`],
        "An edit far back is not read",
      );
    }
    await store.deleteMessagesAfter(key, "m300");
    expected.length = expected.indexOf("m300") + 1;
    await store.addMessages(key, [far[3] as NewMessage, long[2] as NewMessage]);
    expected.push("m996", "m2");
    // m2 had been removed and said again behind the cut.
    same(ids(await store.getMessages(key)), expected, "Ids beyond a cut could not return");
  });

  test("an id belongs to its session alone", async () => {
    const store = subject.open(namespace);
    const user = subject.user();
    const keys = [
      sessionKey({ user }),
      sessionKey({ user, conversation: "other" }),
      sessionKey({ tenant: "t1", user }),
      sessionKey({ tenant: "t2", user }),
    ];
    for (const key of keys) await store.addMessages(key, [say(`of ${key}`, { id: "m" }), a]);
    for (const key of keys) {
      same(
        texts(await store.getMessages(key)),
        [`of ${key}`, "a"],
        "The same message id in another session or tenant moved the message there",
      );
    }
    await store.deleteMessage(keys[0] as string, 0);
    await store.updateMessage(keys[1] as string, "m", say("edited"));
    same(
      texts(await store.getMessages(keys[2] as string)),
      [`of ${keys[2]}`, "a"],
      "Editing one session changed another with the same message id",
    );
  });

  test("messages without ids are different messages", async () => {
    const key = subject.key();
    const store = subject.open(namespace);
    const message = say("yes");
    await store.addMessages(key, [message, message]);
    await store.addMessages(key, [message]);
    const found = await store.getMessages(key);
    same(texts(found), ["yes", "yes", "yes"], "Saying the same again was taken for a retry");
    same(new Set(ids(found)).size, 3, "Messages were given equal ids");
  });

  test("the same message sent by many at once is stored once", async () => {
    const handles = await subject.handles(namespace, 4);
    for (let round = 0; round < 10; round++) {
      const key = subject.key();
      if (round % 2 === 0) await (handles[0] as Handle).addMessages(key, [say("before")]);
      const batch = [say("x", { id: "x" }), say("y", { id: "y" })];
      const results = await Promise.all(handles.map((handle) => handle.addMessages(key, batch)));
      const { session, messages } = await (handles[0] as Handle).readSession(key);
      same(
        ids(messages).filter((id) => id === "x" || id === "y"),
        ["x", "y"],
        "Two racing retries stored a message twice",
      );
      same(session?.messageCount, messages.length, "Racing retries left a wrong count");
      for (const result of results) {
        same(
          result,
          { version: session?.version, messageCount: messages.length },
          "Racing retries had different results",
        );
      }
    }
  });

  test("of different messages under one id sent at once, one is stored", async () => {
    const handles = await subject.handles(namespace, 4);
    for (let round = 0; round < 10; round++) {
      const key = subject.key();
      if (round % 2 === 0) await (handles[0] as Handle).addMessages(key, [say("before")]);
      const results = await Promise.allSettled(
        handles.map((handle, index) =>
          handle.addMessages(key, [say(`from ${index}`, { id: "x" }), say(`and ${index}`)]),
        ),
      );
      const winners = results.flatMap(({ status }, index) =>
        status === "fulfilled" ? [index] : [],
      );
      same(winners.length, 1, "Several writers were told that their message has the id");
      for (const result of results) {
        holds(
          result.status === "fulfilled" || result.reason.code === "DUPLICATE_MESSAGE",
          "A racing duplicate failed otherwise",
        );
      }
      same(
        texts(await (handles[0] as Handle).getMessages(key)).filter((text) => text !== "before"),
        [`from ${winners[0]}`, `and ${winners[0]}`],
        "What is stored is not what was acknowledged",
      );
    }
  });
}

/** Messages of which JSON leaves out something that it carries. */
function carried(): NewMessage[] {
  return [
    say("plain"),
    say("x", { options: { a: undefined, $: undefined, list: [undefined, { b: undefined }] } }),
    say("x", {
      annotations: [{ at: new Date(5), score: -0, none: Number.NaN }],
      createdAt: new Date(7),
    }),
    { ...say("x"), ...{ further: undefined, name: "alice", time: new Date(0) } },
    { role: "user", content: [{ type: "text", text: "\0\ud800", ...{ detail: undefined } }] },
    {
      role: "assistant",
      content: "",
      options: { toolCall: [{ id: "1", name: "f", input: { at: new Date(9), of: undefined } }] },
    },
    {
      role: "assistant",
      content: "",
      native: { format: "other/1", value: { parts: [undefined] } },
    },
  ];
}
