import { BackendError, type Capabilities } from "@chatstore/core";
import type { Redis } from "ioredis";
import { isCluster } from "./client.js";
import type { Connection } from "./connection.js";
import type { RedisChatStoreOptions } from "./index.js";

/** The oldest version that the scripts are written for. */
const oldest = [6, 0] as const;

/** What a server's settings promise, and what may lose data. */
export interface Inspection {
  readonly warnings: readonly string[];
  readonly survives: Capabilities["survives"];
}

/**
 * Look at the servers that take writes.
 *
 * @throws BackendError when a server is too old, a replica, or not what the options say.
 */
export async function inspectServers(
  connection: Connection,
  options: RedisChatStoreOptions,
  signal: AbortSignal,
): Promise<Inspection> {
  await connection.ready(signal);
  const { client } = connection;
  const nodes = isCluster(client) ? client.nodes("master") : [client];
  const inspections = await Promise.all(
    nodes.map((node) => connection.send(() => inspect(node, options), signal, "not-applied")),
  );
  const warnings = inspections.flatMap(({ warnings }, index) =>
    warnings.map((warning) => `Redis at ${addressOf(nodes[index] as Redis)} ${warning}`),
  );
  // A promise holds when each server keeps it.
  const survives = (["failover", "host"] as const).find((level) =>
    inspections.every((inspection) => inspection.survives.has(level)),
  );
  // Without a sync before each answer, a server may answer before it has written: no promise holds beyond its own end.
  return { warnings, survives: survives ?? "process" };
}

async function inspect(node: Redis, options: RedisChatStoreOptions) {
  const setting = (name: string) => node.config("GET", name).then(parseConfig, unlessForbidden);
  const [info, appendfsync, pausesSync, save] = await Promise.all([
    node.info().then(parseInfo, unlessForbidden),
    setting("appendfsync"),
    setting("no-appendfsync-on-rewrite"),
    setting("save"),
  ]);
  const survives = new Set<Capabilities["survives"]>();
  if (info === undefined) {
    return { survives, warnings: ["does not permit INFO, so nothing is known of its persistence"] };
  }
  const refusal = refuse(info, options);
  if (refusal !== undefined) {
    throw new BackendError(`Redis at ${addressOf(node)} ${refusal}`, {
      // A replica may be a master soon; the others stay what they are.
      retryable: info.get("role") === "slave",
      outcome: "not-applied",
    });
  }
  const warnings: string[] = [];
  const appends = info.get("aof_enabled") === "1";
  const syncs = appends && appendfsync === "always" && pausesSync === "no";
  if (syncs) survives.add("host");
  else warnings.push(appends ? syncWarning(appendfsync) : persistenceWarning(save));
  const policy = info.get("maxmemory_policy") ?? "";
  if (policy.startsWith("allkeys-")) {
    warnings.push(
      `deletes chats when its memory is full (maxmemory-policy ${policy}): set noeviction`,
    );
  } else if (policy.startsWith("volatile-") && options.ttl !== undefined) {
    warnings.push(
      `deletes chats that have a ttl when its memory is full (maxmemory-policy ${policy}): set noeviction`,
    );
  }
  const replicas = Number(info.get("connected_slaves") ?? 0);
  const { waitReplicas = 0 } = options;
  if (waitReplicas > replicas) {
    warnings.push(
      `has ${replicas} replicas, so every write fails while waitReplicas asks for ${waitReplicas}`,
    );
  }
  // With a replica more than is waited for, the one that takes over may be one that has not heard of the write. And a server that
  // is back before anybody took over makes its replicas forget what it has forgotten itself.
  if (syncs && waitReplicas > 0 && waitReplicas === replicas) survives.add("failover");
  return { survives, warnings };
}

/** Why the server cannot be used, as the rest of a sentence about it. */
function refuse(
  info: ReadonlyMap<string, string>,
  options: RedisChatStoreOptions,
): string | undefined {
  const version = info.get("redis_version") ?? "";
  const [major = 0, minor = 0] = version.split(".").map(Number);
  if (major < oldest[0] || (major === oldest[0] && minor < oldest[1])) {
    return `has version ${version}: upgrade it to ${oldest.join(".")} or newer`;
  }
  const { client, cluster } = options;
  const knowsCluster = cluster !== undefined || (client !== undefined && isCluster(client));
  const mode = info.get("redis_mode") ?? info.get("server_mode"); // Valkey's name for it
  if (mode === "cluster" && !knowsCluster) {
    return "is a node of a Redis Cluster: give `cluster: [its URL]` instead of `url`, or a Cluster as `client`";
  }
  if (mode === "sentinel") {
    return "is a Sentinel: give `redis: { sentinels: [{ host, port }], name: the master's name }`";
  }
  if (info.get("role") === "slave") return "is a replica, which takes no writes: give the master";
  return undefined;
}

/** @param appendfsync The setting; `undefined`: it may not be read. */
function syncWarning(appendfsync: string | undefined): string {
  if (appendfsync === undefined) {
    return "does not permit CONFIG GET: make sure that appendfsync is always, where the end of the server must not take the last seconds";
  }
  const how =
    appendfsync === "always"
      ? "does not sync while it rewrites its file (no-appendfsync-on-rewrite yes)"
      : `syncs its file only now and then (appendfsync ${appendfsync})`;
  return `${how}: messages survive the end of this process, but the end of the server, or of its machine, can take those of the last seconds; set appendfsync always where that must not be`;
}

/** @param save The setting `save`; `undefined`: it may not be read. */
function persistenceWarning(save: string | undefined): string {
  if (save === undefined) {
    return "does not append to a file, and CONFIG GET is not permitted: make sure that a restart does not lose chats";
  }
  return save === ""
    ? "keeps nothing on disk, so a restart loses all chats: set appendonly yes"
    : `saves only now and then (save ${save}), so a crash loses the latest messages: set appendonly yes`;
}

function parseInfo(info: string): ReadonlyMap<string, string> {
  const fields = info.matchAll(/^(\w+):(.*?)\r?$/gm);
  return new Map([...fields].map(([, name = "", value = ""]) => [name, value]));
}

function parseConfig(pair: unknown): string | undefined {
  return (pair as string[])[1];
}

/** Managed servers forbid CONFIG, some under another error than NOPERM. */
function unlessForbidden(error: Error): undefined {
  if (error.name !== "ReplyError" || /^(NOAUTH|LOADING|MASTERDOWN)/.test(error.message))
    throw error;
  return undefined;
}

function addressOf({ options }: Redis): string {
  return options.path ?? `${options.host ?? "localhost"}:${options.port ?? 6379}`;
}
