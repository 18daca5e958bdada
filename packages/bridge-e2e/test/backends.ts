import { mkdirSync, mkdtempSync, renameSync, rmdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ChatStore, type ChatStoreConfig, openChatStore } from "@chatstore/core";
import { startMongoServer, startPostgresServer, startRedisServer } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import Database from "better-sqlite3";
import { afterAll, beforeAll, describe as suite } from "vitest";

/** Where the conversations of a backend are stored. */
export interface Place {
  /** For child processes. */
  readonly config: ChatStoreConfig;
  /** For files beside them. */
  readonly folder: string;
  /** This process's own look at it; there once the tests run. */
  readonly store: () => ChatStore;
  /** How it can go away, by name. */
  readonly outages: Readonly<Record<string, Outage>>;
}

interface Outage {
  begin(): unknown;
  end(): unknown;
}

/** Where one backend says as much as all, it is named. */
const chosen = process.env["CHATSTORE_E2E_BACKENDS"]?.split(",");
const isChosen = (backend: string) => chosen?.includes(backend) ?? true;

/**
 * The tests, once for each backend that survives a kill.
 *
 * @param describe Default: that of vitest, so that one backend follows the other.
 */
export async function onEveryBackend(
  define: (place: Place) => void,
  describe: (name: string, define: () => void) => unknown = suite,
): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), "chatstore-e2e-"));
  afterAll(() => rmSync(root, { recursive: true }));
  const on = (config: ChatStoreConfig & { backend: string }, outages: Place["outages"]) => {
    if (!isChosen(config.backend)) return;
    describe(config.backend, () => {
      const folder = mkdtempSync(join(root, "beside-"));
      let store: ChatStore;
      beforeAll(async () => {
        store = await openChatStore(config);
      });
      afterAll(() => store.close());
      define({ config, folder, store: () => store, outages });
    });
  };

  const path = join(root, "chat.db");
  on({ backend: "sqlite", path }, { "is locked": lock(path) });
  const dir = join(root, "chats");
  on({ backend: "file", dir }, { "is not mounted": unmount(dir) });
  for (const [backend, start] of [
    ["postgres", startPostgresServer],
    ["redis", startRedisServer],
    ["mongo", startMongoServer],
  ] as const) {
    if (!isChosen(backend)) continue;
    await withEngine<Awaited<ReturnType<typeof start>>>(start, ({ url, process: server }) => {
      const killed = { begin: () => server.kill(), end: () => server.start() };
      const frozen = { begin: () => server.freeze(), end: () => server.thaw() };
      // Frozen, a PostgreSQL server goes on where it has connections: those are processes of their own.
      const outages = {
        "is killed": killed,
        ...(backend !== "postgres" && { "stands still": frozen }),
      };
      on({ backend, url }, outages);
    });
  }
}

/** Another program holds the database. */
function lock(path: string): Outage {
  let other: Database.Database;
  return {
    begin() {
      other = new Database(path);
      other.exec("BEGIN EXCLUSIVE");
    },
    end: () => other.close(),
  };
}

/** In place of the folder there is the empty one that it was mounted on. */
function unmount(dir: string): Outage {
  return {
    begin() {
      renameSync(dir, `${dir} away`);
      mkdirSync(dir);
    },
    end() {
      rmdirSync(dir);
      renameSync(`${dir} away`, dir);
    },
  };
}
