/**
 * The handle on the database: how it is opened, how it waits for locks, how writes share a transaction, and what its
 * errors mean. Knows nothing of sessions.
 */
import { accessSync, constants, existsSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { setTimeout as delay, setImmediate } from "node:timers/promises";
import {
  BackendError,
  CorruptSessionError,
  type FailureOutcome,
  InvalidOptionsError,
  SchemaError,
  TimeoutError,
} from "@chatstore/core";
import type Database from "better-sqlite3";
import { codeOf, openDatabase } from "./engine.js";
import { Reserve } from "./reserve.js";
import { schemaAdvice } from "./schema.js";

/** The path of a database that has no file. */
export const inMemory = ":memory:";
export const damageAdvice = "restore a backup, or salvage what can be read with sqlite3's .recover";
/** Milliseconds of work after which a transaction takes no further write, so that the event loop turns. */
const longestTransaction = 20;
/** Milliseconds between attempts at a lock. Short: SQLite has no queue, the lock goes to whoever asks in time. */
const longestPause = 15;

/** A write that waits for its transaction. */
interface Job {
  readonly signal: AbortSignal;
  /** It only removes. */
  readonly frees: boolean;
  /** Returns what is left to do once the transaction is committed. */
  readonly run: () => { readonly erases: boolean; readonly resolve: () => void };
  readonly reject: (error: unknown) => void;
}

/** A database handle that waits for locks without blocking, and commits the writes that come together as one. */
export class Connection {
  readonly database: Database.Database;
  readonly #owned: boolean;
  readonly #file: string | undefined;
  readonly #transaction: Database.Transaction<(work: () => unknown) => unknown>;
  readonly #reserve: Reserve | undefined;
  readonly #jobs = new Set<Job>();
  #draining = false;

  /** @param owned The handle was opened here, so it is closed here. */
  constructor(database: Database.Database, owned: boolean) {
    this.database = database;
    this.#owned = owned;
    // The name of an own database may be relative to a directory that was left since.
    this.#file = owned ? identityOf(database) : undefined;
    this.#reserve = owned && !database.memory ? new Reserve(database.name) : undefined;
    this.#transaction = database.transaction((work) => work());
  }

  /** Run `work` as soon as no lock is in its way. SQLite's own waiting would block the event loop. */
  async patiently<T>(signal: AbortSignal, work: () => T): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      if (signal.aborted) throw this.#tooLate();
      try {
        return this.#withoutBusyTimeout(work);
      } catch (error) {
        if (!isBusy(error)) throw this.#failure(error, "not-applied");
      }
      await pause(attempt, signal);
    }
  }

  read<T>(signal: AbortSignal, work: () => T): Promise<T> {
    return this.patiently(signal, () => this.#inTransaction("deferred", work));
  }

  /**
   * Run `work` in a transaction that other writes may share. It stays on its own: when one throws, it is rejected, and the
   * others run again without it. When the signal aborts before its turn, it never runs.
   *
   * @param frees It only removes: on a full disk it gets the room that is set aside.
   */
  write<T>(
    signal: AbortSignal,
    work: () => T,
    erases: (result: T) => boolean = () => false,
    frees = false,
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (signal.aborted) return reject(this.#tooLate());
      const run = () => {
        const result = work();
        return { erases: erases(result), resolve: () => resolve(result) };
      };
      this.#jobs.add({ signal, frees, run, reject });
      if (!this.#draining) void this.#drain();
    });
  }

  close(): void {
    if (this.#owned) this.database.close();
  }

  async #drain(): Promise<void> {
    this.#draining = true;
    for (let attempt = 0; this.#jobs.size > 0; ) {
      // Whatever this turn of the event loop brings shares the transaction.
      await setImmediate();
      for (const job of this.#jobs) if (job.signal.aborted) this.#refuse(job);
      if (this.#commit()) attempt = 0;
      else await this.#waitForLock(++attempt);
    }
    this.#draining = false;
  }

  /** Only here does it take time until a job has its turn, so only here are the signals listened to. */
  async #waitForLock(attempt: number): Promise<void> {
    const waiting = [...this.#jobs].map((job) => [job, () => this.#refuse(job)] as const);
    for (const [{ signal }, refuse] of waiting) signal.addEventListener("abort", refuse);
    await pause(attempt);
    for (const [{ signal }, refuse] of waiting) signal.removeEventListener("abort", refuse);
  }

  #refuse(job: Job, reason: unknown = this.#tooLate()): void {
    this.#jobs.delete(job);
    job.reject(reason);
  }

  /** One transaction of what waits. False: somebody else holds the lock. */
  #commit(): boolean {
    const end = performance.now() + longestTransaction;
    const ran = new Map<Job, ReturnType<Job["run"]>>();
    let running: Job | undefined;
    const runJobs = () => {
      for (running of this.#jobs) {
        ran.set(running, running.run());
        if (performance.now() > end) break;
      }
      running = undefined;
    };
    try {
      this.#withoutBusyTimeout(() => this.#inTransaction("immediate", runJobs));
    } catch (error) {
      if (isBusy(error)) return false;
      const committing = running === undefined && ran.size > 0;
      const failed = running ? [running] : [...(committing ? ran.keys() : this.#jobs)];
      const failure = this.#failure(error, committing ? "unknown" : "not-applied");
      const hasRoom =
        codeOf(error) === "SQLITE_FULL" && failed.some(({ frees }) => frees) && this.#makeRoom();
      for (const job of failed) if (!hasRoom || !job.frees) this.#refuse(job, failure);
      return true;
    }
    for (const job of ran.keys()) this.#jobs.delete(job);
    const done = [...ran.values()];
    if (done.some(({ erases }) => erases)) {
      this.#emptyLog();
      this.setRoomAside();
    }
    for (const { resolve } of done) resolve();
    return true;
  }

  #inTransaction<T>(mode: "deferred" | "immediate", work: () => T): T {
    // It is the owner's, who may still roll it back.
    if (this.database.inTransaction) {
      throw Object.assign(new Error("the database is in a transaction"), { code: "SQLITE_BUSY" });
    }
    this.#checkFile();
    return this.#transaction[mode](work) as T;
  }

  /** What is written into a file without a name is lost at the end of the process. */
  #checkFile(): void {
    if (this.#file === undefined) return;
    const found = identityOf(this.database);
    if (found === this.#file) return;
    const reason =
      found === undefined ? "is gone: put it back" : "was replaced while it was open: open it anew";
    throw new BackendError(`${this.database.name} ${reason}`, {
      retryable: found === undefined,
      outcome: "not-applied",
    });
  }

  /** Removed text leaves the write-ahead log too, unless somebody still reads an older snapshot. */
  #emptyLog(): void {
    try {
      this.#withoutBusyTimeout(() => this.database.pragma("main.wal_checkpoint(TRUNCATE)"));
    } catch {
      // The write itself is done and stands. What is wrong with the disk, the next one will say.
    }
  }

  /** For who erases when the disk is full. */
  setRoomAside(): void {
    this.#reserve?.fill();
  }

  /** Returns whether there was room that was set aside. */
  #makeRoom(): boolean {
    if (!this.#reserve?.release()) return false;
    try {
      // What the log holds goes into the file, and the log begins anew where it is.
      this.#withoutBusyTimeout(() => this.database.pragma("main.wal_checkpoint(RESTART)"));
    } catch {
      // Then what was set aside has to be enough.
    }
    return true;
  }

  /** An own database may have a busy timeout: SQLite's own waiting. */
  #withoutBusyTimeout<T>(work: () => T): T {
    if (this.#owned) return work();
    const timeout = this.database.pragma("busy_timeout", { simple: true });
    this.database.pragma("busy_timeout = 0");
    try {
      return work();
    } finally {
      this.database.pragma(`busy_timeout = ${timeout}`);
    }
  }

  #tooLate(): TimeoutError {
    return new TimeoutError(`${this.database.name} was locked by others until the time was over`, {
      outcome: "not-applied",
    });
  }

  /** What better-sqlite3 threw, as a Chatstore error. */
  #failure(error: unknown, outcome: FailureOutcome): unknown {
    const code = codeOf(error);
    if (code === undefined) return error;
    const what = `${this.database.name}: ${(error as Error).message} (${code})`;
    if (code === "SQLITE_NOTADB") {
      return new InvalidOptionsError(
        `${what}: path must name a SQLite database. If it was one, its beginning is damaged: restore a backup`,
        { cause: error },
      );
    }
    if (code.startsWith("SQLITE_CORRUPT")) {
      return new CorruptSessionError(`${what}: ${damageAdvice}`, { cause: error });
    }
    if (isMissingTable(error)) return new SchemaError(`${what}: ${schemaAdvice}`);
    const isFull = code === "SQLITE_FULL";
    return new BackendError(isFull ? `${what}: free some space, or erase something` : what, {
      retryable: /^SQLITE_(IOERR|NOMEM)/.test(code),
      // A full disk is noticed before the commit's mark is written.
      outcome: isFull ? "not-applied" : outcome,
      cause: error,
    });
  }
}

/** Waits between attempts at a lock, with jitter, so that competitors do not meet again. */
async function pause(attempt: number, signal?: AbortSignal): Promise<void> {
  const longest = Math.min(2 ** attempt, longestPause);
  await delay(1 + Math.random() * longest, undefined, signal && { signal }).catch(() => undefined);
}

function isBusy(error: unknown): boolean {
  return (
    /^SQLITE_(BUSY|LOCKED|PROTOCOL)/.test(codeOf(error) ?? "") ||
    // An own database whose owner awaits something in the middle of `iterate()`.
    (error instanceof TypeError && error.message.includes("busy executing a query"))
  );
}

export function isMissingTable(error: unknown): boolean {
  return codeOf(error) === "SQLITE_ERROR" && /no such table/.test((error as Error).message);
}

/** Tells a file from one that was put in its place. */
function identityOf({ name, memory }: Database.Database): string | undefined {
  const stats = memory ? undefined : statSync(name, { throwIfNoEntry: false });
  return stats && `${stats.dev} ${stats.ino}`;
}

export async function openFile(path: string, mustExist: boolean): Promise<Database.Database> {
  if (path !== inMemory) checkPlace(path, mustExist);
  try {
    return await openDatabase(path);
  } catch (cause) {
    if (codeOf(cause) === undefined) throw cause;
    throw new InvalidOptionsError(`SQLite cannot open ${path}: ${(cause as Error).message}`, {
      cause,
    });
  }
}

/** Says what is wrong with a path before SQLite writes, or says only that it cannot open it. */
function checkPlace(path: string, mustExist: boolean): void {
  const { R_OK, W_OK, X_OK } = constants;
  try {
    accessSync(dirname(path), W_OK | X_OK);
    if (existsSync(path)) accessSync(path, R_OK | W_OK);
  } catch (cause) {
    throw new InvalidOptionsError(
      `The SQLite database ${path} cannot be used (${(cause as Error).message}): ` +
        "its directory must exist, and file and directory must be writable",
      { cause },
    );
  }
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats?.isDirectory()) {
    throw new InvalidOptionsError(`${path} is a directory: path must name a file in it`);
  }
  if (stats === undefined && mustExist) {
    throw new SchemaError(`There is no database ${path}: ${schemaAdvice}`);
  }
}
