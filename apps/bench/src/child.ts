/** A child process that does a task. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import type { Answer, Order, Task } from "./worker.js";

export class Child implements AsyncDisposable {
  /** Resolves when the process is ready to begin. */
  readonly ready: Promise<void>;
  readonly #gone: Promise<unknown>;
  readonly #process: ChildProcess;

  constructor(task: Task) {
    this.#process = fork(new URL("./worker.js", import.meta.url), [JSON.stringify(task)], {
      execArgv: ["--expose-gc"],
    });
    this.#gone = once(this.#process, "exit");
    this.ready = this.#answer().then(() => undefined);
  }

  /** Let it do its task once, and wait for the result. */
  async run(order: Order = {}): Promise<number> {
    const answer = this.#answer();
    this.#process.send(order);
    return answer;
  }

  /** Resolves when it has ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process.connected) this.#process.disconnect();
    await this.#gone;
  }

  async #answer(): Promise<number> {
    const [answer] = await Promise.race([
      once(this.#process, "message") as Promise<[Answer]>,
      this.#gone.then(() => [{ error: "it ended before it answered" }] as [Answer]),
    ]);
    if ("error" in answer) throw new Error(`A child process failed: ${answer.error}`);
    return answer.value;
  }
}
