/**
 * A sound SQLite store, and the same with one defect.
 *
 * @packageDocumentation
 */
import { once } from "node:events";
import {
  BackendError,
  type ChatStore,
  type ChatStoreBackend,
  type ChatStoreOptions,
  createChatStore,
  type FailureOutcome,
  InvalidOptionsError,
  parseServerUrl,
  TimeoutError,
} from "@chatstore/core";
import { SqliteBackend } from "@chatstore/sqlite";
import Database from "better-sqlite3";
import { crashing, type Defect, delegate } from "./defect.js";
import { defects } from "./defects.js";

export { defects };

export interface SabotagedChatStoreOptions extends ChatStoreOptions {
  readonly path: string;
  /** Where an engine would be that has an address. */
  readonly url?: string | undefined;
  /** One of `defects`. Default: none, a sound store. */
  readonly defect?: string | undefined;
  /** The engine is away: it fails with this message. */
  readonly down?: string | undefined;
}

/** What all stores of this process have asked of their engine. */
export const asked = { calls: 0, records: 0 };

/** The line of all stores of this process to their engine. */
export const line: {
  /** Which call is carried out next without an answer. */
  lost?: { nth: number; meanwhile: () => Promise<unknown> } | undefined;
  /** Nothing gets through. */
  down: boolean;
} = { down: false };

/** What each engine of this process loses when it crashes. */
export const crashes: Set<() => void> = crashing;

/** The factory that the suite is given, in its own process and in the child processes that it starts. */
export function sabotagedChatStore(options: SabotagedChatStoreOptions): ChatStore {
  const defect = options.defect === undefined ? undefined : findDefect(options.defect);
  if (options.url !== undefined) (defect?.url ?? checkUrl)(options.url);
  const { path } = defect?.options?.(options) ?? options;
  if (typeof path !== "string") throw new InvalidOptionsError("Where? Give a path");
  const sqlite = new SqliteBackend({ path, survives: "process" });
  let connection: Database.Database | undefined;
  const engine = () => {
    connection ??= new Database(path, { timeout: 10_000 });
    return connection;
  };
  const sound = options.down === undefined ? lossy(counted(sqlite)) : away(sqlite, options.down);
  const soundOrBroken = delegate(sound, defect?.backend?.(sound, engine));
  const backend = delegate(soundOrBroken, {
    async close() {
      connection?.close();
      await soundOrBroken.close();
    },
  });
  return defect?.store === undefined
    ? createChatStore(
        "sabotaged",
        options,
        { path: true, url: true, defect: true, down: true },
        () => backend,
      )
    : new defect.store(backend, options);
}

function findDefect(name: string): Defect {
  const defect = typeof name === "string" ? defects[name] : undefined;
  if (defect === undefined) throw new InvalidOptionsError("There is no such defect");
  return defect;
}

function checkUrl(url: string): void {
  parseServerUrl(url, {
    schemes: ["sabotaged"],
    example: "sabotaged://user:password@host:1/db",
    parameters: [],
  });
}

function counted(backend: ChatStoreBackend): ChatStoreBackend {
  return delegate(backend, {
    async read(...args) {
      asked.calls++;
      const found = await backend.read(...args);
      if (typeof found === "object") asked.records += found.records.length;
      return found;
    },
    append(...args) {
      asked.calls++;
      asked.records += args[1].length;
      return backend.append(...args);
    },
    edit(...args) {
      asked.calls++;
      const [, edit] = args;
      asked.records += edit.op === "replaceAfter" ? edit.records.length : 1;
      return backend.edit(...args);
    },
    replace(...args) {
      asked.calls++;
      asked.records += args[1].length;
      return backend.replace(...args);
    },
  });
}

/** The line to the engine, which loses an answer where it is told to. */
function lossy(backend: ChatStoreBackend): ChatStoreBackend {
  const over = <Args extends unknown[], T>(
    outcome: FailureOutcome,
    call: (...args: Args) => Promise<T>,
  ) => {
    return async (...args: Args): Promise<T> => {
      if (line.down) await givenUp(args.at(-1) as AbortSignal);
      const result = await call(...args);
      const { lost } = line;
      if (lost === undefined || --lost.nth > 0) return result;
      line.lost = undefined;
      await lost.meanwhile();
      throw new BackendError("The line is down", { retryable: true, outcome });
    };
  };
  return delegate(backend, {
    read: over("not-applied", (...args) => backend.read(...args)),
    list: over("not-applied", (...args) => backend.list(...args)),
    append: over("unknown", (...args) => backend.append(...args)),
    edit: over("unknown", (...args) => backend.edit(...args)),
    replace: over("unknown", (...args) => backend.replace(...args)),
    erase: over("unknown", (...args) => backend.erase(...args)),
    purge: over("unknown", (...args) => backend.purge(...args)),
  });
}

async function givenUp(signal: AbortSignal): Promise<never> {
  if (!signal.aborted) await once(signal, "abort");
  throw new TimeoutError("The line is down", { outcome: "not-applied" });
}

function away(backend: ChatStoreBackend, reason: string): ChatStoreBackend {
  return delegate(backend, {
    open: async () => {
      throw new BackendError("The engine is away", {
        retryable: true,
        outcome: "not-applied",
        cause: new Error(reason.replace(/\S*@/, "")),
      });
    },
  });
}
