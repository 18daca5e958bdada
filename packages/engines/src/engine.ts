import { accessSync, constants, readdirSync } from "node:fs";
import { delimiter, join } from "node:path";

/** A server that tests and benchmarks may use. */
export interface Engine {
  /** As in `CHATSTORE_REQUIRE_ENGINES`. */
  readonly name: EngineName;
  readonly url: string;
  /** For people: `Redis 7.0.15`, or the environment variable that named the server. */
  readonly version: string;
  /** End the server at once, and start it again on its data. Absent of a server that was not started here. */
  crash?(): Promise<void>;
  /** Stop the server and remove its data. Does nothing to a server that was not started here. */
  stop(): Promise<void>;
}

export type EngineName = "redis" | "postgres" | "mongo";

/** A server program, and where it came from. */
export interface Program {
  readonly path: string;
  readonly env?: NodeJS.ProcessEnv | undefined;
}

/** There is no such engine on this machine, and none could be had without asking. */
export class EngineMissingError extends Error {
  override readonly name = "EngineMissingError";
  readonly engine: EngineName;

  constructor(engine: EngineName, advice: string, causes: readonly unknown[] = []) {
    const tried = causes.map((cause) => (cause instanceof Error ? cause.message : String(cause)));
    super([`No ${engine} server: ${advice}`, ...tried].join("\n  "));
    this.engine = engine;
  }
}

/** One way to a server program: `undefined` when it does not lead to one here. */
export type Rung = () => Program | undefined | Promise<Program | undefined>;

const found = new Map<string, Promise<Program>>();

/**
 * The program of the first rung that has one; looked for once in this process.
 *
 * @throws EngineMissingError with the advice, and with why the rungs that were tried failed.
 */
export function climb(
  engine: EngineName,
  program: string,
  advice: string,
  rungs: readonly Rung[],
): Promise<Program> {
  let search = found.get(program);
  if (search === undefined) {
    search = tryRungs(engine, advice, rungs);
    found.set(program, search);
  }
  return search;
}

async function tryRungs(engine: EngineName, advice: string, rungs: readonly Rung[]) {
  const failures: unknown[] = [];
  for (const rung of rungs) {
    try {
      const program = await rung();
      if (program !== undefined) return program;
    } catch (error) {
      failures.push(error);
    }
  }
  throw new EngineMissingError(engine, advice, failures);
}

/** A program in `PATH` or in one of these folders. */
export function installed(
  names: readonly string[],
  folders: readonly string[] = [],
): Program | undefined {
  const path = (process.env["PATH"] ?? "").split(delimiter).filter((folder) => folder !== "");
  const suffix = process.platform === "win32" ? ".exe" : "";
  for (const folder of [...path, ...folders]) {
    for (const name of names) {
      const file = join(folder, name + suffix);
      if (isExecutable(file)) return { path: file };
    }
  }
  return undefined;
}

/** Rejects soon when a host cannot be reached from here, before a helper tries for long. */
export async function answers(url: string): Promise<void> {
  await fetch(url, { method: "HEAD", signal: AbortSignal.timeout(3_000) }).catch(() => {
    throw new Error(`${url} cannot be reached for a download`);
  });
}

/** `folder/<version>/bin` of every version, newest first: where Debian keeps PostgreSQL. */
export function versionedFolders(folder: string): string[] {
  try {
    return readdirSync(folder)
      .sort((a, b) => Number.parseFloat(b) - Number.parseFloat(a))
      .map((version) => join(folder, version, "bin"));
  } catch {
    return [];
  }
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
