import { type ChildProcess, fork } from "node:child_process";
import { setTimeout as delay } from "node:timers/promises";
import { type Handle, type Opening, type Request, type Response, toHandle } from "./remote.js";

/**
 * Wait until a child's routine has written something.
 *
 * @throws what ended the routine before: an unfinished backend's own error is worth more than a test that waits for ever.
 */
export async function untilWritten(writing: Promise<unknown>, wrote: () => boolean): Promise<void> {
  let ended = false;
  const end = () => {
    ended = true;
  };
  writing.then(end, end);
  while (!wrote()) {
    if (ended) {
      await writing;
      throw new Error("A process of its own stopped writing");
    }
    await delay(1);
  }
}

/** A child process with stores in it. */
export class Child {
  /** Resolves when the process is gone. */
  readonly exited: Promise<{ code: number | null; signal: string | null }>;
  readonly #process: ChildProcess;
  readonly #waiting = new Map<
    number,
    {
      resolve: (value: unknown) => void;
      reject: (error: Error) => void;
      emit: (value: unknown) => void;
    }
  >();
  #count = 0;
  #stderr = "";

  /** @param clockSkew By how many milliseconds its clock goes wrong. */
  static start(clockSkew = 0): Child {
    const worker = new URL("./worker.js", import.meta.url);
    return new Child(
      fork(worker, [String(clockSkew)], {
        execArgv: [],
        serialization: "advanced",
        stdio: ["ignore", "ignore", "pipe", "ipc"],
      }),
    );
  }

  constructor(child: ChildProcess) {
    this.#process = child;
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-4_000);
    });
    child.on("message", (response: Response) => this.#receive(response));
    this.exited = new Promise((resolve) => {
      child.on("close", (code, signal) => {
        const how = signal ?? `exit code ${code}`;
        for (const { reject } of this.#waiting.values()) {
          reject(new Error(`The child process ended: ${how}\n${this.#stderr}`));
        }
        this.#waiting.clear();
        resolve({ code, signal });
      });
    });
  }

  get alive(): boolean {
    return this.#process.exitCode === null && this.#process.signalCode === null;
  }

  async open(opening: Opening): Promise<Handle> {
    const store = ++this.#count;
    await this.#send({ id: store, open: opening });
    return toHandle((method, args) => this.#send({ id: ++this.#count, store, method, args }), ((
      routine,
      args,
      onEmit,
    ) => this.#send({ id: ++this.#count, store, routine, args }, onEmit)) as Handle["run"]);
  }

  /** Let it end by itself: resolves when it has nothing more from us; {@link exited} tells whether it could. */
  async retire(): Promise<void> {
    await this.#send({ id: ++this.#count, retire: true });
  }

  /** Stop it where it is (`kill -STOP`), as a laptop's lid or a debugger does; or let it go on. */
  pause(): void {
    this.#process.kill("SIGSTOP");
  }

  resume(): void {
    this.#process.kill("SIGCONT");
  }

  /** `kill -9`. */
  async kill(): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.exited;
  }

  #send(request: Request, emit: (value: unknown) => void = () => {}): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (!this.alive) {
        reject(new Error(`The child process has ended\n${this.#stderr}`));
        return;
      }
      this.#waiting.set(request.id, { resolve, reject, emit });
      this.#process.send(request, (error) => {
        if (error !== null) reject(error);
      });
    });
  }

  #receive(response: Response): void {
    const waiting = this.#waiting.get(response.id);
    if ("emitted" in response) {
      waiting?.emit(response.emitted);
      return;
    }
    this.#waiting.delete(response.id);
    if ("value" in response) waiting?.resolve(response.value);
    else {
      const { name, message, stack, ...fields } = response.error;
      const error = Object.assign(new Error(String(message)), fields);
      waiting?.reject(Object.assign(error, { name: String(name), stack: String(stack) }));
    }
  }
}
