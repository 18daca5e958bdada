import { existsSync, mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Guarantee, testChatStore } from "@chatstore/core/conformance";
import Database from "better-sqlite3";
import { afterAll } from "vitest";
import { asked, crashes, defects, line } from "../../dist/index.js";

const directory = mkdtempSync(join(tmpdir(), "chatstore-sabotage-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** Every second defect, so that two test files share the work. */
export function testDefects(remainder: 0 | 1): void {
  for (const [index, [name, { breaks, caughtBy }]] of Object.entries(defects).entries()) {
    if (index % 2 !== remainder) continue;
    testSabotaged(name, name, [breaks], caughtBy === undefined ? undefined : [caughtBy]);
  }
}

/** The suite on a store with a defect, or on the sound one. */
export function testSabotaged(
  name: string,
  defect?: string,
  guarantees?: readonly Guarantee[],
  tests?: readonly string[],
): void {
  const folder = join(directory, name.replace(/\W/g, "-"));
  mkdirSync(folder);
  const path = (namespace: string) => join(folder, `${namespace}.db`);
  testChatStore({
    name,
    module: new URL("../../dist/index.js", import.meta.url),
    factory: "sabotagedChatStore",
    options: (namespace) => ({ path: path(namespace), defect }),
    guarantees,
    tests,
    bail: defect !== undefined,
    unreachable: {
      path: path("away"),
      url: "sabotaged://me:hunter2-canary@127.0.0.1:1/db",
      defect,
      down: "connect to me:hunter2-canary@nowhere",
    },
    readable: true,
    hooks: {
      ...(existsSync("/proc/self/fd") && {
        connections: async (namespace) => openFiles(path(namespace)),
      }),
      crash: async () => {
        for (const lose of crashes) lose();
        crashes.clear();
      },
      schema: async (namespace) => (existsSync(path(namespace)) ? schema(path(namespace)) : ""),
      newerSchema: async (namespace) => {
        const database = new Database(path(namespace));
        database.exec("UPDATE chatstore_meta SET version = 1000, compatible = 1000");
        database.close();
      },
      drop: async (namespace) => {
        for (const end of ["", "-wal", "-shm", "-reserve"]) {
          rmSync(path(namespace) + end, { force: true });
        }
      },
      dump: async (namespace) => dump(path(namespace)),
      tamper: async (namespace, search, replacement) => {
        const database = new Database(path(namespace));
        const sql = "UPDATE chatstore_messages SET data = replace(data, ?, ?)";
        database.prepare(sql).run(search, replacement);
        database.close();
      },
      outage: async (_, during) => {
        line.down = true;
        await during().finally(() => {
          line.down = false;
        });
      },
      loseAnswer: async (_, nth, run, meanwhile) => {
        const lost = { nth, meanwhile };
        line.lost = lost;
        await run().finally(() => {
          line.lost = undefined;
        });
        return lost.nth === 0;
      },
      roundTrips: async (_, run) => difference("calls", run),
      work: async (_, run) => difference("records", run),
    },
  });
}

async function difference(what: keyof typeof asked, run: () => Promise<unknown>): Promise<number> {
  const before = asked[what];
  await run();
  return asked[what] - before;
}

/** How many files of a database this process has open. */
function openFiles(path: string): number {
  const targets = readdirSync("/proc/self/fd").map((name) => {
    try {
      return readlinkSync(`/proc/self/fd/${name}`);
    } catch {
      return "";
    }
  });
  return targets.filter((target) => target.startsWith(path)).length;
}

function schema(path: string): string {
  const database = new Database(path, { readonly: true });
  try {
    return JSON.stringify(database.prepare("SELECT name FROM sqlite_schema ORDER BY name").all());
  } finally {
    database.close();
  }
}

/** All rows of all tables. */
function dump(path: string): string {
  const database = new Database(path, { readonly: true });
  try {
    const tables = database.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").pluck();
    const rows = tables.all().map((table) => database.prepare(`SELECT * FROM "${table}"`).all());
    return JSON.stringify(rows);
  } finally {
    database.close();
  }
}
