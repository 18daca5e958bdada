/** A child process that does one task. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import type { Answer, Task } from "./worker.js";

export class Child {
  /** Resolves when the process is ready to begin. */
  readonly ready: Promise<void>;
  readonly gone: Promise<unknown>;
  readonly #process: ChildProcess;

  constructor(task: Task) {
    this.#process = fork(new URL("./worker.js", import.meta.url), [JSON.stringify(task)], {
      execArgv: ["--expose-gc"],
    });
    this.gone = once(this.#process, "exit");
    this.ready = this.#answer().then(() => undefined);
  }

  /** Let it begin, and wait for the result. */
  async run(): Promise<number> {
    const answer = this.#answer();
    this.#process.send("go");
    return answer;
  }

  async #answer(): Promise<number> {
    const [answer] = await Promise.race([
      once(this.#process, "message") as Promise<[Answer]>,
      this.gone.then(() => [{ error: "it ended before it answered" }] as [Answer]),
    ]);
    if ("error" in answer) throw new Error(`A child process failed: ${answer.error}`);
    return answer.value;
  }
}
