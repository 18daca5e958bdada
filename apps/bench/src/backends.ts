/** The backends, each with its engine and its contestants. */
import { readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import type { ChatStoreConfig } from "@chatstore/core";
import type { Engine } from "@chatstore/engines";
import { type OpenContestant, type Place, relaxedOurs } from "./contestant.js";
import { openOurs } from "./ours.js";

export interface Backend {
  /** Whether the engine runs in this process. */
  readonly embedded: boolean;
  /** @throws EngineMissingError when there is none. */
  start(): Promise<{ readonly at: string; readonly version: string; stop(): Promise<void> }>;
  /** The store in a place. */
  config(place: Place): ChatStoreConfig;
  readonly ours: OpenContestant;
  readonly raw: OpenContestant;
  /** By name, measured when they are asked for. */
  readonly peers: Readonly<Record<string, OpenContestant>>;
  /** What a contestant's data takes, in bytes. */
  bytes(place: Place): Promise<number>;
  /** Let the engine do now what it would do soon after much was written. */
  settle(at: string): Promise<void>;
}

export type BackendName = "sqlite" | "file" | "postgres" | "redis" | "mongo";

/** Imported when they are used, as drivers are: a child process whose memory is measured loads its own driver only. */
const engines = () => import("@chatstore/engines");
const langchain = () => import("./peers/langchain.js");
const mastra = () => import("./peers/mastra.js");
const langgraph = () => import("./peers/langgraph.js");

interface Raw {
  open: OpenContestant;
  bytes: Backend["bytes"];
  settle?: Backend["settle"];
}

const relaxed = { survives: "process" };

/** @param embedded Its store can be told what a write survives. */
function backend(
  embedded: boolean,
  start: Backend["start"],
  config: Backend["config"],
  raw: () => Promise<Raw>,
  peers: Backend["peers"],
): Backend {
  return {
    embedded,
    start,
    config,
    ours: (place) => openOurs(config(place), embedded ? relaxed : {}),
    raw: async (place) => (await raw()).open(place),
    peers: {
      ...(embedded && {
        [relaxedOurs]: (place) => openOurs({ ...config(place), ...relaxed }, relaxed),
      }),
      ...peers,
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
    {
      mastra: async (place) => (await mastra()).openLibSQL(place),
      langgraph: async (place) => (await langgraph()).openSqlite(place),
    },
  ),
  file: backend(
    true,
    () => startFolder("files"),
    ({ at, namespace }) => ({ backend: "file", dir: join(at, namespace) }),
    () => import("./raw/file.js"),
    { langchain: async (place) => (await langchain()).openFile(place) },
  ),
  postgres: backend(
    false,
    server(async () => (await engines()).startPostgres(), "pg"),
    ({ at, namespace }) => ({ backend: "postgres", url: at, schema: namespace }),
    () => import("./raw/postgres.js"),
    {
      langchain: async (place) => (await langchain()).openPostgres(place),
      mastra: async (place) => (await mastra()).openPostgres(place),
      langgraph: async (place) => (await langgraph()).openPostgres(place),
    },
  ),
  redis: backend(
    false,
    server(async () => (await engines()).startRedis(), "ioredis"),
    ({ at, namespace }) => ({ backend: "redis", url: at, prefix: `${namespace}:` }),
    () => import("./raw/redis.js"),
    {
      langchain: async (place) => (await langchain()).openIoredis(place),
      "langchain-redis": async (place) => (await langchain()).openNodeRedis(place),
      mastra: async (place) => (await mastra()).openRedis(place),
    },
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
    {
      langchain: async (place) => (await langchain()).openMongo(place),
      mastra: async (place) => (await mastra()).openMongo(place),
      langgraph: async (place) => (await langgraph()).openMongo(place),
    },
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
