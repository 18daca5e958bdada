import { parseServerUrl, refuseUrl } from "@chatstore/core";
import { Cluster, type ClusterNode, type ClusterOptions, Redis, type RedisOptions } from "ioredis";
import { withoutScript } from "./errors.js";

/** Which server, and how to reach it. One of `url`, `client`, `redis` and `cluster` must be given. */
export interface ConnectionOptions {
  /** `redis://[user:password@]host[:port][/db]`, with TLS `rediss://`. */
  readonly url?: string | undefined;
  /** A client of your own. It stays yours: `close()` leaves it open. */
  readonly client?: Redis | Cluster | undefined;
  /**
   * ioredis's own options, in place of `url` or beside it: `tls`, `password`, Sentinel (`sentinels` and `name`). With
   * `cluster`, they are those of the connections to its nodes.
   */
  readonly redis?: RedisOptions | undefined;
  /** Some nodes of a Redis Cluster, as URLs or `{ host, port }`. */
  readonly cluster?: readonly ClusterNode[] | undefined;
  /** ioredis's own options of the cluster: `natMap`, `dnsLookup`, … */
  readonly clusterOptions?: ClusterOptions | undefined;
  /**
   * Resolve a write only when so many replicas have it too (Redis's `WAIT`), so that it survives a failover to one of them.
   * With too few replicas a write fails with `outcome: "unknown"`. Default: 0. While the replicas are waited for, other
   * commands of the connection wait too.
   */
  readonly waitReplicas?: number | undefined;
}

/** Not by `instanceof`: a client that was passed in may come from another copy of ioredis. */
export function isCluster(client: Redis | Cluster): client is Cluster {
  return client.isCluster;
}

/** @param patience Milliseconds without an answer after which a connection is given up. */
export function createClient(options: ConnectionOptions, patience: number): Redis | Cluster {
  const connection = {
    connectTimeout: patience,
    socketTimeout: patience,
    disconnectTimeout: 500,
    keepAlive: 30_000,
    ...options.redis,
    lazyConnect: true,
    // What cannot be sent now fails now, and what was sent when a connection broke fails then: core knows what it may repeat.
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    // A name that leads to another server after a failover has to be looked up again.
    reconnectOnError: (error: Error) => withoutScript(error.message).startsWith("READONLY"),
  };
  if (options.cluster !== undefined) {
    const nodes = options.cluster.map((node) => (typeof node === "string" ? parseUrl(node) : node));
    const named = options.cluster.find((node) => typeof node === "string");
    // What one node's URL says of TLS and password holds for the nodes that it tells of, too.
    const { host, port, ...common } = named === undefined ? {} : parseUrl(named);
    return new Cluster(nodes as ClusterNode[], {
      slotsRefreshTimeout: patience,
      slotsRefreshInterval: 5_000,
      ...options.clusterOptions,
      redisOptions: { ...common, ...connection, ...options.clusterOptions?.redisOptions },
      lazyConnect: true,
      enableOfflineQueue: false,
      // Nor does a cluster's client send again later what its caller has given up by then.
      retryDelayOnFailover: 0,
      retryDelayOnClusterDown: 0,
    });
  }
  const retryStrategy = (attempt: number) => Math.min(25 * 2 ** Math.min(attempt, 10), 500);
  const { tls, ...server } = options.url === undefined ? {} : parseUrl(options.url);
  // What the options say of TLS, a certificate for example, is meant for the URL.
  const secure = tls && { tls: options.redis?.tls ?? tls };
  return new Redis({ retryStrategy, ...connection, ...server, ...secure });
}

/**
 * The parts of a URL, as ioredis takes them.
 *
 * @throws InvalidOptionsError that shows nothing of it.
 */
export function parseUrl(url: string): RedisOptions {
  const rules = {
    schemes: ["redis", "rediss"],
    example: "redis://user:password@localhost:6379/0, with TLS rediss://",
    parameters: ["db", "family"],
  };
  const { scheme, user, password, hosts, database, parameters } = parseServerUrl(url, rules);
  const refuse = (reason: string) => refuseUrl("The url", reason, rules.example);
  const db = database ?? parameters.get("db");
  if (db !== null && !/^\d{1,9}$/.test(db)) {
    refuse("has a database that is no number: Redis numbers them from 0");
  }
  const family = parameters.get("family");
  if (family !== null && !/^[046]$/.test(family)) {
    refuse("has a family that is not 4, 6 or 0 (either)");
  }
  const [server] = hosts;
  return {
    ...(server && { host: server.host }),
    ...(server?.port !== undefined && { port: server.port }),
    ...(user !== undefined && { username: user }),
    ...(password !== undefined && { password }),
    ...(db !== null && { db: Number(db) }),
    ...(family !== null && { family: Number(family) }),
    ...(scheme === "rediss" && { tls: {} }),
  };
}
