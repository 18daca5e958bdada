import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import {
  BackendError,
  ChatStore,
  type ChatStoreBackend,
  type ChatStoreOptions,
  ClosedError,
  type FailureOutcome,
  InvalidOptionsError,
  MemoryBackend,
  memoryChatStore,
  sessionKey,
  TimeoutError,
} from "../src/index.ts";

const key = sessionKey({ user: "alice" });
const say = (content: string) => ({ role: "user" as const, content });

interface Fault {
  outcome: FailureOutcome;
  retryable: boolean;
  applied: boolean;
}

/** A memory store whose backend fails as told, before or after the operation took effect. */
function faulty(options: ChatStoreOptions = {}) {
  const faults: (Fault | undefined)[] = [];
  const calls: string[] = [];
  const backend = new MemoryBackend();
  const failing = new Proxy(backend, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name, target);
      if (typeof member !== "function") return member;
      return async (...args: unknown[]) => {
        const fault = name === "open" || name === "close" ? undefined : faults.shift();
        calls.push(String(name));
        if (fault === undefined) return member.apply(target, args);
        if (fault.applied) await member.apply(target, args);
        throw new BackendError("the line is down", fault);
      };
    },
  }) as ChatStoreBackend;
  return { store: new ChatStore(failing, options), faults, calls };
}

describe("a failing engine", () => {
  test("an append whose answer was lost is repeated and lands once", async () => {
    const { store, faults } = faulty();
    faults.push({ outcome: "unknown", retryable: true, applied: true });
    faults.push({ outcome: "unknown", retryable: true, applied: false });
    expect((await store.addMessages(key, [say("a"), say("b")])).messageCount).toBe(2);
    expect((await store.getMessages(key)).map((message) => message.content)).toEqual(["a", "b"]);
  });

  test("a replacement whose answer was lost is recognised by its version, not done again", async () => {
    const { store, faults, calls } = faulty();
    await store.addMessages(key, [say("a")]);
    faults.push(undefined, { outcome: "unknown", retryable: true, applied: true });
    calls.length = 0;
    expect((await store.setMessages(key, [say("z")])).messageCount).toBe(1);
    expect(calls).toEqual(["read", "replace", "replace"]);
  });

  test("when nobody can tell whether a replacement happened, the error says so", async () => {
    const { store, faults } = faulty();
    const backend = new MemoryBackend("contended");
    const other = new ChatStore(new MemoryBackend("contended"));
    const raced = new ChatStore(
      new Proxy(backend, {
        get(target, name) {
          const member: unknown = Reflect.get(target, name, target);
          if (name !== "replace" || faults.length === 0) {
            return typeof member === "function" ? member.bind(target) : member;
          }
          return async (...args: Parameters<MemoryBackend["replace"]>) => {
            faults.pop();
            await target.replace(...args);
            await other.addMessage(key, say("meanwhile"));
            throw new BackendError("cut", { retryable: true, outcome: "unknown" });
          };
        },
      }) as ChatStoreBackend,
    );
    faults.push({ outcome: "unknown", retryable: true, applied: true });
    await expect(raced.setMessages(key, [say("z")])).rejects.toMatchObject({
      code: "BACKEND",
      outcome: "unknown",
    });
    expect((await other.getMessages(key)).map((message) => message.content)).toEqual([
      "z",
      "meanwhile",
    ]);
    await store.close();
  });

  test("what is not retryable is thrown at once, with its cause", async () => {
    const { store, faults, calls } = faulty();
    faults.push({ outcome: "not-applied", retryable: false, applied: false });
    await expect(store.addMessage(key, say("a"))).rejects.toMatchObject({
      code: "BACKEND",
      outcome: "not-applied",
      retryable: false,
    });
    expect(calls).toEqual(["open", "append"]);
  });

  test("an error that no backend should throw is no time-out, and is not repeated", async () => {
    const backend = new MemoryBackend();
    const cause = new Error("boom");
    let calls = 0;
    backend.append = async () => {
      calls++;
      throw cause;
    };
    const store = new ChatStore(backend);
    const error = await store.addMessage(key, say("a")).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: "BACKEND", outcome: "unknown", retryable: false, cause });
    expect(error).not.toBeInstanceOf(TimeoutError);
    expect(calls).toBe(1);
  });

  test("attempts become rare: an engine that is away is not flooded", async () => {
    const { store, faults, calls } = faulty({ timeout: 1_500 });
    for (let n = 0; n < 1_000; n++) {
      faults.push({ outcome: "not-applied", retryable: true, applied: false });
    }
    await expect(store.addMessage(key, say("a"))).rejects.toMatchObject({ code: "BACKEND" });
    // 10, 20, 40, … 500 ms, at the least half of each: a slow machine makes fewer.
    expect(calls.filter((name) => name === "append").length).toBeLessThanOrEqual(12);
  });

  test("an outcome stays unknown when a later attempt is refused", async () => {
    const { store, faults } = faulty({ timeout: 200 });
    faults.push({ outcome: "unknown", retryable: true, applied: true });
    for (let n = 0; n < 1_000; n++) {
      faults.push({ outcome: "not-applied", retryable: true, applied: false });
    }
    await expect(store.addMessage(key, say("a"))).rejects.toMatchObject({ outcome: "unknown" });
    faults.length = 0;
    expect(await store.getMessages(key)).toHaveLength(1);
  });

  test("a copy whose answer was lost is repeated as it was, whatever became of its source", async () => {
    const backend = new MemoryBackend();
    const replace = backend.replace.bind(backend);
    const store = new ChatStore(backend);
    const copy = sessionKey({ user: "alice", conversation: "copy" });
    await store.addMessage(key, say("a"));
    backend.replace = async (...args) => {
      await replace(...args);
      backend.replace = replace;
      await new ChatStore(backend).deleteMessages(key);
      throw new BackendError("cut", { retryable: true, outcome: "unknown" });
    };
    expect((await store.forkSession(key, copy)).messageCount).toBe(1);
    expect((await store.getMessages(copy)).map(({ content }) => content)).toEqual(["a"]);
  });

  test("an outage ends within `timeout`, and the store goes on after it", async () => {
    const { store, faults } = faulty({ timeout: 200 });
    for (let i = 0; i < 1_000; i++)
      faults.push({ outcome: "not-applied", retryable: true, applied: false });
    await expect(store.addMessage(key, say("a"))).rejects.toMatchObject({
      code: "BACKEND",
      outcome: "not-applied",
      retryable: true,
    });
    faults.length = 0;
    expect((await store.addMessage(key, say("b"))).messageCount).toBe(1);
  });

  test("replacing does not starve beside a busy writer", async () => {
    const backend = new MemoryBackend("busy");
    const replace = backend.replace.bind(backend);
    let conflicts = 5;
    backend.replace = async (...args) => {
      if (conflicts-- > 0) await writer.addMessage(key, say("faster"));
      return replace(...args);
    };
    const read = vi.spyOn(backend, "read");
    const store = new ChatStore(backend);
    const writer = memoryChatStore({ name: "busy" });
    await store.setMessages(key, [say("z")]);
    expect((await writer.getMessages(key)).map((message) => message.content)).toEqual(["z"]);
    expect(read).toHaveBeenCalledTimes(1); // a conflict tells the version
  });

  test("a queue of writes fails within `timeout` as a whole, not one after the other", async () => {
    const { store, faults } = faulty({ timeout: 200 });
    for (let i = 0; i < 10_000; i++) {
      faults.push({ outcome: "not-applied", retryable: true, applied: false });
    }
    const began = performance.now();
    const writes = Array.from({ length: 50 }, () => store.addMessage(key, say("a")));
    const results = await Promise.allSettled(writes);
    expect(results.every(({ status }) => status === "rejected")).toBe(true);
    expect(performance.now() - began).toBeLessThan(5_000); // one by one it would be 10 s
  });

  test("a long queue does not time out while the engine answers", async () => {
    const backend = new MemoryBackend();
    const append = backend.append.bind(backend);
    backend.append = async (...args) => {
      await delay(20);
      return append(...args);
    };
    const store = new ChatStore(backend, { timeout: 500 });
    const writes = Array.from({ length: 50 }, () => store.addMessage(key, say("a")));
    expect((await Promise.all(writes)).at(-1)?.messageCount).toBe(50);
  });

  test("a backend that never answers is a TimeoutError of unknown outcome", async () => {
    const backend = new MemoryBackend();
    backend.append = () => new Promise(() => {});
    const store = new ChatStore(backend, { timeout: 50 });
    await expect(store.addMessage(key, say("a"))).rejects.toThrow(TimeoutError);
    await expect(store.addMessage(key, say("a"))).rejects.toMatchObject({ outcome: "unknown" });
  });

  test("an answer at the last moment counts, and the next call has its own time", async () => {
    const backend = new MemoryBackend();
    const append = backend.append.bind(backend);
    backend.append = async (target, records, patch, write, signal) => {
      await delay(5_000, undefined, { signal }).catch(() => undefined);
      // What was begun before the time was over is done just after it.
      return append(target, records, patch, write, new AbortController().signal);
    };
    const store = new ChatStore(backend, { timeout: 50 });
    expect((await store.addMessage(key, say("a"))).messageCount).toBe(1);
    const began = performance.now();
    expect((await store.addMessage(key, say("b"))).messageCount).toBe(2);
    expect(performance.now() - began).toBeGreaterThan(40);
  });

  test("a backend that cannot open is a TimeoutError that wrote nothing", async () => {
    const backend = new MemoryBackend();
    backend.open = () => new Promise(() => {});
    const store = new ChatStore(backend, { timeout: 50 });
    await expect(store.addMessage(key, say("a"))).rejects.toMatchObject({
      code: "TIMEOUT",
      outcome: "not-applied",
    });
  });
});

describe("a write that nobody awaits", () => {
  test("reports its failure to onError and flush, once, and later calls go on", async () => {
    const onError = vi.fn();
    const store = memoryChatStore({ onError });
    const unhandled = vi.fn();
    process.on("unhandledRejection", unhandled);
    onTestFinished(() => void process.off("unhandledRejection", unhandled));
    void store.addMessage("chat_history", say("lost"));
    void store.addMessage(key, say("kept"));
    await expect(store.flush()).rejects.toMatchObject({ code: "INVALID_SESSION_KEY" });
    await store.flush();
    await delay(10);
    expect(onError).toHaveBeenCalledTimes(1);
    expect(unhandled).not.toHaveBeenCalled();
    expect((await store.getMessages(key)).length).toBe(1);
  });

  test("several failures come as an AggregateError", async () => {
    const store = memoryChatStore({ onError: () => {} });
    void store.addMessage("a", say("x"));
    void store.addMessage("b", say("x"));
    await expect(store.close()).rejects.toThrow(AggregateError);
  });

  test("a failure that somebody handled is not reported a second time", async () => {
    const onError = vi.fn();
    const store = memoryChatStore({ onError });
    await expect(store.addMessages(key, [say("x")], { ifVersion: "never" })).rejects.toThrow(
      /absent/,
    );
    const refused = async () => await store.addMessage("chat_history", say("x"));
    await expect(refused()).rejects.toThrow(/chat_history/);
    await store.close();
    expect(onError).not.toHaveBeenCalled();
  });

  test("by default a failure is a process warning", async () => {
    const warned = new Promise<Error>((resolve) => process.once("warning", resolve));
    void memoryChatStore().addMessage("chat_history", say("lost"));
    expect(await warned).toMatchObject({ name: "ChatstoreWarning", message: /chat_history/ });
  });
});

describe("closing", () => {
  test("does not hang on an engine that does not answer", async () => {
    const backend = new MemoryBackend();
    const store = new ChatStore(backend, { timeout: 100, onError: () => {} });
    await store.open();
    backend.append = () => new Promise(() => {});
    for (let i = 0; i < 20; i++) void store.addMessage(key, say("a"));
    const error = await store.close().catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(AggregateError);
    expect((error as AggregateError).errors.at(-1)).toBeInstanceOf(ClosedError);
  });
});

describe("options", () => {
  test.each([
    { ttl: 0 },
    { ttl: 1.5 },
    { ttl: Number.MAX_SAFE_INTEGER },
    { ttl: "1d" },
    { timeout: -1 },
    { timeout: Number.POSITIVE_INFINITY },
    { migrate: "yes" },
    { limits: { messageBytes: 2 ** 30 } },
    { limits: { mesageBytes: 10 } },
  ])("refuses %j", (options) => {
    expect(() => memoryChatStore(options as ChatStoreOptions)).toThrow(InvalidOptionsError);
  });

  test("shared: one handle per set of options, and a new one after it was closed", async () => {
    const one = memoryChatStore({ shared: true, ttl: 1_000 });
    expect(memoryChatStore({ shared: true, ttl: 1_000 })).toBe(one);
    expect(memoryChatStore({ shared: true, ttl: 2_000 })).not.toBe(one);
    expect(memoryChatStore({ ttl: 1_000 })).not.toBe(one);
    await one.close();
    expect(memoryChatStore({ shared: true, ttl: 1_000 })).not.toBe(one);
    expect(() => memoryChatStore({ shared: true, client: new Map() } as ChatStoreOptions)).toThrow(
      /plain data/,
    );
  });
});
