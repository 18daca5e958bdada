import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ChatStore, type ChatStoreConfig, openChatStore } from "@chatstore/core";
import { startMongoServer, startPostgresServer, startRedisServer } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import { afterAll, beforeAll, describe } from "vitest";

/** Where the conversations of a backend are stored. */
export interface Place {
  /** For child processes. */
  readonly config: ChatStoreConfig;
  /** For files beside them. */
  readonly folder: string;
  /** This process's own look at it; there once the tests run. */
  readonly store: () => ChatStore;
}

/** The tests, once for each backend that survives a kill. */
export async function onEveryBackend(define: (place: Place) => void): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "chatstore-e2e-"));
  afterAll(() => rmSync(folder, { recursive: true }));
  const on = (config: ChatStoreConfig & { backend: string }) =>
    describe(config.backend, () => {
      let store: ChatStore;
      beforeAll(async () => {
        store = await openChatStore(config);
      });
      afterAll(() => store.close());
      define({ config, folder: mkdtempSync(join(folder, "beside-")), store: () => store });
    });

  on({ backend: "sqlite", path: join(folder, "chat.db") });
  on({ backend: "file", dir: join(folder, "chats") });
  for (const [backend, start] of [
    ["postgres", startPostgresServer],
    ["redis", startRedisServer],
    ["mongo", startMongoServer],
  ] as const) {
    await withEngine<{ readonly url: string; stop(): Promise<void> }>(start, ({ url }) => {
      on({ backend, url });
    });
  }
}
