import { setTimeout as delay } from "node:timers/promises";
import type { SessionKey } from "../session-key.js";
import { untilWritten } from "./child.js";
import { holds, same } from "./claims.js";
import { batchOf, brokenBatches, ids, say, texts } from "./messages.js";
import type { Method } from "./remote.js";
import type { Acknowledged } from "./routines.js";
import { need, type Subject } from "./subject.js";
import { describe, test } from "./tools.js";

/** What is acknowledged survives the process. */
export function durable(subject: Subject): void {
  if (subject.capabilities.survives === "nothing") forgets(subject);
  else survives(subject);
  if (["engine", "host", "failover"].includes(subject.capabilities.survives)) {
    survivesEngine(subject);
  }
}

function forgets(subject: Subject): void {
  test("another handle of the process finds what a closed one wrote", async () => {
    const namespace = subject.namespace();
    const key = subject.key();
    const [first, second] = [subject.open(namespace), subject.open(namespace)];
    await second.open();
    await first.addMessages(key, batchOf("a", 3));
    const before = await first.readSession(key);
    await first.close();
    const loss = "A second handle on the same data has forgotten what was said";
    same(await second.readSession(key), before, loss);
    same(await subject.open(namespace).readSession(key), before, loss);
  });

  test("declares that nothing survives, and another process indeed finds nothing", async () => {
    const namespace = subject.namespace();
    const key = subject.key();
    const first = await subject.child().open(subject.opening(namespace));
    await first.addMessages(key, [say("hello")]);
    await first.close();
    const second = await subject.child().open(subject.opening(namespace));
    same(
      await second.getSession(key),
      undefined,
      "The store keeps data beyond its process: declare what it survives",
    );
  });
}

/** Of what survives the engine's own end, all that was acknowledged is there when it runs again. */
function survivesEngine(subject: Subject): void {
  test("what is acknowledged survives a crash of the engine", async (context) => {
    const crash = need(context, subject.hooks.crash, "crash");
    const namespace = subject.namespace();
    const store = subject.open(namespace, { onError: () => {} });
    const [written, edited, replaced, copied, erased, named] = Array.from({ length: 6 }, () =>
      subject.key(),
    ) as [SessionKey, SessionKey, SessionKey, SessionKey, SessionKey, SessionKey];
    const expected = new Map<string, string[]>();
    for (let round = 0; round < 3; round++) {
      const late = subject.key();
      const acknowledged: string[] = [];
      let crashed = false;
      const writing = (async () => {
        for (let n = 0; !crashed; n++) {
          await store.addMessages(late, [say(`${n}`, { id: `${n}` })]);
          if (!crashed) acknowledged.push(`${n}`);
        }
      })().catch(() => undefined);
      for (const key of [edited, replaced, erased]) await store.setMessages(key, batchOf("a", 3));
      await store.deleteMessages(copied);
      while (acknowledged.length === 0 && !crashed) await delay(1);
      // All at once, so that none of them is older than the crash by much.
      await Promise.all([
        store.addMessages(written, batchOf(`round${round}`, 3)),
        store.updateMessage(edited, "a.1", say(`edited ${round}`)),
        store.setMessages(replaced, batchOf(`b${round}`, 2)),
        store.forkSession(written, copied),
        store.deleteMessages(erased),
        store.setTitle(named, `title ${round}`),
        store.setState(named, { round }),
      ]);
      await crash(namespace);
      crashed = true;
      await writing;
      expected.set(late, acknowledged);
      const reader = subject.open(namespace);
      const loss = "It was acknowledged, the engine crashed, and it is gone";
      const whole = await reader.getMessages(written);
      same(brokenBatches(whole), [], loss);
      same(whole.length, 3 * (round + 1), loss);
      same(texts(await reader.getMessages(edited))[1], `edited ${round}`, loss);
      same(ids(await reader.getMessages(replaced)), [`b${round}.0`, `b${round}.1`], loss);
      holds((await reader.getMessages(copied)).length >= 3 * round, loss);
      same(await reader.getSession(erased), undefined, "What was erased is back after a crash");
      const session = await reader.getSession(named);
      same([session?.title, session?.state], [`title ${round}`, { round }], loss);
      for (const [key, some] of expected) {
        const found = new Set(ids(await reader.getMessages(key)));
        same(
          some.filter((id) => !found.has(id)),
          [],
          loss,
        );
      }
    }
  });
}

function survives(subject: Subject): void {
  test("a new handle finds everything that a closed one wrote", async () => {
    const namespace = subject.namespace();
    const key = subject.key();
    const first = subject.open(namespace);
    await first.addMessages(key, batchOf("a", 3));
    await first.setTitle(key, "Kittens");
    await first.setState(key, { llamaindex: { cursor: "a.1" } });
    const before = await first.readSession(key);
    await first.close();
    same(
      await subject.open(namespace).readSession(key),
      before,
      "After a restart the assistant has forgotten what was said",
    );
  });

  describe("killed at the instant when a call resolves", () => {
    const [a, b] = [subject.key("a"), subject.key("b")];
    const cases: readonly {
      readonly name: string;
      readonly calls: readonly [Method, unknown[]][];
      readonly expected: readonly string[];
      readonly flush?: boolean;
    }[] = [
      {
        name: "addMessages",
        calls: [["addMessages", [a, [say("3"), say("4")]]]],
        expected: ["0", "1", "2", "3", "4"],
      },
      {
        name: "addMessages of a new session",
        calls: [["addMessages", [b, [say("0")]]]],
        expected: ["0", "1", "2"],
      },
      {
        name: "addMessage at a position",
        calls: [["addMessage", [a, say("new"), 1]]],
        expected: ["0", "new", "1", "2"],
      },
      {
        name: "setMessages",
        calls: [["setMessages", [a, [say("x"), say("y")]]]],
        expected: ["x", "y"],
      },
      {
        name: "updateMessage",
        calls: [["updateMessage", [a, "m1", say("edited")]]],
        expected: ["0", "edited", "2"],
      },
      { name: "deleteMessage", calls: [["deleteMessage", [a, 0]]], expected: ["1", "2"] },
      { name: "deleteLastMessage", calls: [["deleteLastMessage", [a]]], expected: ["0", "1"] },
      {
        name: "deleteMessagesAfter",
        calls: [["deleteMessagesAfter", [a, "m0"]]],
        expected: ["0"],
      },
      {
        name: "replaceMessagesAfter",
        calls: [["replaceMessagesAfter", [a, "m0", [say("x")]]]],
        expected: ["0", "x"],
      },
      { name: "deleteMessages", calls: [["deleteMessages", [a]]], expected: [] },
      { name: "forkSession", calls: [["forkSession", [a, b]]], expected: ["0", "1", "2"] },
      {
        name: "flush, after calls that nobody awaited",
        calls: [
          ["addMessage", [a, say("3")]],
          ["deleteMessage", [a, 0]],
          ["addMessages", [a, [say("4"), say("5")]]],
          ["addMessages", [b, [say("other")]]],
        ],
        flush: true,
        expected: ["1", "2", "3", "4", "5"],
      },
    ];
    for (const { name, calls, expected, flush = false } of cases) {
      test(name, async () => {
        const namespace = subject.namespace();
        const child = subject.child();
        const handle = await child.open(subject.opening(namespace));
        await handle.addMessages(
          a,
          ["0", "1", "2"].map((text) => say(text, { id: `m${text}` })),
        );
        await handle.run("dieAfter", { calls, flush }).catch(() => undefined);
        await child.exited;
        const store = subject.open(namespace);
        same(
          texts(await store.getMessages(a)),
          expected,
          `${name} resolved, the process died, and the change is gone`,
        );
        if (calls.some(([, [, to]]) => to === b) || calls.some(([, [first]]) => first === b)) {
          holds(
            (await store.getSession(b)) !== undefined,
            `${name} resolved, the process died, and the session is gone`,
          );
        }
      });
    }

    test("setTitle and setState", async () => {
      const namespace = subject.namespace();
      const child = subject.child();
      const handle = await child.open(subject.opening(namespace));
      const calls: [Method, unknown[]][] = [
        ["setTitle", [a, "Kittens"]],
        ["setState", [a, { facts: ["likes kittens"] }]],
      ];
      await handle.run("dieAfter", { calls, flush: false }).catch(() => undefined);
      await child.exited;
      const session = await subject.open(namespace).getSession(a);
      same(
        { title: session?.title, state: session?.state },
        { title: "Kittens", state: { facts: ["likes kittens"] } },
        "setTitle and setState resolved, the process died, and the facts about the user are gone",
      );
    });
  });

  test("processes killed while they write lose nothing that was acknowledged", async () => {
    const namespace = subject.namespace();
    const keys = [subject.key(), subject.key()];
    const acknowledged: Acknowledged[] = [];
    for (let round = 0; round < 5; round++) {
      const child = subject.child();
      const handle = await child.open(subject.opening(namespace));
      const before = acknowledged.length;
      const writing = keys.map((key) =>
        handle.run("append", { key, label: `r${round}`, batches: 1e9, size: 3 }, (one) =>
          acknowledged.push(one as Acknowledged),
        ),
      );
      await untilWritten(Promise.all(writing), () => acknowledged.length > before);
      await delay(Math.random() * 60);
      await child.kill();
      await Promise.allSettled(writing);
    }
    const store = subject.open(namespace);
    for (const key of keys) {
      const messages = await store.getMessages(key);
      same(brokenBatches(messages), [], "A killed process left a part of a batch behind");
      const found = new Set(ids(messages));
      const lost = acknowledged.filter((one) => one.key === key && !found.has(`${one.batch}.2`));
      same(lost, [], "Messages were acknowledged and are gone after kill -9");
    }
  });
}
