import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  existsSync,
  fstatSync,
  linkSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { type FileHandle, mkdir, open, readdir } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { BackendError, ClosedError, TimeoutError } from "@chatstore/core";
import { failedWith, toFailure, unless } from "./fs-failure.js";

/** Milliseconds between two attempts at a lock that somebody else holds; doubled up to the maximum, with jitter. */
const firstPause = 1;
const longestPause = 20;
/** Milliseconds between two looks at whether its holder still lives; also, of patience before asking it to wait. */
const lookEvery = 250;
/** Milliseconds of holding a lock, on average, before its holder sees that it is asked to wait: to look takes its time, too. */
const noticedAfter = 5;
/** Milliseconds by which the stamp of a file that was written now may be late. */
const coarsestTick = 50;

/** Who holds a lock: the content of a claim. */
interface Holder {
  /** Names a handle, for ever. */
  readonly id: string;
  readonly host: string;
  /** The running kernel and the container; empty where the system does not tell. */
  readonly boot: string;
  readonly pidNamespace: string;
  readonly pid: number;
  /** Tells a process from a later one of the same pid; empty where the system does not tell. */
  readonly start: string;
}

interface Claim {
  readonly id: string;
  readonly path: string;
  readonly handle: FileHandle;
}

/**
 * Named locks between all handles of all processes that share a folder.
 *
 * A handle writes one file that says who it is: its claim, `<id>.holder`. It takes a lock by making a hard link to its
 * claim under the lock's name, `<name>.lock`: that succeeds for one alone, and no lock is ever without its holder's name.
 *
 * Who dies leaves its lock behind. Nobody may simply remove that: by then it may be somebody else's. Who wants the lock
 * becomes the dead holder's successor, by a link `<name>.<id of the dead>.lock`, which again succeeds for one alone. A
 * successor that leaves removes the lock first and then the succession; so whoever links into a succession that is already
 * over finds that the lock is no longer the dead one's, and has lost.
 *
 * Links, claims and the clock are so quick that a thread's answer would take longer: they are synchronous. So whoever is out
 * of time says at once who holds the lock, and that nothing was written.
 *
 * Not a library: proper-lockfile and its like take a lock from whoever has not touched it for some seconds, and a process
 * that was stopped, or busy, wakes up and writes on without it. `flock` would need a native module.
 */
export class Locks {
  readonly #folder: string;
  #claim: Promise<Claim> | undefined;
  /** All that were made: a second one, when somebody cleaned up below us or the disk was away. */
  readonly #claims: Claim[] = [];
  /** From `performance.now()` to the file system's clock. */
  #offset = -Infinity;
  #closed = false;

  /** @param folder Made when absent; its parent is not. */
  constructor(folder: string) {
    this.#folder = folder;
  }

  /** The time by the file system's clock, in ms since 1970: the same for all processes, whatever their own clocks say. */
  async now(): Promise<number> {
    const { handle } = await this.#claimed();
    // A blank already: only the modification time changes.
    writeSync(handle.fd, " ", 0);
    return this.#timeOf(fstatSync(handle.fd).mtimeMs);
  }

  /** Whether a stamp is older than one that is made now can be. */
  #isStale(stamp: number): boolean {
    return stamp - performance.now() < this.#offset - coarsestTick;
  }

  /** @param stamp As the file system has just made it. */
  #timeOf(stamp: number): number {
    const offset = stamp - performance.now();
    // A kernel stamps files by its last tick, some milliseconds ago. So the largest offset that we saw is the best, until
    // the clock is set back.
    if (offset > this.#offset || this.#isStale(stamp)) this.#offset = offset;
    return Math.floor(performance.now() + this.#offset);
  }

  /**
   * Run while holding a lock. Not reentrant.
   *
   * @param run Gets the time, as {@link now} tells it.
   * @throws TimeoutError with outcome `not-applied` when the signal aborts before.
   */
  async hold<T>(name: string, signal: AbortSignal, run: (now: number) => Promise<T>): Promise<T> {
    const held = await this.#acquire(name, signal);
    const since = performance.now();
    try {
      const { handle } = await this.#claimed();
      // The new link has stamped the claim, unless the file system does not do that, or its clock was set back.
      const stamp = fstatSync(handle.fd).ctimeMs;
      return await run(this.#isStale(stamp) ? await this.now() : this.#timeOf(stamp));
    } finally {
      release(held);
      // Somebody has tried for long, while we perhaps take it again and again: let them.
      if (performance.now() - since > Math.random() * noticedAfter) {
        const wait = this.#path(name, "wait");
        if (existsSync(wait) && removeLink(wait)) await delay(2 * longestPause);
      }
    }
  }

  /** Remove what dead processes left behind. */
  async sweep(): Promise<void> {
    for (const file of await readdir(this.#folder)) {
      const path = join(this.#folder, file);
      const holder = readHolder(path);
      if (holder === undefined || !hasDied(holder)) continue;
      const [name = "", ...rest] = file.split(".");
      if (rest.join() === "lock") release((await this.#succeed(name)) ?? []);
      // Of a succession, too, nobody needs it: the lock is gone, and no later one has the same predecessor.
      else if (readHolder(this.#path(name, "lock")) === undefined) release([path]);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#claim?.catch(() => undefined);
    for (const { path, handle } of this.#claims.splice(0)) {
      try {
        removeLink(path);
      } catch {
        // On a disk that is away or read-only it stays, and is swept once this process has ended.
      }
      await handle.close();
    }
  }

  /** The paths to remove afterwards, in this order. */
  async #acquire(name: string, signal: AbortSignal): Promise<readonly string[]> {
    const path = this.#path(name, "lock");
    let nextLook = 0;
    const asked: string[] = [];
    for (let pause = firstPause; ; pause = Math.min(pause * 2, longestPause)) {
      if (!signal.aborted) {
        if (await this.#link(path)) return [path, ...asked];
        if (performance.now() >= nextLook) {
          const paths = await this.#succeed(name);
          if (paths !== undefined) return [...paths, ...asked];
          const wait = this.#path(name, "wait");
          if (nextLook > 0 && (await this.#link(wait))) asked.push(wait);
          nextLook = performance.now() + lookEvery;
        }
      }
      await delay(pause * (0.5 + Math.random() / 2), undefined, { signal }).catch(() => undefined);
      if (signal.aborted) {
        release(asked);
        throw lockedError(path);
      }
    }
  }

  /** Become the successor of a holder that has died; `undefined` when it lives, or somebody else was faster. */
  async #succeed(name: string): Promise<readonly string[] | undefined> {
    const lock = this.#path(name, "lock");
    const first = readHolder(lock);
    const paths = [lock];
    for (let holder = first; holder !== undefined && hasDied(holder); ) {
      const succession = this.#path(name, holder.id, "lock");
      paths.push(succession);
      if (await this.#link(succession)) {
        if (readHolder(lock)?.id === first?.id) return paths;
        removeLink(succession);
        return undefined;
      }
      holder = readHolder(succession);
    }
    return undefined;
  }

  #path(...parts: readonly string[]): string {
    return join(this.#folder, parts.join("."));
  }

  /** Whether the name was free, and is ours now. */
  async #link(path: string): Promise<boolean> {
    const claim = await this.#claimed();
    try {
      linkSync(claim.path, path);
      return true;
    } catch (error) {
      if (failedWith(error, "EEXIST")) return false;
      if (failedWith(error, "ENOENT")) {
        // The claim is gone, or the folder. A new claim tells which.
        if (this.#claims.at(-1) === claim) this.#claim = undefined;
        return this.#link(path);
      }
      if (failedWith(error, "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EPERM")) {
        throw new BackendError(
          `The file system of ${this.#folder} has no hard links, which the locks need: choose a folder on another disk`,
          { retryable: false, outcome: "not-applied", cause: error },
        );
      }
      throw error;
    }
  }

  #claimed(): Promise<Claim> {
    if (this.#closed) throw new ClosedError();
    this.#claim ??= this.#makeClaim().catch((error: unknown) => {
      this.#claim = undefined;
      throw error;
    });
    return this.#claim;
  }

  async #makeClaim(): Promise<Claim> {
    await unless(["EEXIST"], () => mkdir(this.#folder, 0o700));
    const id = randomBytes(8).toString("hex");
    const path = this.#path(id, "holder");
    const holder: Holder = { id, ...thisProcess() };
    const handle = await open(path, "wx", 0o600);
    try {
      await handle.write(` ${JSON.stringify(holder)}\n`);
      // After a power failure, a lock that does not say whose it is could never be taken over.
      await handle.datasync();
    } catch (error) {
      await handle.close();
      removeLink(path);
      throw error;
    }
    const claim = { id, path, handle };
    this.#claims.push(claim);
    return claim;
  }
}

/** Returns whether there was one. */
function removeLink(path: string): boolean {
  try {
    unlinkSync(path);
    return true;
  } catch (error) {
    if (failedWith(error, "ENOENT")) return false;
    throw error;
  }
}

/** In the given order: the lock, then the successions and what asked the holder to wait. */
function release(paths: readonly string[]): void {
  for (const path of paths) {
    try {
      removeLink(path);
    } catch (error) {
      throw toFailure(error, path, "unknown");
    }
  }
}

function lockedError(path: string): TimeoutError {
  const holder = readHolder(path);
  const message =
    holder === undefined
      ? `Waited too long for ${path}`
      : `The session is locked by process ${holder.pid} on host ${holder.host}, which is at work or stopped. ` +
        `If it no longer exists, delete ${path}`;
  return new TimeoutError(message, { outcome: "not-applied" });
}

/** Who holds a lock; `undefined` when nobody does, or we cannot tell. */
function readHolder(path: string): Holder | undefined {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as Holder;
  } catch (error) {
    if (error instanceof SyntaxError || failedWith(error, "ENOENT", "EACCES")) return undefined;
    throw error;
  }
}

/** Whether a holder provably no longer exists. One that is stopped, or lives out of our sight, does. */
function hasDied(holder: Holder): boolean {
  const self = thisProcess();
  if (holder.boot !== self.boot) {
    // The same host, restarted. Hosts that share the folder must have different names, the README says.
    return holder.boot !== "" && self.boot !== "" && holder.host === self.host;
  }
  const sameSystem = self.boot !== "" || holder.host === self.host;
  if (!sameSystem || holder.pidNamespace !== self.pidNamespace) return false;
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    // EPERM: it exists and is another user's.
    if (failedWith(error, "ESRCH")) return true;
  }
  const start = startOf(holder.pid);
  return start === "ended" || (start !== "" && holder.start !== "" && start !== holder.start);
}

let self: Omit<Holder, "id"> | undefined;

function thisProcess(): Omit<Holder, "id"> {
  self ??= {
    host: hostname(),
    boot: told(() => readFileSync("/proc/sys/kernel/random/boot_id", "utf8")).trim(),
    pidNamespace: told(() => readlinkSync("/proc/self/ns/pid")),
    pid: process.pid,
    start: startOf(process.pid),
  };
  return self;
}

/** When a process began, in any form; `ended` for a zombie; empty where the system does not tell. */
function startOf(pid: number): string {
  if (process.platform === "win32") return "";
  if (process.platform !== "linux") {
    const env = { ...process.env, LC_ALL: "C", TZ: "UTC" };
    const ps = () => execFileSync("ps", ["-o", "lstart=", "-p", String(pid)], { env });
    return told(() => ps().toString()).trim();
  }
  return told(() => {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // Behind the name, which may hold anything: the third field, and the 22nd.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    if (fields[0] !== "Z") return fields[19] ?? "";
    // Its main thread has ended. Another one may still be in the middle of a write.
    return readdirSync(`/proc/${pid}/task`).length > 1 ? "" : "ended";
  });
}

/** Empty where the system does not tell. */
function told(ask: () => string): string {
  try {
    return ask();
  } catch {
    return "";
  }
}
