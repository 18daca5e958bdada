import { testChatStore } from "@chatstore/core/conformance";
import { startPostgres, startProxy } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import { afterAll } from "vitest";
import { hooksOf } from "./hooks.js";

await withEngine(startPostgres, async (engine) => {
  const proxy = await startProxy(engine.url);
  afterAll(() => proxy.stop());
  testChatStore({
    name: "postgres",
    module: new URL("../dist/index.js", import.meta.url),
    factory: "postgresChatStore",
    options: (namespace) => ({ url: proxy.url, schema: namespace }),
    unreachable: { url: "postgres://postgres:hunter2-canary@127.0.0.1:1/postgres" },
    hooks: hooksOf(engine, proxy),
    readable: true,
  });
});
