import { setTimeout as delay } from "node:timers/promises";
import { BackendError, InvalidOptionsError, redact, TimeoutError } from "@chatstore/core";
import { Cluster, type ClusterNode, type ClusterOptions, Redis, type RedisOptions } from "ioredis";
import type { Script } from "./scripts.js";

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
   * With too few replicas a write fails with `outcome: "unknown"`. Default: 0. Writes of one handle wait for each other.
   */
  readonly waitReplicas?: number | undefined;
}

/** What a script returns. */
export type Reply = readonly unknown[];

const defaultTimeout = 5_000;

/**
 * An ioredis client that fails in time instead of queueing: nothing is sent twice or late behind the caller's back, and an error
 * carries neither the command's arguments (messages, passwords) nor a URL's password.
 */
export class Connection {
  readonly client: Redis | Cluster;
  readonly #own: boolean;
  readonly #waitReplicas: number;
  /** Milliseconds without any answer after which a connection is given up; half a `timeout`, so that another one gets a chance. */
  readonly #patience: number;
  #lastError: Error | undefined;
  readonly #onError = (error: Error) => {
    this.#lastError = error;
  };
  readonly #onReady = () => {
    this.#lastError = undefined;
  };

  constructor(options: ConnectionOptions & { readonly timeout?: number | undefined }) {
    this.#own = options.client === undefined;
    this.#waitReplicas = options.waitReplicas ?? 0;
    this.#patience = Math.max((options.timeout ?? defaultTimeout) / 2, 500);
    this.client = options.client ?? createClient(options, this.#patience);
    // Without a listener ioredis writes errors to the console.
    this.client.on("error", this.#onError);
    this.client.on("ready", this.#onReady);
  }

  /** Resolves when the client takes commands; rejects with what keeps it from connecting. */
  async ready(signal: AbortSignal): Promise<void> {
    const { client } = this;
    if (client.status === "ready") return;
    if (client.status === "end" && !this.#own) {
      throw new BackendError("The Redis client that was passed in is closed: pass an open one", {
        retryable: false,
        outcome: "not-applied",
      });
    }
    if (client.status === "wait" || client.status === "end") {
      client.connect().catch(() => undefined); // an `error` event says why
    }
    await new Promise<void>((resolve, reject) => {
      const settle = (error?: Error) => {
        client.off("ready", onReady);
        client.off("error", onError);
        signal.removeEventListener("abort", onAbort);
        if (error === undefined) resolve();
        else reject(error);
      };
      const onReady = () => settle();
      const onError = (error: Error) => settle(toBackendError(error, "not-applied"));
      const onAbort = () => settle(this.#unreachable());
      client.once("ready", onReady);
      client.once("error", onError);
      signal.addEventListener("abort", onAbort, { once: true });
      if (signal.aborted) onAbort();
    });
  }

  /** Run a script, on the node that has its keys; with `waitReplicas` until the replicas have what it wrote. */
  async run(
    script: Script,
    keys: readonly string[],
    args: readonly string[],
    signal: AbortSignal,
  ): Promise<Reply> {
    const replicas = script.writes ? this.#waitReplicas : 0;
    return this.send(async (client) => {
      const call = (command: "evalsha" | "eval", code: string) => {
        const all = [code, String(keys.length), ...keys, ...args];
        return replicas === 0
          ? client.call(command, all)
          : this.#callAndWait(client, [command, ...all], replicas);
      };
      try {
        return (await call("evalsha", script.sha)) as Reply;
      } catch (error) {
        if (!isReply(error, "NOSCRIPT")) throw error;
        return (await call("eval", script.source)) as Reply;
      }
    }, signal);
  }

  /** Send a command. Settles at the latest when the signal aborts. */
  async send<T>(command: (client: Redis | Cluster) => Promise<T>, signal: AbortSignal): Promise<T> {
    await this.ready(signal);
    return new Promise<T>((resolve, reject) => {
      const onAbort = () =>
        reject(new TimeoutError("Redis did not answer in time", { outcome: "unknown" }));
      signal.addEventListener("abort", onAbort, { once: true });
      command(this.client)
        .then(resolve, (error: Error) => reject(toBackendError(error, "unknown", this.#lastError)))
        .finally(() => signal.removeEventListener("abort", onAbort));
    });
  }

  /** Release what was opened here. */
  async close(): Promise<void> {
    const { client } = this;
    client.off("ready", this.#onReady);
    if (!this.#own) {
      client.off("error", this.#onError);
      return;
    }
    if (client.status === "end") return;
    const ended = new Promise((resolve) => client.once("end", resolve));
    client.disconnect();
    // A server that does not answer does not hold up the end.
    await Promise.race([ended, delay(1_000, undefined, { ref: false })]);
  }

  /** In one pipeline, since WAIT is about what its own connection has written. */
  async #callAndWait(
    client: Redis | Cluster,
    command: readonly string[],
    replicas: number,
  ): Promise<unknown> {
    const patience = Math.ceil(this.#patience / 2);
    const results = await client
      .pipeline([[...command], ["wait", String(replicas), String(patience)]])
      .exec();
    const [[error, reply], [waitError, confirmed]] = results as [
      [Error | null, unknown],
      [Error | null, unknown],
    ];
    if (error !== null) {
      // A pipeline does not follow a slot to its new node. A single command does, and remembers it.
      if (isReply(error, "MOVED") || isReply(error, "ASK"))
        await client.exists(command[3] as string);
      throw error;
    }
    if (waitError !== null) throw waitError;
    if (Number(confirmed) < replicas) {
      throw new BackendError(
        `The write reached ${String(confirmed)} of the ${replicas} replicas that waitReplicas asks for`,
        { retryable: true, outcome: "unknown" },
      );
    }
    return reply;
  }

  #unreachable(): BackendError {
    return this.#lastError === undefined
      ? new TimeoutError("Redis cannot be reached in time", { outcome: "not-applied" })
      : toBackendError(this.#lastError, "not-applied");
  }
}

/** Not by `instanceof`: a client that was passed in may come from another copy of ioredis. */
export function isCluster(client: Redis | Cluster): client is Cluster {
  return client.isCluster;
}

function createClient(options: ConnectionOptions, patience: number): Redis | Cluster {
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
  };
  if (options.cluster !== undefined) {
    return new Cluster([...options.cluster], {
      slotsRefreshTimeout: patience,
      slotsRefreshInterval: 5_000,
      ...options.clusterOptions,
      redisOptions: { ...connection, ...options.clusterOptions?.redisOptions },
      lazyConnect: true,
      enableOfflineQueue: false,
      retryDelayOnFailover: 0,
    });
  }
  const retryStrategy = (attempt: number) => Math.min(25 * 2 ** Math.min(attempt, 10), 500);
  return options.url === undefined
    ? new Redis({ retryStrategy, ...connection })
    : new Redis(checkUrl(options.url), { retryStrategy, ...connection });
}

function checkUrl(url: string): string {
  if (!/^rediss?:\/\//i.test(url) || !URL.canParse(url)) {
    throw new InvalidOptionsError(
      `${JSON.stringify(redact(url))} is no Redis URL: write redis://user:password@host:6379/0, with TLS rediss://, ` +
        "and percent-encode special characters of the password",
    );
  }
  return url;
}

/** Error replies that say: nothing was done; later it may be. */
const passing =
  /^(LOADING|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|MOVED|ASK|READONLY|BUSY|MISCONF|NOREPLICAS|OOM|ERR max number of clients)\b/;
/** Error replies that say: nothing was done, and it will stay so until somebody changes something. */
const final =
  /^(NOAUTH|WRONGPASS|NOPERM|DENIED|CROSSSLOT|ERR (AUTH|invalid password|unknown command|DB index|SELECT|Client sent AUTH|operation not permitted))/i;
/** What ioredis says when it has not sent a command. */
const unsent = /enableOfflineQueue|None of startup nodes|Failed to refresh slots cache/;
/** Codes of failures to connect that no waiting mends: certificates, and TLS against a server without. */
const misconfigured =
  /^(ERR_SSL|ERR_TLS|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO|HOSTNAME_MISMATCH|EPROTO)/;

/**
 * @param outcome What holds when the error does not tell.
 * @param reason Why there is no connection, when ioredis only says that there is none.
 */
function toBackendError(
  error: Error & { lastNodeError?: Error; code?: unknown },
  outcome: "not-applied" | "unknown",
  reason?: Error,
): BackendError {
  if (error instanceof BackendError) return error;
  if (error.lastNodeError) return toBackendError(error.lastNodeError, outcome);
  if (unsent.test(error.message)) {
    return toBackendError(reason ?? new Error("there is no connection"), "not-applied");
  }
  const message = error.message.replace(/, with args beginning with.*/s, "");
  const isAnswer = passing.test(message) || final.test(message);
  const retryable = !final.test(message) && !misconfigured.test(String(error.code ?? ""));
  return new BackendError(`Redis failed: ${message}${adviceOn(error)}`, {
    // An error reply that nobody knows would come again.
    retryable: retryable && (isAnswer || error.name !== "ReplyError"),
    outcome: isAnswer ? "not-applied" : outcome,
    cause: withoutSecrets(error),
  });
}

function adviceOn({ message }: Error): string {
  if (message.startsWith("NOAUTH")) return " Put the password into the URL.";
  if (message.startsWith("OOM")) return " Raise maxmemory, or set a ttl.";
  if (message.startsWith("Protocol error")) return " (If the server speaks TLS, use rediss://.)";
  if (message.startsWith("MOVED")) return " (For a Redis Cluster, use the option `cluster`.)";
  return "";
}

/** ioredis attaches the command with its arguments to errors: messages, or the password of AUTH. */
function withoutSecrets(error: Error & { code?: unknown }): Error {
  const bare = new Error(redact(error.message));
  bare.name = error.name;
  if (error.stack !== undefined) bare.stack = redact(error.stack);
  return error.code === undefined ? bare : Object.assign(bare, { code: error.code });
}

function isReply(error: unknown, code: string): boolean {
  return error instanceof Error && error.message.startsWith(code);
}
