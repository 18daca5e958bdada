import { InvalidOptionsError } from "@chatstore/core";
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
    return new Cluster([...options.cluster], {
      slotsRefreshTimeout: patience,
      slotsRefreshInterval: 5_000,
      ...options.clusterOptions,
      redisOptions: { ...connection, ...options.clusterOptions?.redisOptions },
      lazyConnect: true,
      enableOfflineQueue: false,
      // Nor does a cluster's client send again later what its caller has given up by then.
      retryDelayOnFailover: 0,
      retryDelayOnClusterDown: 0,
    });
  }
  const retryStrategy = (attempt: number) => Math.min(25 * 2 ** Math.min(attempt, 10), 500);
  return options.url === undefined
    ? new Redis({ retryStrategy, ...connection })
    : new Redis(options.url, { retryStrategy, ...connection });
}

/** Before ioredis takes anything else for a path or a host. The URL is not shown: where its password begins cannot be told. */
export function checkUrl(url: string): void {
  if (typeof url !== "string" || !/^rediss?:\/\/\S/.test(url) || !URL.canParse(url)) {
    throw new InvalidOptionsError(
      "The url is no Redis URL: write redis://user:password@host:6379/0, with TLS rediss://, and percent-encode special " +
        "characters of the password",
    );
  }
}
