import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ChatStore, type ChatStoreConfig, openChatStore } from "@chatstore/core";
import { startMongoServer, startPostgresServer, startRedisServer } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import { afterAll, beforeAll, describe } from "vitest";

/** The tests, once for each backend that the machine has. */
export async function onEveryBackend(
  define: (config: ChatStoreConfig, store: () => ChatStore) => void,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "chatstore-langchain-"));
  afterAll(() => rmSync(folder, { recursive: true }));
  const on = (config: ChatStoreConfig & { backend: string }) => {
    describe(config.backend, () => {
      let store: ChatStore;
      beforeAll(async () => {
        store = await openChatStore(config);
      });
      afterAll(() => store.close());
      define(config, () => store);
    });
  };
  on({ backend: "sqlite", path: join(folder, "chat.db") });
  on({ backend: "file", dir: join(folder, "chats") });
  for (const [backend, start] of [
    ["postgres", startPostgresServer],
    ["redis", startRedisServer],
    ["mongo", startMongoServer],
  ] as const) {
    await withEngine<Awaited<ReturnType<typeof start>>>(start, ({ url }) => on({ backend, url }));
  }
}
