import { afterEach, describe, expect, test, vi } from "vitest";
import {
  type ChatStore,
  type ChatStoreOptions,
  createChatStore,
  InvalidOptionsError,
} from "../src/index.js";
import { MemoryBackend } from "../src/memory-backend.js";

/** A backend that keeps something open, as those of servers do. */
class Connected extends MemoryBackend {
  override readonly capabilities = {
    multiProcess: true,
    survives: "process",
    sweepsItself: false,
  } as never;
}

const stores: ChatStore[] = [];
afterEach(async () => {
  for (const store of stores.splice(0)) await store.close();
});

function make(options: object, Backend: new () => MemoryBackend = Connected): ChatStore {
  const own = Object.fromEntries(Object.keys(options).map((name) => [name, true as const]));
  const store = createChatStore("test", options as ChatStoreOptions, own, () => new Backend());
  stores.push(store);
  return store;
}

describe("a store made for each request", () => {
  test("is warned of once, however many follow", () => {
    const onWarning = vi.fn();
    const url = "redis://:hunter2@one";
    for (let n = 0; n < 30; n++) make({ url, onWarning });
    expect(onWarning.mock.calls).toEqual([
      [expect.stringMatching(/10 open test stores.*shared: true/)],
    ]);
    expect(onWarning.mock.calls[0]?.[0]).not.toContain("hunter2");
  });

  test("is nobody's concern where each is closed, or all are different, or nothing is open", async () => {
    const onWarning = vi.fn();
    for (let n = 0; n < 30; n++) {
      const store = make({ url: "two", onWarning });
      await Promise.all([store.close(), store.close()]);
      make({ url: `three ${n}`, onWarning });
      make({ url: "four", onWarning }, MemoryBackend);
      make({ client: new Map(), onWarning });
    }
    expect(onWarning).not.toHaveBeenCalled();
  });

  test("that is closed makes room, and does so once", async () => {
    const onWarning = vi.fn();
    const nine = Array.from({ length: 9 }, () => make({ url: "five", onWarning }));
    await nine[0]?.close();
    await nine[0]?.close();
    make({ url: "five", onWarning });
    expect(onWarning).not.toHaveBeenCalled();
    make({ url: "five", onWarning });
    expect(onWarning).toHaveBeenCalledOnce();
  });
});

describe("shared: true", () => {
  test("is one store for equal data, in whatever order, until it is closed", async () => {
    const one = make({ shared: true, url: "a", tls: { ca: "x", key: "y" }, onError: () => {} });
    expect(make({ tls: { key: "y", ca: "x" }, url: "a", shared: true, ttl: undefined })).toBe(one);
    for (const other of [{ url: "b" }, { url: "a" }, { url: "a", tls: { ca: "x", key: ["y"] } }]) {
      expect(make({ shared: true, ...other })).not.toBe(one);
    }
    await one.close();
    expect(make({ shared: true, url: "a", tls: { ca: "x", key: "y" } })).not.toBe(one);
  });

  const cycle: { self?: unknown } = {};
  cycle.self = cycle;
  const hostile = new Proxy(
    {},
    {
      ownKeys() {
        throw new Error("hunter2");
      },
    },
  );
  test.each([
    ["a client", { client: new Map() }, "options.client is an object of a class"],
    ["a date", { since: new Date(0) }, "options.since is an object of a class"],
    ["a URL", { url: new URL("redis://:hunter2@host") }, "options.url is an object of a class"],
    [
      "a function",
      { redis: { retryStrategy: () => 1 } },
      "options.redis.retryStrategy is a function",
    ],
    ["a bigint", { ttl: 1n }, "options.ttl is a bigint"],
    ["a symbol", { nodes: [Symbol("x")] }, "options.nodes[0] is a symbol"],
    ["what holds itself", { cycle }, "options.cycle.self is part of itself"],
    ["what cannot be read", { hostile }, "cannot be read"],
  ])("with %s is refused", (_, options, reason) => {
    let error: unknown;
    try {
      make({ shared: true, ...options });
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(InvalidOptionsError);
    expect((error as Error).message).toContain(reason);
    expect(String((error as Error).stack)).not.toContain("hunter2");
  });
});
