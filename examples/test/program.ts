import { type ChildProcess, spawn } from "node:child_process";
import { EventEmitter, once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { onTestFinished, vi } from "vitest";

// Each program loads LlamaIndex, which takes its time on a busy machine.
vi.setConfig({ testTimeout: 90_000 });

const loader = import.meta.resolve("tsx");

/** An empty folder for the test: the examples keep their `chat.db` where they are started. */
export function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "chatstore-examples-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** An example in a process of its own, which ends with the test at the latest. */
export class Program {
  readonly process: ChildProcess;
  readonly #news = new EventEmitter();
  #output = "";
  /** So much of the output was waited for. */
  #read = 0;
  #closed = false;

  /** Start a script, given relative to the examples, in a folder. */
  constructor(script: string, cwd: string, args: string[] = [], env: NodeJS.ProcessEnv = {}) {
    const path = fileURLToPath(new URL(`../${script}`, import.meta.url));
    this.process = spawn(process.execPath, ["--import", loader, path, ...args], {
      cwd,
      env: { ...process.env, ...env },
      stdio: ["pipe", "pipe", "pipe"],
    });
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => {
        this.#output += text;
        this.#news.emit("news");
      });
    }
    this.process.on("close", () => {
      this.#closed = true;
      this.#news.emit("news");
    });
    onTestFinished(() => this.kill());
  }

  write(line: string): void {
    this.process.stdin?.write(`${line}\n`);
  }

  /** Wait until it prints this, behind what was waited for before. */
  async prints(pattern: RegExp): Promise<string> {
    for (;;) {
      const found = pattern.exec(this.#output.slice(this.#read));
      if (found !== null) {
        this.#read += found.index + found[0].length;
        return found[0];
      }
      if (this.#closed) throw new Error(`It ended without printing ${pattern}:\n${this.#output}`);
      await once(this.#news, "news");
    }
  }

  /** Wait until it ends by itself. Resolves to all that it has printed. */
  async ends(): Promise<string> {
    await this.#close();
    if (this.process.exitCode !== 0) throw new Error(this.#output);
    return this.#output;
  }

  /** `kill -9`, also of what is frozen. */
  async kill(): Promise<void> {
    this.process.kill("SIGKILL");
    await this.#close();
  }

  async #close(): Promise<void> {
    while (!this.#closed) await once(this.#news, "news");
  }
}
