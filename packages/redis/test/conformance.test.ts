import { testChatStore } from "@chatstore/core/conformance";
import { startRedis } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";

await withEngine(startRedis, ({ url }) => {
  testChatStore({
    name: "redis",
    module: new URL("../dist/index.js", import.meta.url),
    factory: "redisChatStore",
    options: (namespace) => ({ url, prefix: namespace }),
  });
});
