import { testChatStore } from "@chatstore/core/conformance";
import { startMongo } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import { afterAll } from "vitest";
import { startHooks } from "./hooks.ts";

await withEngine(startMongo, async (engine) => {
  const { proxy, hooks, stop } = await startHooks(engine);
  afterAll(stop);
  testChatStore({
    name: "mongo",
    module: new URL("../dist/index.js", import.meta.url),
    factory: "mongoChatStore",
    options: (namespace) => ({ url: proxy.url, collection: namespace }),
    unreachable: { url: "mongodb://root:hunter2-canary@127.0.0.1:1/?directConnection=true" },
    hooks,
    readable: true,
  });
});
