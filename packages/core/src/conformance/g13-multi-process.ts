import { setTimeout as delay } from "node:timers/promises";
import { sessionKey } from "../session-key.js";
import { untilWritten } from "./child.js";
import { holds, same, within } from "./claims.js";
import { listAll } from "./lists.js";
import { batchOf, brokenBatches, ids, say } from "./messages.js";
import type { Handle } from "./remote.js";
import type { Acknowledged } from "./routines.js";
import type { Subject } from "./subject.js";
import { test } from "./tools.js";

/** Several processes on the same data; several handles in one process where a store cannot do that. */
export function multiProcess(subject: Subject): void {
  const namespace = subject.namespace();

  test("many may open an empty store at once", async () => {
    for (let round = 0; round < 4; round++) {
      const own = subject.namespace();
      const handles = await subject.handles(own, 4);
      const key = subject.key();
      await Promise.all(
        handles.map(async (handle, index) => {
          if (round % 2 === 0) await handle.open();
          await handle.addMessages(key, [say(`${index}`, { id: `${index}` })]);
        }),
      );
      same(
        ids(await (handles[0] as Handle).getMessages(key)).sort(),
        ["0", "1", "2", "3"],
        "Workers that started at the same time on an empty store lost messages",
      );
    }
  });

  test("processes that write to one session and to their own lose nothing", async () => {
    const handles = await subject.handles(namespace, 4);
    const shared = subject.key();
    const own = handles.map(() => subject.key());
    const [batches, size] = [25, 4];
    await Promise.all(
      handles.flatMap((handle, index) => [
        handle.run("append", { key: shared, label: `w${index}`, batches, size }),
        handle.run("append", { key: own[index] as string, label: "own", batches, size }),
      ]),
    );
    const orders = await Promise.all(
      handles.map(async (handle) => {
        const { session, messages } = await handle.readSession(shared);
        same(session?.messageCount, messages.length, "The count is not that of the messages");
        same(brokenBatches(messages), [], "Another process's message stands within a batch");
        return ids(messages);
      }),
    );
    same(orders[0]?.length, 4 * batches * size, "Concurrent processes lost messages");
    same(new Set(orders[0]).size, 4 * batches * size, "Concurrent processes doubled messages");
    for (const order of orders) same(order, orders[0], "Processes see different orders");
    for (const [index, key] of own.entries()) {
      const messages = await (handles[(index + 1) % 4] as Handle).getMessages(key);
      same(messages.length, batches * size, "A process lost another one's whole session");
    }
  });

  test("what one process wrote, every other one reads at once", async () => {
    const handles = await subject.handles(namespace, 3);
    const key = subject.key();
    for (let round = 0; round < 10; round++) {
      const writer = handles[round % 3] as Handle;
      const { version } = await writer.addMessages(key, [say(`${round}`)]);
      for (const handle of handles) {
        const { session, messages } = await handle.readSession(key);
        same(
          [session?.version, messages.length],
          [version, round + 1],
          "A user whose next request reached another worker finds the last message missing",
        );
      }
    }
    await (handles[1] as Handle).deleteMessages(key);
    for (const handle of handles) {
      same(await handle.getSession(key), undefined, "Another process still shows what was erased");
    }
  });

  test("state of several owners is merged, not overwritten", async () => {
    const handles = await subject.handles(namespace, 4);
    const key = subject.key();
    const rounds = 8;
    await Promise.all(
      handles.map(async (handle, index) => {
        for (let round = 1; round <= rounds; round++) {
          await handle.setState(key, { [`owner${index}`]: round });
          await handle.addMessages(key, [say(`${index} ${round}`)]);
        }
      }),
    );
    const { session, messages } = await (handles[0] as Handle).readSession(key);
    same(
      session?.state,
      { owner0: rounds, owner1: rounds, owner2: rounds, owner3: rounds },
      "One owner's state overwrote another's",
    );
    same(messages.length, 4 * rounds, "Writing state lost messages");
  });

  test("erasing while others append leaves whole batches that came after, or nothing", async () => {
    const handles = await subject.handles(namespace, 3);
    const [near, writer, eraser] = handles as [Handle, Handle, Handle];
    const user = subject.user();
    const key = sessionKey({ user });
    let written = 0;
    await near.addMessages(key, batchOf("old", 5));
    const writes = writer.run("append", { key, label: "w", batches: 40, size: 3 }, () => written++);
    const erases = (async () => {
      for (let round = 0; round < 10; round++) {
        if (round % 2 === 0) await eraser.deleteMessages(key);
        else await eraser.deleteSessions({ user });
      }
    })();
    await Promise.all([writes, erases]);
    const { session, messages } = await near.readSession(key);
    same(brokenBatches(messages), [], "Erasing left a part of a batch");
    same(session?.messageCount ?? 0, messages.length, "Erasing left a wrong count");
    holds(!ids(messages).some((id) => id.startsWith("old")), "What was erased came back");
    const numbers = messages.map(({ content }) => Number(/w-(\d+)/.exec(String(content))?.[1]));
    same(
      [...new Set(numbers)],
      Array.from({ length: messages.length / 3 }, (_, n) => 40 - messages.length / 3 + n),
      "Of what was written after the erasure, something is missing",
    );
    const { sessions } = await near.listSessions({ user });
    same(
      sessions.map((one) => [one.key, one.messageCount]),
      messages.length > 0 ? [[key, messages.length]] : [],
      "The user's list does not agree with the session",
    );
  });

  if (subject.capabilities.multiProcess && subject.capabilities.survives !== "nothing") {
    test("writers that are killed disturb neither readers nor other writers", async () => {
      const own = subject.namespace();
      const key = subject.key();
      const [near, writer, reader] = (await subject.handles(own, 3)) as [Handle, Handle, Handle];
      const acknowledged: string[] = [];
      const append = (handle: Handle, label: string, batches: number) =>
        handle.run("append", { key, label, batches, size: 5, text: "x".repeat(700) }, (one) =>
          acknowledged.push((one as Acknowledged).batch),
        );
      const victims = [subject.child(), subject.child()];
      const dying = victims.map(async (child, index) => {
        const label = `victim${index}`;
        const handle = await child.open(subject.opening(own));
        const writing = append(handle, label, 1e9);
        await untilWritten(writing, () => acknowledged.some((batch) => batch.startsWith(label)));
        await delay(Math.random() * 150);
        await child.kill();
        await writing.catch(() => undefined);
      });
      const write = async () => {
        await Promise.all([append(writer, "survivor", 60), ...dying]);
        await near.addMessages(key, batchOf("end", 1));
      };
      const following = reader.run("follow", { key, limit: 20, last: "end.0" });
      const [seen] = await Promise.all([following, write()]);
      const { session, messages } = await near.readSession(key);
      const order = ids(messages);
      same(seen, order.slice(0, seen.length), "A killed writer changed an order already read");
      same(brokenBatches(messages), [], "A killed writer left a part of a batch, or an old one");
      same(session?.messageCount, messages.length, "A killed writer left a wrong count");
      same(
        acknowledged.filter((batch) => !order.includes(`${batch}.4`)),
        [],
        "Beside a killed writer, acknowledged messages were lost",
      );
    });
  }

  if (
    subject.capabilities.multiProcess &&
    subject.capabilities.survives !== "nothing" &&
    process.platform !== "win32"
  ) {
    test("a process that is stopped while it writes holds up nobody for ever", async () => {
      const own = subject.namespace();
      const key = subject.key();
      const timeout = 1_500;
      const near = subject.near(own, { timeout });
      const patient = subject.near(own);
      await patient.addMessages(key, batchOf("first", 2));
      const acknowledged = ["first"];
      const refused = { notApplied: [] as string[], unknown: [] as string[] };
      const child = subject.child();
      const handle = await child.open(subject.opening(own));
      let ended = false;
      const args = { label: "stopped", batches: 1e9, size: 200, text: "x".repeat(100) };
      const writing = handle
        .run("append", { key, ...args }, (one) => acknowledged.push((one as Acknowledged).batch))
        .catch(() => undefined)
        .finally(() => {
          ended = true;
        });
      const itWrites = async () => {
        const before = acknowledged.length;
        while (acknowledged.length === before && !ended) await delay(1);
      };
      await itWrites();
      holds(!ended, "A process of its own could not append at all");
      // Until it was stopped between the beginning and the end of a write, on an engine where that is in anybody's way.
      for (
        let round = 0;
        round < 60 && refused.notApplied.length + refused.unknown.length < 2;
        round++
      ) {
        await delay(Math.random() * 5);
        child.pause();
        const batch = `beside${round}`;
        const calls = [
          near.addMessages(key, batchOf(batch, 2)),
          near.getMessages(key, { last: 2 }),
          near.setTitle(subject.key(), "another session"),
        ];
        const loss = "Beside a stopped process, a call";
        const results = await within(timeout + 9_000, Promise.allSettled(calls), loss);
        for (const [index, result] of results.entries()) {
          if (result.status === "fulfilled" && index === 0) acknowledged.push(batch);
          if (result.status === "fulfilled") continue;
          const { code, outcome, stack } = result.reason;
          holds(["BACKEND", "TIMEOUT"].includes(code), `${loss} failed otherwise: ${stack}`);
          if (index > 0) continue;
          refused[outcome === "unknown" ? "unknown" : "notApplied"].push(batch);
        }
        child.resume();
        // What it was in the middle of, it ends; and it is in nobody's way any more.
        await itWrites();
        await patient.addMessages(key, batchOf(`after${round}`, 2));
        acknowledged.push(`after${round}`);
        if (ended) break;
      }
      await child.kill();
      await writing;
      // One may have begun when it was out of time, on a slow disk.
      holds(
        refused.unknown.length < 2,
        "A write that waited for a stopped process, and never began, may have happened: its application cannot tell",
      );
      const messages = await patient.getMessages(key);
      const found = ids(messages);
      same(brokenBatches(messages), [], "A process that was stopped left a part of a batch");
      same(found.length, new Set(found).size, "A process that was stopped doubled messages");
      same(
        acknowledged.filter((batch) => !found.includes(`${batch}.1`)),
        [],
        "A process that was stopped, and went on, lost acknowledged messages",
      );
      same(
        refused.notApplied.filter((batch) => found.includes(`${batch}.0`)),
        [],
        "A write that was said not to have happened has happened",
      );
    });
  }

  test("a list of all sessions misses none while others come and go", async () => {
    const own = subject.namespace();
    const [near, far] = (await subject.handles(own, 2)) as [Handle, Handle];
    const lasting = Array.from({ length: 40 }, () => subject.key());
    await Promise.all(lasting.map((key) => near.addMessages(key, [say("x")])));
    let busy = true;
    const comeAndGo = async () => {
      while (busy) {
        const passing = Array.from({ length: 5 }, () => subject.key());
        await Promise.all(passing.map((key) => far.addMessages(key, [say("x")])));
        await Promise.all(lasting.slice(0, 10).map((key) => far.setTitle(key, passing[0] ?? "")));
        await Promise.all(passing.map((key) => far.deleteMessages(key)));
        await delay(1);
      }
    };
    const list = async () => {
      for (let round = 0; round < 5; round++) {
        const found = new Set((await listAll(near, { limit: 7 })).map(({ key }) => key));
        same(
          lasting.filter((key) => !found.has(key)),
          [],
          "An export while the application runs skips sessions",
        );
      }
    };
    const listed = list().finally(() => {
      busy = false;
    });
    await Promise.all([listed, comeAndGo()]);
  });
}
