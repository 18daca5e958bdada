import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type Document, MongoClient } from "mongodb";
import { answers, climb, type Engine, installed, type Program } from "./engine.js";
import { freePort, removeFolder, ServerProcess, temporaryFolder } from "./server-process.js";

/** Command-line options of `mongod`, by name; `true` for one without a value. */
export type MongoConfig = Readonly<Record<string, string | number | true>>;

/** A MongoDB server of one's own. */
export interface MongoServer extends Engine {
  readonly port: number;
  readonly process: ServerProcess;
}

export interface MongoReplicaSet extends Engine {
  /** All members can vote and become the primary. The first one begins as it. */
  readonly servers: readonly MongoServer[];
  /** The member that takes writes now. */
  primary(): Promise<MongoServer>;
  /** Make the primary give up; resolves when it has. Another one follows within seconds. */
  stepDown(): Promise<void>;
}

const host = "127.0.0.1";
const replicaSet = "rs";
const settings: MongoConfig = {
  bind_ip: host,
  nounixsocket: true,
  wiredTigerCacheSizeGB: 0.5,
  setParameter: "diagnosticDataCollectionEnabled=false",
};

/** The server that `MONGODB_URL` names, otherwise a new standalone one of one's own. */
export async function startMongo(): Promise<Engine> {
  const url = process.env["MONGODB_URL"];
  if (url === undefined || url === "") return startMongoServer();
  return { name: "mongo", url, version: "the server of MONGODB_URL", stop: async () => {} };
}

/** A new standalone server, on a free port and with a folder of its own. */
export async function startMongoServer(config: MongoConfig = {}): Promise<MongoServer> {
  const program = await mongoProgram();
  const port = await freePort();
  const folder = temporaryFolder("mongo");
  const data = join(folder, "data");
  mkdirSync(data);
  const server = new ServerProcess({
    program,
    args: toArguments({ port, dbpath: data, ...settings, ...config }),
    ready: /Waiting for connections/i,
  });
  await server.start();
  const url = `mongodb://${host}:${port}/?directConnection=true`;
  return {
    name: "mongo",
    url,
    version: `MongoDB ${await versionOf(url)}`,
    port,
    process: server,
    crash: () => server.crash(),
    async stop() {
      await server.kill();
      removeFolder(folder);
    },
  };
}

/** Some members, the first of them elected. */
export async function startMongoReplicaSet(count = 3): Promise<MongoReplicaSet> {
  const servers = await Promise.all(
    Array.from({ length: count }, () => startMongoServer({ replSet: replicaSet })),
  );
  const [first] = servers as [MongoServer];
  const addresses = servers.map(({ port }) => `${host}:${port}`);
  const url = `mongodb://${addresses.join()}/?replicaSet=${replicaSet}`;
  const stop = async () => {
    await Promise.all(servers.map((server) => server.stop()));
  };
  try {
    await command(first.url, {
      replSetInitiate: {
        _id: replicaSet,
        members: addresses.map((address, index) => ({
          _id: index,
          host: address,
          priority: index === 0 ? 2 : 1,
        })),
        // A dead primary is noticed within a second, not ten.
        settings: { electionTimeoutMillis: 1_000, heartbeatIntervalMillis: 500 },
      },
    });
    await until("the members to follow a primary", async () => {
      const { members } = await command(first.url, { replSetGetStatus: 1 });
      const states = (members as { stateStr: string }[]).map(({ stateStr }) => stateStr);
      const followers = states.filter((state) => state === "SECONDARY").length;
      return states.includes("PRIMARY") && followers === count - 1;
    });
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    name: "mongo",
    url,
    version: first.version,
    servers,
    async primary() {
      const { me } = await command(url, { hello: 1 });
      return servers[addresses.indexOf(String(me))] as MongoServer;
    },
    async stepDown() {
      await command(url, { replSetStepDown: 5, secondaryCatchUpPeriodSecs: 5 });
    },
    stop,
  };
}

function mongoProgram(): Promise<Program> {
  return climb("mongo", "mongod", "install mongod (MongoDB 4.4 or later), or set MONGODB_URL", [
    () => installed(["mongod"], ["/opt/homebrew/bin"]),
    downloaded,
  ]);
}

/** Downloads MongoDB once, which takes a minute, and keeps it in its own cache. */
async function downloaded(): Promise<Program> {
  await answers("https://fastdl.mongodb.org/");
  const { MongoBinary } = await import("mongodb-memory-server-core");
  return { path: await MongoBinary.getPath() };
}

async function versionOf(url: string): Promise<string> {
  const { version } = await command(url, { buildInfo: 1 });
  return String(version);
}

async function command(url: string, request: Document): Promise<Document> {
  const client = new MongoClient(url);
  try {
    return await client.db("admin").command(request);
  } finally {
    await client.close();
  }
}

function toArguments(config: MongoConfig): string[] {
  return Object.entries(config).flatMap(([name, value]) =>
    value === true ? [`--${name}`] : [`--${name}`, String(value)],
  );
}

/** MongoDB tells nobody when this has happened: it has to be asked for. */
async function until(what: string, test: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!(await test())) {
    if (Date.now() > deadline) throw new Error(`Waited in vain for ${what}`);
    await delay(100);
  }
}
