import type { ChatStore } from "../chat-store.js";
import { holds, refused, same } from "./claims.js";
import { skewClock } from "./clock.js";
import { batchOf, brokenBatches, ids, say, texts } from "./messages.js";
import type { Handle } from "./remote.js";
import type { Subject } from "./subject.js";
import { test } from "./tools.js";

/** All readers, in all processes, see one order of appends. */
export function ordered(subject: Subject): void {
  test("whoever pages while others append misses nothing", async () => {
    const key = subject.key();
    const handles = await subject.handles(subject.namespace(), 4);
    const total = 4 * 30 * 3;
    const writers = handles.map((handle, index) =>
      handle.run("append", { key, label: `w${index}`, batches: 30, size: 3 }),
    );
    const readers = handles.map((handle, index) =>
      handle.run("follow", { key, total, limit: [1_000, 5, 1, 2][index] as number }),
    );
    const followed = await Promise.all(readers);
    await Promise.all(writers);
    const order = ids(await (handles[0] as Handle).getMessages(key));
    for (const [index, seen] of followed.entries()) {
      const missed = order.filter((id) => !seen.includes(id));
      same(missed, [], `Reader ${index} missed messages that turned up before others it had read`);
      same(seen, order, `Reader ${index} saw another order than the one stored`);
    }
  });

  test("all handles read the same order, and each writer's in the order it wrote", async () => {
    const key = subject.key();
    const handles = await subject.handles(subject.namespace(), 4);
    await Promise.all(
      handles.map((handle, index) =>
        handle.run("append", { key, label: `w${index}`, batches: 20, size: 2 }),
      ),
    );
    const orders = await Promise.all(handles.map((handle) => handle.getMessages(key)));
    const [order = []] = orders;
    for (const other of orders) same(ids(other), ids(order), "Two readers see two orders");
    same(brokenBatches(order), [], "Another writer's message stands within a batch");
    for (const [index] of handles.entries()) {
      same(
        ids(order).filter((id) => id.startsWith(`w${index}-`)),
        Array.from({ length: 20 }, (_, n) => [`w${index}-${n}.0`, `w${index}-${n}.1`]).flat(),
        "One writer's messages were reordered: answers stand before their questions",
      );
    }
  });

  if (subject.capabilities.multiProcess) {
    test("a machine whose clock is wrong does not change the order", async () => {
      const namespace = subject.namespace();
      const key = subject.key();
      const hour = 3_600_000;
      const handles = [
        subject.near(namespace),
        await subject.child(hour).open(subject.opening(namespace)),
        await subject.child(-hour).open(subject.opening(namespace)),
      ];
      const expected: string[] = [];
      for (let round = 0; round < 6; round++) {
        for (const [index, handle] of handles.entries()) {
          const text = `${round} by ${index}`;
          await handle.addMessages(key, [say(text)]);
          expected.push(text);
        }
      }
      for (const handle of handles) {
        same(
          texts(await handle.getMessages(key)),
          expected,
          "Order came from a clock: a machine whose clock is wrong shuffles the conversation",
        );
      }
    });
  }

  test("a clock that is set back does not change the order", async () => {
    const key = subject.key();
    const store = subject.open(subject.namespace());
    await store.addMessages(key, [say("first")]);
    const setRight = skewClock(-3_600_000);
    try {
      await store.addMessages(key, [say("second"), say("third")]);
    } finally {
      setRight();
    }
    await store.addMessages(key, [say("fourth")]);
    const expected = ["first", "second", "third", "fourth"];
    const loss = "Order came from a clock: when it is set back, answers stand before questions";
    same(texts(await store.getMessages(key)), expected, loss);
    same(texts(await store.getMessages(key, { last: 2 })), expected.slice(2), loss);
  });

  test("neither ids nor times of messages order them", async () => {
    const key = subject.key();
    const store = subject.open(subject.namespace());
    const expected: string[] = [];
    for (let batch = 0; batch < 5; batch++) {
      const messages = Array.from({ length: 5 }, (_, index) => {
        const number = 99 - batch * 5 - index;
        return say(`${number}`, {
          id: `id-${(number * 37) % 100}`,
          createdAt: new Date(batch % 2 === 0 ? 0 : number * 1_000),
        });
      });
      await store.addMessages(key, messages);
      expected.push(...messages.map(({ content }) => String(content)));
    }
    same(
      texts(await store.getMessages(key)),
      expected,
      "Messages were sorted by id or time: messages of one millisecond are shuffled",
    );
  });

  test("the order survives edits", async () => {
    const key = subject.key();
    const namespace = subject.namespace();
    const store = subject.open(namespace);
    const expected = Array.from({ length: 24 }, (_, index) => `m${index}`);
    await store.addMessages(
      key,
      expected.map((id) => say(id, { id })),
    );
    const check = (after: string) => checkOrder(store, key, expected, after);
    await check("a first batch");

    await store.deleteMessage(key, 3);
    expected.splice(3, 1);
    await check("a message was removed");

    await store.updateMessage(key, "m7", say("edited"));
    await check("a message was edited");

    await store.deleteLastMessage(key);
    expected.pop();
    await store.addMessage(key, say("new", { id: "new" }));
    expected.push("new");
    await check("the last was removed and another appended");

    await store.addMessage(key, say("inserted", { id: "inserted" }), 2);
    expected.splice(2, 0, "inserted");
    await check("one was inserted");

    await store.deleteMessage(key, 0);
    expected.shift();
    await store.addMessages(key, [say("back", { id: "m0" })]);
    expected.push("m0");
    await check("a removed id came back");

    await store.deleteMessagesAfter(key, "m9");
    expected.length = expected.indexOf("m9") + 1;
    await store.addMessages(key, batchOf("again", 3));
    expected.push("again.0", "again.1", "again.2");
    await check("the end was cut off and said anew");

    await store.setMessages(
      key,
      ["z", "y", "x"].map((id) => say(id, { id })),
    );
    expected.splice(0, expected.length, "z", "y", "x");
    await store.addMessage(key, say("w", { id: "w" }));
    expected.push("w");
    await check("everything was replaced");
    await checkOrder(subject.open(namespace), key, expected, "the store was opened anew");
  });

  test("what is removed from within a long session leaves every other message in its place", async () => {
    const key = subject.key();
    const store = subject.open(subject.namespace());
    const order = Array.from({ length: 450 }, (_, index) => `m${index}`);
    await store.addMessages(
      key,
      order.map((id) => say(id, { id })),
    );
    for (const index of [300, 20, 0]) {
      await store.deleteMessage(key, index);
      order.splice(index, 1);
      for (const id of ["m1", "m21", "m150", "m299", "m448"]) {
        const at = order.indexOf(id);
        const loss = `A page next to ${id} is wrong since the message at ${index} was removed`;
        const limit = 3;
        const after = await store.getMessages(key, { after: id, limit });
        same(texts(after), order.slice(at + 1, at + 1 + limit), loss);
        const before = await store.getMessages(key, { before: id, limit });
        same(texts(before), order.slice(Math.max(at - limit, 0), at), loss);
      }
    }
    await store.deleteMessagesAfter(key, "m400");
    order.length = order.indexOf("m400") + 1;
    await store.addMessage(key, say("new"));
    const loss = "Cutting the end off took other messages than those behind";
    same(texts(await store.getMessages(key)), [...order, "new"], loss);
  });

  test("whoever reads on where a page ended sees what was changed since", async () => {
    const namespace = subject.namespace();
    const [reader, writer] = [subject.open(namespace), subject.open(namespace)];
    const said = Array.from({ length: 12 }, (_, index) => say(`m${index}`, { id: `m${index}` }));
    const changes: Readonly<Record<string, [(key: string) => Promise<unknown>, string[]]>> = {
      nothing: [async () => {}, ["m4", "m5", "m6"]],
      "one was appended": [(key) => writer.addMessage(key, say("new")), ["m4", "m5", "m6"]],
      "one before was removed": [(key) => writer.deleteMessage(key, 0), ["m4", "m5", "m6"]],
      "the next was removed": [(key) => writer.deleteMessage(key, 4), ["m5", "m6", "m7"]],
      "one before was inserted": [
        (key) => writer.addMessage(key, say("new"), 1),
        ["m4", "m5", "m6"],
      ],
      "the next was edited": [
        (key) => writer.updateMessage(key, "m4", say("edited")),
        ["edited", "m5", "m6"],
      ],
      "all were turned round": [
        (key) => writer.setMessages(key, said.toReversed()),
        ["m2", "m1", "m0"],
      ],
    };
    for (const [name, [change, expected]] of Object.entries(changes)) {
      const key = subject.key();
      await writer.setMessages(key, said);
      await reader.getMessages(key, { limit: 4 });
      await change(key);
      const page = await reader.getMessages(key, { after: "m3", limit: 3 });
      same(texts(page), expected, `The next page is wrong: ${name} since the page before`);
    }
    const key = subject.key();
    await writer.setMessages(key, said);
    await reader.getMessages(key, { limit: 4 });
    await writer.deleteMessage(key, 3);
    await refused(
      reader.getMessages(key, { after: "m3", limit: 3 }),
      "MESSAGE_NOT_FOUND",
      "A reader goes on behind a message that was removed",
    );
  });

  test("the order holds beyond 1,000 messages", async () => {
    const key = subject.key();
    const store = subject.open(subject.namespace());
    const expected = Array.from({ length: 1_200 }, (_, index) => `m${index}`);
    for (const [start, end] of [
      [0, 1],
      [1, 12],
      [12, 112],
      [112, 1_105],
      [1_105, 1_200],
    ]) {
      await store.addMessages(
        key,
        expected.slice(start, end).map((id) => say(id, { id })),
      );
    }
    await checkOrder(store, key, expected, "1,200 messages", 100);
  });
}

/** Read a session in every way: whole, the newest, forwards and backwards in pages. */
async function checkOrder(
  store: ChatStore,
  key: string,
  expected: readonly string[],
  after: string,
  limit = 5,
): Promise<void> {
  const loss = (how: string) => `After ${after}, messages are out of order when read ${how}`;
  same(ids(await store.getMessages(key)), expected, loss("whole"));
  const newest = expected.slice(-limit);
  same(ids(await store.getMessages(key, { last: limit })), newest, loss("from the end"));
  same(
    ids(await store.getMessages(key, { limit })),
    expected.slice(0, limit),
    loss("from the start"),
  );
  const forwards = expected.slice(0, 1);
  const backwards = expected.slice(-1);
  for (let page = forwards; page.length > 0; ) {
    page = ids(await store.getMessages(key, { after: forwards.at(-1), limit }));
    holds(page.length <= limit, "A page was longer than its limit");
    forwards.push(...page);
  }
  for (let page = backwards; page.length > 0; ) {
    page = ids(await store.getMessages(key, { before: backwards[0], limit }));
    backwards.unshift(...page);
  }
  same(forwards, expected, loss("in pages forwards"));
  same(backwards, expected, loss("in pages backwards"));
}
