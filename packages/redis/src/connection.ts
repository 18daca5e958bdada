import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { BackendError, type FailureOutcome, TimeoutError } from "@chatstore/core";
import type { Cluster, Redis } from "ioredis";
import { type ConnectionOptions, createClient, isCluster } from "./client.js";
import { isReply, toBackendError } from "./errors.js";
import { ReplicatedWrites } from "./replicated-writes.js";
import type { Script } from "./scripts.js";

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
  /** Writes that wait for replicas. */
  readonly #writes: ReplicatedWrites | undefined;
  /** Why there is no connection, since the last one. */
  #lastError: Error | undefined;
  #becoming: Promise<void> | undefined;
  /** Commands without a reply. */
  #pending = 0;
  /** How many connections have broken. */
  #broken = 0;
  #gathering = false;
  readonly #onError = (error: Error) => {
    this.#lastError = error;
  };
  readonly #onReady = () => {
    this.#lastError = undefined;
  };
  readonly #onBreak = () => {
    this.#broken++;
  };
  /**
   * A process that forgets to close the store ends all the same: it is kept alive by core's operations, not by a connection that
   * is idle, nor by the wait for the next one.
   */
  readonly #letEnd = () => {
    const { stream, reconnectTimeout } = this.client as unknown as {
      stream?: { unref(): void };
      reconnectTimeout?: NodeJS.Timeout | null;
    };
    stream?.unref();
    reconnectTimeout?.unref();
  };

  constructor(options: ConnectionOptions & { readonly timeout?: number | undefined }) {
    this.#own = options.client === undefined;
    // Half of it, so that after a connection that went silent another one gets a chance.
    const patience = Math.max((options.timeout ?? defaultTimeout) / 2, 500);
    this.client = options.client ?? createClient(options, patience);
    if (options.waitReplicas) {
      this.#writes = new ReplicatedWrites(this.client, options.waitReplicas, patience / 2);
    }
    // Without a listener ioredis writes errors to the console.
    this.client.on("error", this.#onError);
    this.client.on("ready", this.#onReady);
    this.client.on("close", this.#onBreak);
    this.client.on("-node", this.#onBreak);
    if (this.#own && !isCluster(this.client)) {
      this.client.on("connect", this.#letEnd);
      this.client.on("reconnecting", this.#letEnd);
    }
  }

  get #isReady(): boolean {
    return this.client.status === "ready";
  }

  /** Resolves when the client takes commands; rejects with what keeps it from connecting. */
  async ready(signal: AbortSignal): Promise<void> {
    if (this.#isReady) return;
    this.#becoming ??= this.#becomeReady().finally(() => {
      this.#becoming = undefined;
    });
    await unlessAborted(this.#becoming, signal, () =>
      this.#lastError === undefined
        ? new TimeoutError("Redis cannot be reached in time", { outcome: "not-applied" })
        : toBackendError(this.#lastError, "not-applied"),
    );
  }

  /**
   * Run a script, on the node that has its keys; with `waitReplicas` until the replicas have what it wrote.
   *
   * @param doubts Whether a reply may be about a second run: a client of somebody's own, and a cluster's, send again by themselves
   *   what a broken connection left without a reply. Then the outcome is unknown, and core knows what to do.
   */
  async run(
    script: Script,
    keys: readonly string[],
    args: readonly string[],
    signal: AbortSignal,
    doubts: (reply: Reply) => boolean = () => false,
  ): Promise<Reply> {
    const broken = this.#broken;
    const reply = await this.send(
      async (client) => {
        const call = (command: "evalsha" | "eval", code: string) => {
          const all = [code, String(keys.length), ...keys, ...args];
          return script.writes && this.#writes !== undefined
            ? this.#writes.send([command, ...all], keys[0] as string, signal)
            : client.call(command, all);
        };
        try {
          return (await call("evalsha", script.sha)) as Reply;
        } catch (error) {
          if (!isReply(error, "NOSCRIPT") || signal.aborted) throw error;
          return (await call("eval", script.source)) as Reply;
        }
      },
      signal,
      script.writes ? "unknown" : "not-applied",
    );
    if (broken !== this.#broken && doubts(reply)) {
      throw new BackendError("The connection to Redis broke before the answer came", {
        retryable: true,
        outcome: "unknown",
      });
    }
    return reply;
  }

  /**
   * Send a command, unless it is too late for it. Core waits no longer than until the signal aborts, so nobody does here.
   *
   * @param lost What holds of the method that it belongs to when no answer comes.
   */
  async send<T>(
    command: (client: Redis | Cluster) => Promise<T>,
    signal: AbortSignal,
    lost: FailureOutcome,
  ): Promise<T> {
    if (!this.#isReady) await this.ready(signal);
    signal.throwIfAborted();
    if (this.#pending > 0) this.#gather();
    this.#pending++;
    try {
      return await command(this.client);
    } catch (error) {
      throw toBackendError(error as Error, lost, this.#lastError);
    } finally {
      this.#pending--;
    }
  }

  /** While others are under way, commands leave together: a write to the socket costs more than all else about one. */
  #gather(): void {
    if (this.#gathering || isCluster(this.client)) return;
    this.#gathering = true;
    const { stream } = this.client;
    stream.cork();
    process.nextTick(() => {
      this.#gathering = false;
      stream.uncork();
    });
  }

  /** Release what was opened here. */
  async close(): Promise<void> {
    const { client } = this;
    client.off("ready", this.#onReady);
    client.off("close", this.#onBreak);
    client.off("-node", this.#onBreak);
    if (!this.#own) {
      client.off("error", this.#onError);
      return;
    }
    const { status } = client;
    if (status === "end") return;
    const ended = new Promise((resolve) => client.once("end", resolve));
    client.disconnect();
    // Between two connections nothing is open, and nothing says that it has ended.
    if (status === "reconnecting" || status === "close") return;
    // A server that does not answer does not hold up the end; until then the process waits for it.
    const patience = new AbortController();
    await Promise.race([
      ended,
      delay(1_000, undefined, { signal: patience.signal }).catch(() => undefined),
    ]);
    patience.abort();
  }

  /** Settles with the next news of the connection. */
  async #becomeReady(): Promise<void> {
    const { client } = this;
    if (client.status === "end" && !this.#own) {
      throw new BackendError("The Redis client that was passed in is closed: pass an open one", {
        retryable: false,
        outcome: "not-applied",
      });
    }
    const news = new AbortController();
    const { signal } = news;
    const outcome = Promise.race([
      once(client, "ready", { signal }),
      once(client, "end", { signal }).then(() => {
        throw new Error("the connection was closed");
      }),
    ]);
    if (client.status === "wait" || client.status === "end") {
      client.connect().catch(() => undefined); // an `error` event says why
    }
    try {
      await outcome;
    } catch (error) {
      throw toBackendError(error as Error, "not-applied");
    } finally {
      news.abort();
    }
  }
}

function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal, late: () => Error): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(late());
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
