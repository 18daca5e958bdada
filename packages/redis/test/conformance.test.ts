import { testChatStore } from "@chatstore/core/conformance";
import { startRedis } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import { afterAll } from "vitest";
import { startHooks } from "./hooks.ts";

await withEngine(startRedis, async (redis) => {
  const { proxy, hooks, stop } = await startHooks(redis.url);
  afterAll(stop);
  testChatStore({
    name: "redis",
    module: new URL("../dist/index.js", import.meta.url),
    factory: "redisChatStore",
    options: (namespace) => ({ url: proxy.url, prefix: namespace }),
    unreachable: { url: "redis://:hunter2-canary@127.0.0.1:1" },
    hooks,
  });
});
