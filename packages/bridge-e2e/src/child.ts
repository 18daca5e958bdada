import { type ChildProcess, fork } from "node:child_process";
import { EventEmitter, once } from "node:events";
import { fileURLToPath } from "node:url";
import type { ChatStoreConfig } from "@chatstore/core";
import { type BirpcReturn, createBirpc } from "birpc";
import type { Conversations, Parent } from "./conversations.js";

/** A process that talks, seen from its parent. What it reports is an event. */
export class Child extends EventEmitter<{ report: [value: unknown] }> {
  /** What it can be asked for. Rejects when the process ends. */
  readonly ask: BirpcReturn<Conversations, Parent>;
  readonly #process: ChildProcess;
  /** By which signal or exit code, and what it wrote to stderr. */
  readonly #ended: Promise<string>;

  /**
   * @param config The store of all its conversations.
   * @param worker The child's program, which calls `serve`. Default: what `CHATSTORE_E2E_WORKER` says, so that these
   *   tests can be run with another LlamaIndex; otherwise the program with this package's.
   */
  constructor(
    config: ChatStoreConfig,
    worker = process.env["CHATSTORE_E2E_WORKER"] ?? new URL("./worker.js", import.meta.url),
  ) {
    super();
    const child = fork(worker, [JSON.stringify(config)], {
      cwd: fileURLToPath(new URL("..", import.meta.url)), // from where the backends can be found
      execArgv: [],
      serialization: "advanced",
      stdio: ["ignore", "ignore", "pipe", "ipc"],
    });
    this.#process = child;
    this.ask = createBirpc<Conversations, Parent>(
      { report: (value) => void this.emit("report", value) },
      {
        // What is sent to a process that has just ended is rejected below.
        post: (data) => void child.send(data, () => {}),
        on: (receive) => child.on("message", receive),
        timeout: -1,
      },
    );
    let errors = "";
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      errors = (errors + text).slice(-4_000);
    });
    this.#ended = once(child, "close").then(([code, signal]) => {
      const how = `${signal ?? `exit code ${code}`}\n${errors}`;
      this.ask.$close(new Error(`The child process ended: ${how}`));
      return how;
    });
  }

  /** See that it is gone. */
  async end(): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.#ended;
  }

  /**
   * `kill -9`.
   *
   * @throws when it had ended before.
   */
  async kill(): Promise<void> {
    await this.end();
    const how = await this.#ended;
    if (!how.startsWith("SIGKILL")) throw new Error(`The child process had ended: ${how}`);
  }
}
