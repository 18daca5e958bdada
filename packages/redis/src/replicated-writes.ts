import { BackendError } from "@chatstore/core";
import { type Cluster, Command, type Redis } from "ioredis";
import { isCluster } from "./client.js";
import { isReply } from "./errors.js";

interface Write {
  readonly command: readonly string[];
  readonly key: string;
  readonly signal: AbortSignal;
  readonly resolve: (reply: unknown) => void;
  readonly reject: (error: Error) => void;
}

/**
 * Writes that are done when enough replicas have them. They are sent in rounds, one round at a time for each node: all that
 * are waiting by then, and behind them one WAIT, which holds up the connection. So a write that was given up before its round
 * is never sent, and cannot happen long after its caller was told that it had failed.
 */
export class ReplicatedWrites {
  readonly #client: Redis | Cluster;
  readonly #replicas: number;
  readonly #patience: number;
  /** By node: the writes of its next round. There while a round is under way. */
  readonly #waiting = new Map<string, Write[]>();

  /** @param patience Milliseconds that the replicas have for a round. */
  constructor(client: Redis | Cluster, replicas: number, patience: number) {
    this.#client = client;
    this.#replicas = replicas;
    this.#patience = patience;
  }

  /** @param key One of the command's keys. */
  send(command: readonly string[], key: string, signal: AbortSignal): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const node = this.#nodeOf(key);
      const write = { command, key, signal, resolve, reject };
      const waiting = this.#waiting.get(node);
      if (waiting !== undefined) {
        waiting.push(write);
      } else {
        this.#waiting.set(node, [write]);
        queueMicrotask(() => void this.#run(node));
      }
    });
  }

  async #run(node: string): Promise<void> {
    for (;;) {
      const round = this.#waiting.get(node)?.filter(({ signal }) => !signal.aborted) ?? [];
      if (round.length === 0) break;
      this.#waiting.set(node, []);
      await this.#send(round).catch((error: Error) => {
        for (const { reject } of round) reject(error);
      });
    }
    this.#waiting.delete(node);
  }

  /** In one pipeline, since WAIT is about what its own connection has written. */
  async #send(round: readonly Write[]): Promise<void> {
    const wait = ["wait", String(this.#replicas), String(Math.ceil(this.#patience))];
    const results = await this.#client
      .pipeline([...round.map(({ command }) => [...command]), wait])
      .exec();
    const [waitError, confirmed] = results?.at(-1) ?? [];
    for (const [index, { key, resolve, reject }] of round.entries()) {
      const [error, reply] = results?.[index] ?? [];
      // A pipeline does not follow a slot to its new node. A single command does, and the client remembers.
      if (isReply(error, "MOVED")) await this.#client.exists(key).catch(() => undefined);
      if (error) reject(error);
      else if (waitError) reject(waitError);
      else if (Number(confirmed) < this.#replicas) reject(this.#tooFew(Number(confirmed)));
      else resolve(reply);
    }
  }

  #tooFew(confirmed: number): BackendError {
    return new BackendError(
      `The write reached ${confirmed} of the ${this.#replicas} replicas that waitReplicas asks for`,
      { retryable: true, outcome: "unknown" },
    );
  }

  #nodeOf(key: string): string {
    const client = this.#client;
    if (!isCluster(client)) return "";
    const slot = new Command("exists", [(client.options.keyPrefix ?? "") + key]).getSlot();
    return client.slots[slot ?? -1]?.join() ?? "";
  }
}
