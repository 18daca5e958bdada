/** The backends, each with its engine and its contestants. */
import { readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import type { ChatStoreConfig } from "@chatstore/core";
import type { Engine } from "@chatstore/engines";
import type { OpenContestant, Place } from "./contestant.js";
import { openOurs } from "./ours.js";

export interface Backend {
  /** Whether the engine runs in this process. */
  readonly embedded: boolean;
  /** @throws EngineMissingError when there is none. */
  start(): Promise<{ readonly at: string; readonly version: string; stop(): Promise<void> }>;
  /** The store in a place. */
  config(place: Place): ChatStoreConfig;
  /** By name. `ours` and `raw` are always there. */
  readonly contestants: Readonly<Record<"ours" | "raw", OpenContestant>> &
    Readonly<Record<string, OpenContestant>>;
  /** What a contestant's data takes, in bytes. */
  bytes(place: Place): Promise<number>;
  /** Let the engine do now what it would do soon after much was written. */
  settle(at: string): Promise<void>;
}

export type BackendName = "sqlite" | "file" | "postgres" | "redis" | "mongo";

/** Imported when they are used, as drivers are: a child process whose memory is measured loads its own driver only. */
const engines = () => import("@chatstore/engines");

interface Raw {
  open: OpenContestant;
  bytes: Backend["bytes"];
  settle?: Backend["settle"];
}

/** @param relaxed Options of the store for filling. */
function backend(
  embedded: boolean,
  start: Backend["start"],
  config: Backend["config"],
  raw: () => Promise<Raw>,
  relaxed: object = {},
): Backend {
  return {
    embedded,
    start,
    config,
    contestants: {
      ours: (place) => openOurs(config(place), relaxed),
      raw: async (place) => (await raw()).open(place),
    },
    bytes: async (place) => (await raw()).bytes(place),
    settle: async (at) => (await raw()).settle?.(at),
  };
}

export const backends: Readonly<Record<BackendName, Backend>> = {
  sqlite: backend(
    true,
    () => startFolder("SQLite", "better-sqlite3"),
    ({ at, namespace }) => ({ backend: "sqlite", path: join(at, `${namespace}.db`) }),
    () => import("./raw/sqlite.js"),
    { survives: "process" },
  ),
  file: backend(
    true,
    () => startFolder("files"),
    ({ at, namespace }) => ({ backend: "file", dir: join(at, namespace) }),
    () => import("./raw/file.js"),
    { survives: "process" },
  ),
  postgres: backend(
    false,
    server(async () => (await engines()).startPostgres(), "pg"),
    ({ at, namespace }) => ({ backend: "postgres", url: at, schema: namespace }),
    () => import("./raw/postgres.js"),
  ),
  redis: backend(
    false,
    server(async () => (await engines()).startRedis(), "ioredis"),
    ({ at, namespace }) => ({ backend: "redis", url: at, prefix: `${namespace}:` }),
    () => import("./raw/redis.js"),
  ),
  mongo: backend(
    false,
    server(async () => (await engines()).startMongo(), "mongodb"),
    ({ at, namespace }) => ({
      backend: "mongo",
      url: at,
      database: "bench",
      collection: namespace,
    }),
    () => import("./raw/mongo.js"),
  ),
};

async function startFolder(what: string, driver?: string) {
  const at = (await engines()).temporaryFolder("bench");
  return {
    at,
    version: [what, driver && versionOf(driver)].filter(Boolean).join(", "),
    async stop() {
      rmSync(at, { recursive: true, force: true });
    },
  };
}

function server(start: () => Promise<Engine>, driver: string): Backend["start"] {
  return async () => {
    const { url: at, version, stop } = await start();
    return { at, version: `${version}, ${versionOf(driver)}`, stop };
  };
}

/** `pg 8.16.0` */
function versionOf(module: string): string {
  const path = createRequire(import.meta.url).resolve(`${module}/package.json`);
  const { version } = JSON.parse(readFileSync(path, "utf8")) as { version: string };
  return `${module} ${version}`;
}
