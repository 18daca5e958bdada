import { testChatStore } from "@chatstore/core/conformance";
import { startProxy, startRedis, startRedisServer } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import { afterAll } from "vitest";
import { hooksOf } from "./hooks.ts";

await withEngine(startRedis, async ({ url }) => {
  const proxy = await startProxy(url);
  afterAll(() => proxy.stop());
  testChatStore({
    name: "redis",
    module: new URL("../dist/index.js", import.meta.url),
    factory: "redisChatStore",
    options: (namespace) => ({ url: proxy.url, prefix: namespace }),
    unreachable: { url: "redis://:hunter2-canary@127.0.0.1:1" },
    hooks: hooksOf([url], proxy),
    readable: true,
  });
});

// A server that syncs each write promises more, so more is asked of it.
await withEngine(
  () => startRedisServer({ appendfsync: "always" }),
  ({ url, crash }) => {
    testChatStore({
      name: "redis, each write synced",
      module: new URL("../dist/index.js", import.meta.url),
      factory: "redisChatStore",
      options: (namespace) => ({ url, prefix: namespace }),
      guarantees: ["G1"],
      tests: ["what is acknowledged survives a crash of the engine"],
      hooks: { crash: async () => crash?.() },
    });
  },
);
