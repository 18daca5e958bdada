import { testChatStore } from "@chatstore/core/conformance";
import { startProxy, startRedis } from "@chatstore/engines";
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
