import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { Program } from "./engine.js";

/** How long a server may take to start or to stop. Generous: the machine may be busy. */
const patience = 60_000;

export interface ServerOptions {
  readonly program: Program;
  readonly args: readonly string[];
  /** What the server writes when it takes connections. */
  readonly ready: RegExp;
  /** What it writes when it cannot start yet, because of what a killed predecessor left behind. */
  readonly inTheWay?: RegExp;
  /** Asks it to end in good order. Default: `SIGTERM`. */
  readonly stopSignal?: NodeJS.Signals;
  /** Run as this user: for servers that refuse to run as root. */
  readonly user?: { readonly uid: number; readonly gid: number } | undefined;
}

type Unrefable = { unref(): void };

/** A server process that can be killed and started again. It never outlives this process. */
export class ServerProcess {
  readonly #options: ServerOptions;
  #child: ChildProcess | undefined;
  #log = "";

  constructor(options: ServerOptions) {
    this.#options = options;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** The end of what the server has written. */
  get log(): string {
    return this.#log;
  }

  /** Resolves when the server takes connections. */
  async start(): Promise<void> {
    const deadline = Date.now() + patience;
    for (;;) {
      try {
        return await this.#start();
      } catch (error) {
        if (!this.#options.inTheWay?.test(this.#log) || Date.now() > deadline) throw error;
        await delay(100);
      }
    }
  }

  async #start(): Promise<void> {
    const { program, args, user } = this.#options;
    // A process group of its own: Ctrl-C must not stop the server before the tests that use it.
    const child = spawn(program.path, args, {
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
      env: program.env,
      ...user,
    });
    this.#child = child;
    this.#log = "";
    const { pid } = child;
    if (pid !== undefined) {
      watch(`+${pid} ${this.#stopSignal}`);
      child.once("exit", () => watch(`-${pid}`));
    }
    try {
      await this.#ready(child);
    } finally {
      // A caller that forgets to stop the server can end all the same: the watchdog does the rest.
      for (const handle of [child, child.stdout, child.stderr]) (handle as Unrefable).unref();
    }
  }

  #ready(child: ChildProcess): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (failure?: string) => {
        clearTimeout(timer);
        if (failure === undefined) resolve();
        else reject(new Error(`${this.#options.program.path} ${failure}\n${this.#log}`));
      };
      const timer = setTimeout(() => settle("is not ready in time"), patience);
      const read = (chunk: Buffer) => {
        this.#log = (this.#log + chunk.toString()).slice(-8_192);
        if (this.#options.ready.test(this.#log)) settle();
      };
      child.stdout?.on("data", read);
      child.stderr?.on("data", read);
      child.once("error", (error) => settle(`cannot be started: ${error.message}`));
      child.once("exit", (code, signal) => settle(`ended with ${signal ?? code}`));
    });
  }

  /** End it at once, as a crash would. */
  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  /** {@link kill}, and a new start. */
  async crash(): Promise<void> {
    await this.kill();
    await this.start();
  }

  /** End it in good order. */
  async stop(): Promise<void> {
    const timer = setTimeout(() => this.#child?.kill("SIGKILL"), patience);
    await this.#end(this.#stopSignal);
    clearTimeout(timer);
  }

  /** Stop its clock: connections stay open, nothing is answered. */
  freeze(): void {
    this.#child?.kill("SIGSTOP");
  }

  thaw(): void {
    this.#child?.kill("SIGCONT");
  }

  get #stopSignal(): NodeJS.Signals {
    return this.#options.stopSignal ?? "SIGTERM";
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exit = once(child, "exit");
    child.ref();
    child.kill(signal);
    child.kill("SIGCONT");
    await exit;
  }
}

/** A temporary folder that is removed when this process ends, however it ends. */
export function temporaryFolder(name: string): string {
  const folder = join(tmpdir(), `chatstore-${name}-${randomUUID().slice(0, 8)}`);
  watch(folder); // before it is there: this process can be killed in between
  mkdirSync(folder, { mode: 0o700 });
  return folder;
}

export function removeFolder(folder: string): void {
  rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
}

const taken = new Set<number>();

/**
 * A free port of the loopback interface. Below the range that outgoing connections take theirs from, so that a server
 * finds its port free when it is started again; and with room for Redis Cluster's second port, 10,000 above.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 15_000 + Math.floor(Math.random() * 7_000);
    if (taken.has(port) || !(await isFree(port)) || !(await isFree(port + 10_000))) continue;
    taken.add(port);
    return port;
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}

let watchdog: ChildProcess | undefined;

function watch(line: string): void {
  if (watchdog === undefined) {
    const script = fileURLToPath(new URL("./watchdog.js", import.meta.url));
    watchdog = spawn(process.execPath, [script], {
      detached: true,
      stdio: ["pipe", "ignore", "ignore"],
    });
    watchdog.unref();
    (watchdog.stdin as unknown as Unrefable).unref();
  }
  watchdog.stdin?.write(`${line}\n`);
}
