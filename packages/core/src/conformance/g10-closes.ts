import { setTimeout as delay } from "node:timers/promises";
import { calls } from "./calls.js";
import { holds, refused, rejection, same, within } from "./claims.js";
import { say, texts } from "./messages.js";
import { need, type Subject } from "./subject.js";
import { test } from "./tools.js";

/** After `close()` nothing runs any more. */
export function closes(subject: Subject): void {
  const namespace = subject.namespace();
  const patience = 20_000;

  test("after close() every method rejects with ClosedError", async () => {
    const key = subject.key("a");
    const store = subject.open(namespace);
    await store.addMessages(key, [say("a", { id: "a" })]);
    await within(patience, store.close(), "close() hangs");
    same(store.closed, true, "A closed store does not know it");
    for (const [name, call] of Object.entries(calls)) {
      const rejects = refused(call(store, key), "CLOSED", `${name} works after close()`);
      await within(patience, rejects, `${name} hangs after close()`);
    }
    await within(patience, store.close(), "A second close() hangs");
    const other = subject.open(namespace);
    same(texts(await other.getMessages(key)), ["a"], "Calls after close() changed the session");
  });

  test("close() may be called several times, and before open()", async () => {
    const store = subject.open(namespace);
    await within(patience, Promise.all([store.close(), store.close()]), "close() hangs");
    await refused(store.open(), "CLOSED", "A closed store was opened");
    const disposed = subject.open(namespace);
    await disposed.open();
    await within(patience, disposed[Symbol.asyncDispose](), "`await using` hangs");
    await refused(disposed.getKeys(), "CLOSED", "`await using` does not close the store");
  });

  test("close() waits for the writes that nobody awaited", async () => {
    const key = subject.key();
    const store = subject.open(namespace);
    const expected = Array.from({ length: 50 }, (_, index) => `m${index}`);
    for (const text of expected) void store.addMessage(key, say(text));
    await within(patience, store.close(), "close() hangs while writes are queued");
    same(
      texts(await subject.open(namespace).getMessages(key)),
      expected,
      "A server that shut down cleanly lost what was said last",
    );
  });

  test("close() throws what failed and nobody heard of, and has closed", async () => {
    const key = subject.key();
    const store = subject.open(namespace, { onError: () => {} });
    await store.addMessages(key, [say("a", { id: "a" })]);
    void store.addMessages(key, [say("other", { id: "a" })]);
    const error = await rejection(store.close(), "close() did not tell of a lost write");
    same(error.code, "DUPLICATE_MESSAGE", "close() threw something else");
    await refused(store.getMessages(key), "CLOSED", "A failed write kept the store open");
  });

  test("closing one handle leaves the others alone", async () => {
    const key = subject.key();
    const [first, second] = [subject.open(namespace), subject.open(namespace)];
    await Promise.all([first.open(), second.open()]);
    await first.addMessages(key, [say("a")]);
    await first.close();
    await second.addMessages(key, [say("b")]);
    same(texts(await second.getMessages(key)), ["a", "b"], "Closing one store closed another");
  });

  test("a closed store leaves no connection", async (context) => {
    const connections = need(context, subject.hooks.connections, "connections");
    const own = subject.namespace();
    const before = await connections(own);
    const stores = Array.from({ length: 3 }, () => subject.open(own));
    await Promise.all(
      stores.flatMap((store) =>
        Array.from({ length: 8 }, async () => {
          const key = subject.key();
          await store.addMessages(key, [say("a")]);
          await store.setMessages(key, [say("b")]);
          await store.getMessages(key);
        }),
      ),
    );
    const open = await connections(own);
    holds(open > before, `The connections hook sees ${open} with open stores, ${before} without`);
    await Promise.all(stores.map((store) => store.close()));
    // The other end hears of it a moment later.
    let left = await connections(own);
    for (let waited = 0; left > before && waited < 5_000; waited += 50) {
      await delay(50);
      left = await connections(own);
    }
    holds(left <= before, `${left - before} connections are left of stores that were closed`);
  });

  test("a process that closed its store can exit", async () => {
    const child = subject.child();
    const key = subject.key();
    const own = subject.namespace();
    const handle = await child.open(subject.opening(own, { ttl: 60_000 }));
    const unused = await child.open(subject.opening(own));
    const busy = await child.open(subject.opening(own));
    await handle.addMessages(key, [say("a")]);
    await rejection(handle.addMessages(key, [say("b")], { ifVersion: "stale" }), "Wrote");
    await handle.listSessions({ user: "alice" });
    await handle.purgeExpired();
    void busy.addMessages(key, [say("c")]);
    await within(
      patience,
      Promise.all([handle.close(), unused.close(), busy.close()]),
      "close() hangs",
    );
    await child.retire();
    same(
      await within(patience, child.exited, "The process does not exit: something is still open"),
      { code: 0, signal: null },
      "The process ended with an error",
    );
  });
}
