import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Redis } from "ioredis";
import { debianPackage } from "./debian.js";
import { answers, climb, type Engine, installed, type Program } from "./engine.js";
import { freePort, removeFolder, ServerProcess, temporaryFolder } from "./server-process.js";

/** Settings of `redis.conf`, by name. */
export type RedisConfig = Readonly<Record<string, string | number>>;

/** A Redis or Valkey server of one's own. */
export interface RedisServer extends Engine {
  readonly port: number;
  readonly process: ServerProcess;
}

export interface RedisCluster extends Engine {
  /** Masters first, then each one's replica, in the masters' order. */
  readonly servers: readonly RedisServer[];
  readonly nodes: readonly { readonly host: string; readonly port: number }[];
}

export interface RedisSentinels extends Engine {
  /** The first one began as the master. */
  readonly servers: readonly RedisServer[];
  /** What a Sentinel client needs beside {@link masterName}. */
  readonly sentinels: readonly { readonly host: string; readonly port: number }[];
  readonly masterName: string;
  /** Port of the server that the sentinels call the master now. */
  masterPort(): Promise<number>;
}

const host = "127.0.0.1";

/** Acknowledged writes nearly always survive a crash of the server; with `appendfsync: "always"` they do, and one of the machine. */
const durable: RedisConfig = { appendonly: "yes", appendfsync: "everysec", save: "" };

/** The server that `REDIS_URL` names, otherwise a new one of one's own. */
export async function startRedis(): Promise<Engine> {
  const url = process.env["REDIS_URL"];
  if (url === undefined || url === "") return startRedisServer();
  return { name: "redis", url, version: "the server of REDIS_URL", stop: async () => {} };
}

/** A new server, on a free port and with a folder of its own. */
export async function startRedisServer(
  config: RedisConfig = {},
  place: { readonly port?: number; readonly folder?: string } = {},
): Promise<RedisServer> {
  const program = await redisProgram();
  const port = place.port ?? (await freePort());
  const folder = place.folder ?? temporaryFolder("redis");
  const server = new ServerProcess({
    program,
    args: toArguments({ port, bind: host, dir: folder, ...durable, ...config }),
    ready: /Ready to accept connections/,
  });
  await server.start();
  const version = /version=([\d.]+)/.exec(server.log)?.[1] ?? "";
  return {
    name: "redis",
    url: `redis://${host}:${port}`,
    version: `${/valkey/i.test(server.log) ? "Valkey" : "Redis"} ${version}`,
    port,
    process: server,
    crash: () => server.crash(),
    async stop() {
      await server.kill();
      removeFolder(folder);
    },
  };
}

/** Three masters with one replica each, ready to be used. */
export async function startRedisCluster(config: RedisConfig = {}): Promise<RedisCluster> {
  const servers = await Promise.all(
    Array.from({ length: 6 }, () =>
      startRedisServer({
        "cluster-enabled": "yes",
        "cluster-node-timeout": 5_000,
        "cluster-config-file": "nodes.conf",
        // A replica that has not heard of its master for a while may take over all the same.
        "cluster-replica-validity-factor": 0,
        "repl-diskless-sync-delay": 0,
        ...config,
      }),
    ),
  );
  const stop = async () => {
    await Promise.all(servers.map((server) => server.stop()));
  };
  try {
    await withClients(servers, formCluster);
  } catch (error) {
    await stop();
    throw error;
  }
  const [first] = servers as [RedisServer];
  const nodes = servers.map(({ port }) => ({ host, port }));
  return { name: "redis", url: first.url, version: first.version, servers, nodes, stop };
}

/** A master with replicas, watched over by three sentinels. */
export async function startRedisSentinels(
  options: { readonly replicas?: number; readonly config?: RedisConfig } = {},
): Promise<RedisSentinels> {
  const masterName = "main";
  const program = await redisProgram();
  const quick = { "repl-diskless-sync-delay": 0, ...options.config };
  const master = await startRedisServer(quick);
  const replicas = await Promise.all(
    Array.from({ length: options.replicas ?? 1 }, () =>
      startRedisServer({ ...quick, replicaof: `${host} ${master.port}` }),
    ),
  );
  const folder = temporaryFolder("sentinel");
  const sentinels = await Promise.all(
    [1, 2, 3].map(async () => {
      const port = await freePort();
      const file = join(folder, `${port}.conf`);
      writeFileSync(
        file,
        [
          `port ${port}`,
          `bind ${host}`,
          `dir ${folder}`,
          `sentinel monitor ${masterName} ${host} ${master.port} 2`,
          `sentinel down-after-milliseconds ${masterName} 1000`,
          `sentinel failover-timeout ${masterName} 5000`,
        ].join("\n"),
      );
      const server = new ServerProcess({
        program,
        args: [file, "--sentinel"],
        ready: /\+monitor master/,
      });
      await server.start();
      return { server, port };
    }),
  );
  const servers = [master, ...replicas];
  await withClients(servers, ([client]) =>
    until("the replicas to follow", async () => {
      const info = (await client?.info("replication")) ?? "";
      return (info.match(/state=online/g)?.length ?? 0) === replicas.length;
    }),
  );
  const watchers = sentinels.map(({ port }) => ({ host, port }));
  await withClients(watchers, (clients) =>
    until("the sentinels to know each other", async () => {
      const infos = await Promise.all(clients.map((client) => client.info("sentinel")));
      return infos.every((info) =>
        info.includes(`slaves=${replicas.length},sentinels=${watchers.length}`),
      );
    }),
  );
  return {
    name: "redis",
    url: master.url,
    version: master.version,
    servers,
    sentinels: watchers,
    masterName,
    masterPort: () =>
      withClients(watchers.slice(0, 1), async ([client]) => {
        const address = (await client?.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", masterName)) as [
          string,
          string,
        ];
        return Number(address[1]);
      }),
    async stop() {
      await Promise.all(sentinels.map(({ server }) => server.kill()));
      await Promise.all(servers.map((server) => server.stop()));
      removeFolder(folder);
    },
  };
}

function redisProgram(): Promise<Program> {
  return climb("redis", "redis-server", "install redis-server or valkey, or set REDIS_URL", [
    () => installed(["redis-server", "valkey-server"], ["/opt/homebrew/bin", "/usr/local/bin"]),
    () => debianPackage("redis-server", "usr/bin/redis-server"),
    downloaded,
  ]);
}

/** Compiles Redis from its source once, which takes a minute or two, and keeps it in its own cache. */
async function downloaded(): Promise<Program | undefined> {
  if (!installed(["make"])) return undefined;
  await answers("https://download.redis.io/");
  const module = await import("redis-memory-server/lib/util/RedisBinary.js");
  return { path: await module.default.default.getPath() };
}

function toArguments(config: RedisConfig): string[] {
  return Object.entries(config).flatMap(([name, value]) => [
    `--${name}`,
    ...(value === "" ? [""] : String(value).split(" ")),
  ]);
}

async function formCluster(clients: readonly Redis[]): Promise<void> {
  const masters = clients.slice(0, 3);
  const ids = await Promise.all(clients.map((client) => client.cluster("MYID")));
  await Promise.all(
    masters.map(async (client, index) => {
      const slots = Array.from({ length: 16_384 }, (_, slot) => slot);
      await client.cluster("SET-CONFIG-EPOCH", index + 1);
      await client.cluster("ADDSLOTS", ...slots.filter((slot) => slot % 3 === index));
    }),
  );
  const [first, ...others] = clients;
  for (const { options } of others) {
    await first?.cluster("MEET", host, String(options.port));
  }
  const converged = (test: (info: string) => boolean) => async () =>
    (await Promise.all(clients.map((client) => client.cluster("INFO")))).every(test);
  await until(
    "the nodes to know each other",
    converged((info) => info.includes(`cluster_known_nodes:${clients.length}`)),
  );
  await Promise.all(
    clients.slice(3).map((client, index) => client.cluster("REPLICATE", ids[index] as string)),
  );
  await until(
    "the cluster to be complete",
    converged((info) => info.includes("cluster_state:ok")),
  );
  await until("the replicas to follow", async () => {
    const infos = await Promise.all(masters.map((client) => client.info("replication")));
    return infos.every((info) => info.includes("state=online"));
  });
}

async function withClients<T>(
  servers: readonly { readonly port: number }[],
  use: (clients: readonly Redis[]) => Promise<T>,
): Promise<T> {
  const clients = servers.map(({ port }) => new Redis({ host, port }));
  try {
    return await use(clients);
  } finally {
    for (const client of clients) client.disconnect();
  }
}

/** Redis tells nobody when these things have happened: they have to be asked for. */
async function until(what: string, test: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!(await test())) {
    if (Date.now() > deadline) throw new Error(`Waited in vain for ${what}`);
    await delay(100);
  }
}
