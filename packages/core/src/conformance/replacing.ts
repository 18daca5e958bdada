import type { NewMessage } from "../messages.js";
import { holds, refused, same } from "./claims.js";
import { abcde, ids, say, stored, texts } from "./messages.js";
import type { Handle } from "./remote.js";
import type { Subject } from "./subject.js";
import { test } from "./tools.js";

/** One step replaces the end of a conversation: "regenerate", "edit and resend", a continued answer. */
export function replacing(subject: Subject): void {
  const namespace = subject.namespace();
  const [x, y] = ["x", "y"].map((id) => say(id, { id, createdAt: new Date(2_000) })) as [
    ReturnType<typeof say>,
    ReturnType<typeof say>,
  ];

  test("what comes after a message goes, others take its place", async () => {
    const store = subject.open(namespace);
    for (const [after, kept] of [
      ["a", 1],
      ["c", 3],
      ["e", 5],
    ] as const) {
      const key = subject.key();
      await store.addMessages(key, abcde, { title: "Kittens", state: { facts: 1 } });
      const result = await store.replaceMessagesAfter(key, after, [x, y]);
      const { session, messages } = await store.readSession(key);
      const expected = [...abcde.slice(0, kept), x, y].map((message) => stored(message));
      same(messages, expected, `After ${after} the conversation goes on otherwise`);
      same(
        [result, session?.title, session?.state],
        [{ version: session?.version, messageCount: kept + 2 }, "Kittens", { facts: 1 }],
        "Version, count, title or state are other ones",
      );
      await store.addMessages(key, [say("next", { id: "next" })]);
      same(
        ids(await store.getMessages(key, { after: "x" })),
        ["y", "next"],
        "What is appended later does not come last",
      );
    }
  });

  test("after nothing it replaces all, and begins an absent session", async () => {
    const store = subject.open(namespace);
    const key = subject.key();
    await store.replaceMessagesAfter(key, null, abcde);
    same(ids(await store.getMessages(key)), ["a", "b", "c", "d", "e"], "It began no session");
    await store.replaceMessagesAfter(key, null, [x], { title: "New" });
    const { session, messages } = await store.readSession(key);
    same([ids(messages), session?.title], [["x"], "New"], "It did not replace all");
  });

  test("an id that goes may come again; one that stays may not", async () => {
    const store = subject.open(namespace);
    const key = subject.key();
    await store.addMessages(key, abcde);
    await store.replaceMessagesAfter(key, "c", [
      say("e, edited", { id: "e" }),
      abcde[3] as typeof x,
    ]);
    const found = await store.readSession(key);
    same(texts(found.messages), ["a", "b", "c", "e, edited", "d"], "The end is another one");
    for (const twice of ["a", "c"]) {
      const message = say(twice, { id: twice });
      const error = await refused(
        store.replaceMessagesAfter(key, "c", [x, message]),
        "DUPLICATE_MESSAGE",
        "One id names two messages",
      );
      same((error as { ids?: unknown }).ids, [twice], "The error names another id");
    }
    await refused(
      store.replaceMessagesAfter(key, "c", [x, x]),
      "DUPLICATE_MESSAGE",
      "One id twice in a batch",
    );
    same(await store.readSession(key), found, "A refused replacement changed the session");
  });

  test("far from the end of a long history", async () => {
    const store = subject.open(namespace);
    const key = subject.key();
    const long: NewMessage[] = Array.from({ length: 2_600 }, (_, n) =>
      say(`${n}`, { id: `m${n}` }),
    );
    await store.setMessages(key, long);
    const before = await store.getSession(key);
    await refused(
      store.replaceMessagesAfter(key, "m2400", [x, say("other", { id: "m3" })]),
      "DUPLICATE_MESSAGE",
      "An id far back names two messages",
    );
    same(await store.getSession(key), before, "A refused replacement changed the session");
    await store.replaceMessagesAfter(key, "m2590", [x]);
    await store.replaceMessagesAfter(key, "m1200", [
      y,
      say("again", { id: "m1300" }),
      say("again", { id: "x" }),
    ]);
    const { session, messages } = await store.readSession(key);
    same(
      [ids(messages), session?.messageCount],
      [[...long.slice(0, 1_201).map(({ id }) => id), "y", "m1300", "x"], 1_204],
      "A long history ends otherwise",
    );
    same(
      ids(await store.getMessages(key, { last: 4 })),
      ["m1200", "y", "m1300", "x"],
      "The newest",
    );
  });

  test("messages, title and state change in one step", async () => {
    const key = subject.key();
    const [near, far] = (await subject.handles(namespace, 2)) as [Handle, Handle];
    await near.addMessages(key, [say("begin", { id: "begin" }), say("0", { id: "n" })], {
      title: "0",
      state: { n: 0, other: "stays" },
    });
    const round = async (n: number) => {
      const messages = [say(`${n}`, { id: "n" })];
      const rest = { title: `${n}`, state: { n } };
      await (n % 2 === 0
        ? far.replaceMessagesAfter(key, "begin", messages, rest)
        : far.setMessages(key, [say("begin", { id: "begin" }), ...messages], rest));
    };
    let writing = true;
    const writes = (async () => {
      for (let n = 1; n <= 30; n++) await round(n);
    })().finally(() => {
      writing = false;
    });
    const reads = (async () => {
      while (writing) {
        const { session, messages } = await near.readSession(key);
        const seen = [texts(messages).at(-1), session?.title, `${session?.state["n"]}`];
        holds(new Set(seen).size === 1, `A reader saw a step in part: ${seen}`);
        same(session?.state["other"], "stays", "An entry that was not named is gone");
      }
    })();
    await Promise.all([writes, reads]);
    const result = await near.addMessages(key, [say("more", { id: "more" })], {
      state: { n: null },
      title: null,
    });
    const { session, messages } = await near.readSession(key);
    same(
      [ids(messages), session?.title, session?.state, session?.version],
      [["begin", "n", "more"], undefined, { other: "stays" }, result.version],
      "An append with title and state did something else",
    );
    same(
      await near.addMessages(key, [say("more", { id: "more" })], { state: { n: null } }),
      result,
      "A repeated append with state is no no-op",
    );
    const titled = await near.replaceMessagesAfter(key, "more", [], { title: "Last" });
    same(
      [(await near.getSession(key))?.title, titled.messageCount],
      ["Last", 3],
      "A title alone was not set",
    );
    same(
      await near.replaceMessagesAfter(key, "more", [], { title: "Last", state: { n: null } }),
      titled,
      "To replace nothing by nothing is no no-op",
    );
  });

  test("two tabs that regenerate the same answer: one wins, the other is told", async () => {
    const handles = (await subject.handles(namespace, 3)) as [Handle, Handle, Handle];
    for (let round = 0; round < 10; round++) {
      const key = subject.key();
      const { version } = await handles[0].addMessages(key, abcde);
      const results = await Promise.allSettled(
        handles.map((handle, n) =>
          handle.replaceMessagesAfter(key, "c", [say(`answer ${n}`, { id: `answer-${n}` })], {
            ifVersion: version,
          }),
        ),
      );
      const winners = results.flatMap(({ status }, n) => (status === "fulfilled" ? [n] : []));
      same(winners.length, 1, "Not one, and only one, of the answers was stored");
      same(
        ids(await handles[0].getMessages(key)),
        ["a", "b", "c", `answer-${winners[0]}`],
        "Another answer is stored than the one that was acknowledged",
      );
    }
  });
}
