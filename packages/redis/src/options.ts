/** What is wrong with options is said at once, before ioredis takes anything for something else. */
import { InvalidOptionsError } from "@chatstore/core";
import type { ClusterNode, Redis } from "ioredis";
import { parseUrl } from "./client.js";
import type { RedisChatStoreOptions } from "./index.js";

/** @throws InvalidOptionsError for what is missing, wrong or contradicts itself. */
export function checkOptions(options: RedisChatStoreOptions): void {
  const { prefix, waitReplicas } = options;
  const isName = (name: unknown) =>
    typeof name === "string" && name.isWellFormed() && !/[{}]/.test(name);
  if (prefix !== undefined && !isName(prefix)) {
    throw new InvalidOptionsError(
      `prefix is ${JSON.stringify(prefix)}; it must be text without braces, which Redis Cluster gives a meaning`,
    );
  }
  if (waitReplicas !== undefined && !(Number.isInteger(waitReplicas) && waitReplicas >= 0)) {
    throw new InvalidOptionsError(`waitReplicas is ${waitReplicas}; it must be a whole number`);
  }
  checkConnection(options);
}

function checkConnection({ url, client, redis, cluster }: RedisChatStoreOptions): void {
  const given = Object.entries({ url, client, redis, cluster }).filter(
    ([, value]) => value !== undefined,
  );
  const names = given.map(([name]) => name).join(" and ");
  if (given.length === 0) {
    throw new InvalidOptionsError(
      'Which Redis server? Give a url ("redis://localhost:6379"), a client, redis (options of ioredis) or cluster (nodes)',
    );
  }
  if (given.length > 1 && names !== "url and redis" && names !== "redis and cluster") {
    throw new InvalidOptionsError(`Give either a url, a client, or a cluster, not ${names}`);
  }
  if (url !== undefined) parseUrl(url);
  if (client !== undefined && !isClient(client)) {
    throw new InvalidOptionsError(
      "The client is none of ioredis: pass new Redis(…) or new Cluster(…) of the package ioredis, or give the server's url and the " +
        "store makes its own. Clients of other packages (redis, which is node-redis, or @upstash/redis) speak otherwise; their " +
        "servers have a redis:// or rediss:// URL, too",
    );
  }
  if (cluster !== undefined) checkNodes(cluster);
  const db: unknown = redis?.db;
  if (db !== undefined && !(Number.isSafeInteger(Number(db)) && /^\d+$/.test(String(db)))) {
    throw new InvalidOptionsError("redis.db must be the number of a database, from 0");
  }
}

/** Not by `instanceof`: it may come from another copy of ioredis. */
function isClient(client: unknown): boolean {
  try {
    const { status, ...methods } = pickClient(client as Redis);
    return (
      typeof status === "string" &&
      Object.values(methods).every((method) => typeof method === "function")
    );
  } catch {
    return false;
  }
}

function pickClient({ status, call, pipeline, on, once, off, connect, disconnect }: Redis) {
  return { status, call, pipeline, on, once, off, connect, disconnect };
}

function checkNodes(nodes: readonly ClusterNode[]): void {
  if (!Array.isArray(nodes) || nodes.length === 0) {
    throw new InvalidOptionsError(
      'cluster must name at least one node: cluster: ["redis://node-1:6379"], or { host, port }',
    );
  }
  for (const node of nodes as readonly unknown[]) {
    if (typeof node === "string" ? parseUrl(node).db : typeof node !== "object" || node === null) {
      throw new InvalidOptionsError(
        "A node of cluster must be { host, port }, or a URL without a database: a Cluster has only one",
      );
    }
  }
}
