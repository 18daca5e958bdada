/**
 * Two copies of core in one process: npm gives the bridge one of its own where its range and the backend's do not meet.
 * Here the store is made by core's sources, and the bridge uses what is built of them.
 */
import * as built from "@chatstore/core";
import { createMemory } from "llamaindex";
import { expect, test } from "vitest";
import * as sources from "../../core/src/index.ts";
import { type PersistentMemoryOptions, persistentMemory } from "../src/index.ts";

const key = sources.sessionKey({ user: "alice" });

/** A store of the other copy, whose engine fails while `failure` says how. */
function otherStore() {
  const engine = { failure: undefined as Error | undefined, appends: 0 };
  const backend = new Proxy(new sources.MemoryBackend(), {
    get(target, name) {
      const member: unknown = Reflect.get(target, name, target);
      if (typeof member !== "function") return member;
      return async (...args: unknown[]) => {
        if (engine.failure !== undefined && name !== "close") throw engine.failure;
        if (name === "append") engine.appends++;
        return member.apply(target, args);
      };
    },
  });
  const store = new sources.ChatStore(backend, { timeout: 40, onError: () => {} });
  return { store, engine };
}

function open(store: sources.ChatStore, options: Partial<PersistentMemoryOptions> = {}) {
  return persistentMemory(createMemory, { store: store as never, key, ...options });
}

test("the two copies are two", () => {
  expect(built.ChatStore).not.toBe(sources.ChatStore);
});

test("what waits in memory is written when the store closes", async () => {
  const { store, engine } = otherStore();
  const memory = await open(store, { onError: () => {} });
  engine.failure = new sources.BackendError("away", { retryable: false, outcome: "not-applied" });
  await memory.add({ role: "user", content: "I am Alice" }).catch(() => undefined);
  engine.failure = undefined;
  await store.flush();
  expect(await store.getMessages(key)).toMatchObject([{ content: "I am Alice" }]);
});

test("a message that the client sends again without its time is stored once", async () => {
  const { store } = otherStore();
  const [memory, other] = [await open(store), await open(store)];
  await memory.add({ id: "m1", role: "user", content: "I am Alice" });
  await other.add({ id: "m1", role: "user", content: "I am Alice" });
  await other.flush();
  expect(await store.getMessages(key)).toHaveLength(1);
});

test("what the store refuses does not hold up what follows", async () => {
  const { store } = otherStore();
  const errors: Error[] = [];
  const memory = await open(store, { onError: (error) => errors.push(error) });
  void memory.add({ role: "user", content: "Hello", options: { callback: () => {} } });
  await memory.add({ role: "user", content: "I am Alice" });
  await expect(memory.flush()).rejects.toMatchObject({ code: "SERIALIZATION" });
  expect(errors).toHaveLength(1);
  expect(await store.getMessages(key)).toMatchObject([{ content: "I am Alice" }]);
});

test("a memory that is stale writes nothing more", async () => {
  const { store } = otherStore();
  const memory = await open(store, { stale: "refuse" });
  await store.addMessage(key, { role: "user", content: "from another tab" });
  for (const content of ["first", "second"]) {
    await expect(memory.add({ role: "user", content })).rejects.toMatchObject({
      code: "VERSION_CONFLICT",
    });
  }
  expect(await store.getMessages(key)).toHaveLength(1);
});
