import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { testChatStore } from "@chatstore/core/conformance";
import Database from "better-sqlite3";
import { afterAll, describe, expect, onTestFinished, test, vi } from "vitest";
import * as sqlite from "../src/index.ts";
import { currentVersion, named, statements } from "../src/schema.ts";

const folder = mkdtempSync(join(tmpdir(), "chatstore-sqlite-"));
const built = new URL("../dist/index.js", import.meta.url);
const pathOf = (namespace: string) => join(folder, `${namespace}.db`);
const locked = new Database(pathOf("locked")).exec("BEGIN EXCLUSIVE");
afterAll(() => {
  locked.close();
  rmSync(folder, { recursive: true });
});

testChatStore({
  name: "sqlite",
  module: built,
  factory: "sqliteChatStore",
  options: (namespace) => ({ path: pathOf(namespace) }),
  unreachable: { path: pathOf("locked") },
  hooks: {
    dump: async (namespace) => {
      const database = beside(pathOf(namespace));
      const tables = rows(database, "SELECT name FROM sqlite_schema WHERE type = 'table'");
      return JSON.stringify(tables.map(({ name }) => rows(database, `SELECT * FROM "${name}"`)));
    },
    tamper: async (namespace, search, replacement) => {
      const sql = "UPDATE chatstore_messages SET data = replace(data, ?, ?)";
      beside(pathOf(namespace)).prepare(sql).run(search, replacement);
    },
    // As when a volume is lost and mounted again.
    outage: async (namespace, during) => {
      renameSync(pathOf(namespace), pathOf("elsewhere"));
      await during();
      renameSync(pathOf("elsewhere"), pathOf(namespace));
    },
    // A trip of an embedded engine goes to the disk: a commit.
    roundTrips: async (namespace, run) => {
      forget(pathOf(namespace));
      await run();
      return commits(pathOf(namespace));
    },
    schema: async (namespace) => {
      if (!existsSync(pathOf(namespace))) return "";
      const names = rows(beside(pathOf(namespace)), "SELECT name FROM sqlite_schema ORDER BY name");
      return JSON.stringify(names);
    },
    newerSchema: async (namespace) => stamp(pathOf(namespace), 1_000, 1_000),
    drop: async (namespace) => {
      for (const name of readdirSync(folder)) {
        if (name.startsWith(`${namespace}.`)) rmSync(join(folder, name));
      }
    },
    ...(existsSync("/proc/self/fd") && {
      connections: async (namespace) => openFiles(pathOf(namespace)),
    }),
    // Bytes of the file that are read.
    ...(existsSync("/proc/self/io") && {
      work: async (namespace, run) => {
        forget(pathOf(namespace));
        const before = bytesRead();
        await run();
        return bytesRead() - before;
      },
    }),
  },
  readable: true,
});

const key = sqlite.sessionKey({ tenant: "acme", user: "alice", conversation: "support" });
const hello = { role: "user", content: "hello" } as const;

describe("a place that cannot be used", () => {
  test("a missing directory is named, not made", async () => {
    const path = join(newFolder(), "missing", "chat.db");
    const error = await refusal(openStore({ path }).open());
    expect(error).toMatchObject({
      code: "INVALID_OPTIONS",
      message: expect.stringContaining(path),
    });
    expect(existsSync(join(path, ".."))).toBe(false);
  });

  test("a directory is not taken for a file", async () => {
    const path = newFolder();
    const error = await refusal(openStore({ path }).open());
    expect(error).toMatchObject({
      code: "INVALID_OPTIONS",
      message: expect.stringContaining(path),
    });
    expect(readdirSync(path)).toEqual([]);
  });

  test("a file of another kind is left as it is", async () => {
    const path = newPath();
    const text = "Dear diary, ".repeat(1_000);
    writeFileSync(path, text);
    const error = await refusal(openStore({ path }).open());
    expect(error).toMatchObject({
      code: "INVALID_OPTIONS",
      message: expect.stringContaining(path),
    });
    expect(readFileSync(path, "utf8")).toBe(text);
  });

  test.each([
    ["file", 0o444, 0o777],
    ["directory", 0o666, 0o555],
  ])("a read-only %s is said to be one", async (_, fileMode, directoryMode) => {
    const directory = newFolder();
    const path = join(directory, "chat.db");
    await fill(path);
    const before = readFileSync(path);
    chmodSync(path, fileMode);
    chmodSync(directory, directoryMode);
    chmodSync(folder, 0o755);
    // Root may write everything: the child becomes nobody, once it has loaded what only root may read.
    const [line] = await child(
      `await sqliteChatStore({ path: ":memory:" }).open();
      if (process.getuid() === 0) process.setuid(65534);
      const error = await sqliteChatStore({ path: ${JSON.stringify(path)} }).open().catch((e) => e);
      console.log(JSON.stringify({ code: error?.code, message: error?.message }));`,
    ).lines();
    chmodSync(directory, 0o777);
    expect(JSON.parse(line ?? "")).toMatchObject({
      code: "INVALID_OPTIONS",
      message: expect.stringContaining(path),
    });
    expect(readdirSync(directory).sort()).toEqual(["chat.db", "chat.db-reserve"]);
    expect(readFileSync(path).equals(before)).toBe(true);
  });

  test("a damaged file says what to do", async () => {
    const path = newPath();
    await fill(path, 200);
    const bytes = readFileSync(path);
    writeFileSync(path, bytes.fill(0xaa, 4_096));
    const store = openStore({ path });
    expect(await refusal(store.getMessages(key))).toMatchObject({
      code: "CORRUPT_SESSION",
      message: expect.stringMatching(/backup/),
    });
  });

  test("a full disk loses no acknowledged message, and nothing once there is space", async () => {
    const database = newDatabase();
    const store = openStore({ database });
    await store.addMessages(key, [hello]);
    database.pragma(`max_page_count = ${database.pragma("page_count", { simple: true })}`);
    const large = { role: "user", content: "x".repeat(100_000) } as const;
    expect(await refusal(store.addMessages(key, [large]))).toMatchObject({
      code: "BACKEND",
      retryable: false,
      outcome: "not-applied",
      cause: { code: "SQLITE_FULL" },
    });
    expect(await store.getMessages(key)).toHaveLength(1);
    database.pragma("max_page_count = 100000");
    await store.addMessages(key, [large]);
    expect(await store.getMessages(key)).toHaveLength(2);
  });

  test("a file that is gone or replaced takes no message that would be lost with it", async () => {
    const path = newPath();
    const store = openStore({ path, timeout: 300 });
    await store.addMessages(key, [hello]);
    renameSync(path, `${path}.old`);
    const gone = { code: "BACKEND", retryable: true, outcome: "not-applied" };
    expect(await refusal(store.addMessages(key, [hello]))).toMatchObject(gone);
    await fill(path);
    const replaced = { ...gone, retryable: false };
    expect(await refusal(store.addMessages(key, [hello]))).toMatchObject(replaced);
    expect(await refusal(store.getMessages(key))).toMatchObject(replaced);
  });
});

describe("the schema", () => {
  test("a newer one is left alone", async () => {
    const path = newPath();
    await fill(path);
    stamp(path, currentVersion + 1, currentVersion + 1);
    const before = readFileSync(path);
    const error = await refusal(openStore({ path }).addMessages(key, [hello]));
    expect(error).toMatchObject({
      code: "UNSUPPORTED_FORMAT",
      message: expect.stringContaining("upgrade"),
    });
    expect(readFileSync(path).equals(before)).toBe(true);
  });

  test("a newer one that says it is compatible is used, and keeps its version", async () => {
    const path = newPath();
    await fill(path);
    stamp(path, currentVersion + 1, currentVersion);
    const store = openStore({ path });
    await store.addMessages(key, [hello]);
    expect(await store.getMessages(key)).toHaveLength(2);
    expect(rows(beside(path), "SELECT version FROM chatstore_meta")).toEqual([
      { version: currentVersion + 1 },
    ]);
  });

  test.each(["check", "off"] as const)("migrate: %s makes nothing", async (migrate) => {
    const path = newPath();
    expect(await refusal(openStore({ path, migrate }).open())).toMatchObject({ code: "SCHEMA" });
    expect(existsSync(path)).toBe(false);
    new Database(path).exec("CREATE TABLE notes (text)").close();
    const before = readFileSync(path);
    expect(await refusal(openStore({ path, migrate }).open())).toMatchObject({
      code: "SCHEMA",
      message: expect.stringContaining("sqliteSchema"),
    });
    if (migrate === "check") expect(readFileSync(path).equals(before)).toBe(true);
  });

  test("somebody with the rights can print and run it", async () => {
    const [byHand, byStore] = [newPath(), newPath()];
    new Database(byHand).exec(sqlite.sqliteSchema({ prefix: "x_" })).close();
    await openStore({ path: byStore, prefix: "x_" }).open();
    const schema = "SELECT type, name, sql FROM sqlite_schema ORDER BY name";
    expect(rows(beside(byHand), schema)).toEqual(rows(beside(byStore), schema));
    const store = openStore({ path: byHand, prefix: "x_", migrate: "check" });
    await store.addMessages(key, [hello]);
    expect(await store.getMessages(key)).toHaveLength(1);
    expect(() => sqlite.sqliteSchema({ from: currentVersion })).toThrow("from is");
  });

  test("twenty processes that open an empty database at once all succeed", async () => {
    const path = newPath();
    const children = Array.from({ length: 20 }, () =>
      child(
        `const store = sqliteChatStore({ path: ${JSON.stringify(path)}, timeout: 30_000 });
        console.log("ready");
        await new Promise((resolve) => process.stdin.once("data", resolve));
        await store.addMessages(${JSON.stringify(key)}, [${JSON.stringify(hello)}]);
        await store.close();
        process.exit();`,
      ),
    );
    await Promise.all(children.map(({ ready }) => ready));
    for (const { process } of children) process.stdin?.write("go\n");
    for (const { finished } of children) expect(await finished).toEqual({ code: 0, stderr: "" });
    const store = openStore({ path });
    expect(await store.getMessages(key)).toHaveLength(20);
  });

  test("no statement scans a table or sorts, but for an hour of a user's list", async () => {
    const path = newPath();
    await openStore({ path }).open();
    const database = beside(path);
    for (const [name, sql] of Object.entries(statements)) {
      const parameters = sql.includes("@")
        ? Object.fromEntries([...sql.matchAll(/@(\w+)/g)].map(([, parameter]) => [parameter, 1]))
        : Array.from(sql.matchAll(/\?/g), () => 1);
      const plan = database
        .prepare(`EXPLAIN QUERY PLAN ${named(sql, "chatstore_")}`)
        .all(parameters)
        .map((step) => (step as { detail: string }).detail);
      // What a subquery reads has a step of its own.
      const bad = plan.filter((detail) => /SCAN (?!CONSTANT|\(subquery)|TEMP B-TREE/.test(detail));
      const known = name === "listOfUser" ? ["USE TEMP B-TREE FOR LAST 2 TERMS OF ORDER BY"] : [];
      expect({ name, bad }).toEqual({ name, bad: known });
    }
  });
});

describe("a database of one's own", () => {
  test("stays open, with its tables and settings", async () => {
    const database = newDatabase();
    database.exec("CREATE TABLE sessions (mine); INSERT INTO sessions VALUES ('kept')");
    database.defaultSafeIntegers();
    const settings = () =>
      ["busy_timeout", "synchronous", "journal_mode", "secure_delete"].map((name) =>
        database.pragma(name),
      );
    const before = settings();
    const store = openStore({ database });
    await store.addMessages(key, [hello]);
    await store.deleteMessages(key);
    await store.addMessages(key, [hello]);
    const { session, messages } = await store.readSession(key);
    expect([session?.messageCount, messages.length]).toEqual([1, 1]);
    expect((await store.listSessions({ tenant: "acme", user: "alice" })).sessions).toHaveLength(1);
    await store.close();
    expect(settings()).toEqual(before);
    expect(rows(database, "SELECT * FROM sessions")).toEqual([{ mine: "kept" }]);
    expect(store.capabilities).toMatchObject({ survives: "process", multiProcess: true });
  });

  test("a rollback of its owner takes no message with it", async () => {
    const database = newDatabase();
    const store = openStore({ database });
    await store.open();
    database.exec("BEGIN");
    const written = store.addMessages(key, [hello]);
    const read = store.getMessages(sqlite.sessionKey({ user: "bob" }));
    await delay(50);
    database.exec("ROLLBACK");
    expect(await read).toEqual([]);
    await written;
    expect(await store.getMessages(key)).toHaveLength(1);
  });

  test("its owner may be in the middle of reading", async () => {
    const database = newDatabase();
    const store = openStore({ database });
    await store.open();
    const iterator = database.prepare("VALUES (1), (2)").iterate();
    iterator.next();
    const written = store.addMessages(key, [hello]);
    await delay(50);
    iterator.return?.();
    expect(await written).toMatchObject({ messageCount: 1 });
  });

  test("a journal that a killed process cannot roll back is a warning", async () => {
    const database = newDatabase();
    database.pragma("journal_mode = MEMORY");
    const warnings: string[] = [];
    await openStore({ database, onWarning: (warning) => warnings.push(warning) }).open();
    expect(warnings).toEqual([expect.stringContaining("journal_mode")]);
  });
});

describe("locks", () => {
  test.each(["path", "database"] as const)(
    "while another process writes, the event loop turns (%s)",
    async (how) => {
      const path = newPath();
      await fill(path);
      const store = openStore(how === "path" ? { path } : { database: newDatabase(path) });
      await store.open();
      const other = beside(path);
      other.exec("BEGIN IMMEDIATE");
      const written = store.addMessages(key, [hello]);
      let ticks = 0;
      const ticker = setInterval(() => ticks++, 5);
      const start = performance.now();
      await delay(200);
      const elapsed = performance.now() - start;
      clearInterval(ticker);
      other.exec("COMMIT");
      await written;
      expect(ticks).toBeGreaterThan(5);
      expect(elapsed).toBeLessThan(2_000);
    },
  );

  test("a lock that stays is a timeout, and the write never happens", async () => {
    const path = newPath();
    await fill(path);
    const store = openStore({ path, timeout: 200 });
    await store.open();
    const other = beside(path);
    other.exec("BEGIN IMMEDIATE");
    expect(await refusal(store.addMessages(key, [hello]))).toMatchObject({
      code: "TIMEOUT",
      retryable: true,
      outcome: "not-applied",
    });
    expect(await store.getMessages(key)).toHaveLength(1);
    other.exec("ROLLBACK");
    await store.addMessages(key, [{ role: "user", content: "later" }]);
    expect((await store.getMessages(key)).map(({ content }) => content)).toEqual([
      "hello",
      "later",
    ]);
  });

  test("a reader on an old snapshot does not hold up erasing", async () => {
    const path = newPath();
    await fill(path);
    const store = openStore({ path });
    const reader = beside(path);
    reader.exec("BEGIN");
    const messages = () => rows(reader, "SELECT data FROM chatstore_messages");
    expect(messages()).toHaveLength(1);
    await store.deleteMessages(key);
    expect(messages()).toHaveLength(1);
    reader.exec("COMMIT");
    expect(messages()).toEqual([]);
  });
});

describe("appends that come together", () => {
  const keys = Array.from({ length: 50 }, (_, n) => sqlite.sessionKey({ user: `user${n}` }));

  test("share a transaction, and so a sync to disk", async () => {
    const path = newPath();
    const store = openStore({ path });
    await store.open();
    const before = commits(path);
    await Promise.all(keys.map((one) => store.addMessages(one, [hello])));
    const together = commits(path) - before;
    for (const one of keys) await store.addMessages(one, [hello]);
    const oneByOne = commits(path) - before - together;
    expect(oneByOne).toBe(50);
    expect(together).toBeLessThan(10);
  });

  test("do not share a failure", async () => {
    const path = newPath();
    const store = openStore({ path });
    await store.open();
    beside(path).exec(`CREATE TRIGGER poison BEFORE INSERT ON chatstore_messages
      WHEN new.data LIKE '%poison%' BEGIN SELECT raise(ABORT, 'no poison here'); END`);
    const results = await Promise.allSettled(
      keys.map((one, n) =>
        store.addMessages(one, [
          hello,
          { role: "user", content: n % 10 === 7 ? "poison" : "fine" },
        ]),
      ),
    );
    for (const [n, one] of keys.entries()) {
      const poisoned = n % 10 === 7;
      expect(results[n]?.status).toBe(poisoned ? "rejected" : "fulfilled");
      expect(await store.getMessages(one)).toHaveLength(poisoned ? 0 : 2);
    }
    expect(results[7]).toMatchObject({ reason: { code: "BACKEND", outcome: "not-applied" } });
  });
});

test("an id that is wrongly said to be fresh overwrites nothing", async () => {
  const backend = new sqlite.SqliteBackend({ path: newPath() });
  onTestFinished(() => backend.close());
  const { signal } = new AbortController();
  await backend.open({ migrate: "auto", signal });
  const target = { id: key, tenant: "acme", user: "alice", conversation: "support" };
  const record = (id: string) => ({ id, digest: "1", data: "{}", createdAt: 0 });
  await backend.append(target, [record("a")], undefined, { next: "v1" }, signal);
  const fresh = [record("b"), record("a")].map((one) => ({ ...one, fresh: true }));
  const error = await refusal(backend.append(target, fresh, undefined, { next: "v2" }, signal));
  expect(error).toMatchObject({ code: "BACKEND", retryable: false, outcome: "not-applied" });
  expect(await backend.read(target, { from: "start" }, signal)).toMatchObject({
    session: { version: "v1", messageCount: 1 },
    records: [record("a")],
  });
});

describe("removed text is in no byte of the files, of the log neither:", () => {
  const say = (id: string, content: string) => ({ id, role: "user", content }) as const;
  const removals: Readonly<Record<string, (store: sqlite.ChatStore) => Promise<unknown>>> = {
    updateMessage: (store) => store.updateMessage(key, "b", say("b", "harmless")),
    deleteMessage: (store) => store.deleteMessage(key, 1),
    deleteMessagesAfter: (store) => store.deleteMessagesAfter(key, "a"),
    replaceMessagesAfter: (store) => store.replaceMessagesAfter(key, "a", [say("c", "harmless")]),
    setMessages: (store) => store.setMessages(key, [say("c", "harmless")]),
    deleteMessages: (store) => store.deleteMessages(key),
    deleteSessions: (store) => store.deleteSessions({ tenant: "acme", user: "alice" }),
    purgeExpired: async (store) => {
      await delay(250);
      await store.purgeExpired();
    },
  };
  test.each(Object.entries(removals))("%s", async (name, remove) => {
    const path = newPath();
    const store = openStore({ path, ...(name === "purgeExpired" && { ttl: 200 }) });
    const bytes = () => ["", "-wal"].map((end) => readFileSync(path + end, "latin1")).join("");
    await store.addMessages(key, [say("a", "first"), hello]);
    await store.setMessages(key, [say("a", "first")]);
    // One that fits in a page, and one that takes several.
    await store.addMessages(key, [say("b", "secret")]);
    if (name !== "updateMessage" && name !== "deleteMessage") {
      await store.addMessages(key, [say("long", `secret ${"x".repeat(10_000)}`)]);
    }
    expect(bytes()).toContain("secret");
    await remove(store);
    expect(bytes()).not.toContain("secret");
  });
});

describe("options", () => {
  test.each([
    'quo"te',
    "x'; DROP TABLE notes; --",
    "two words\nand a line",
    "{meta}",
    "$& %s ?",
    "Größe 😀",
    "select",
    "",
  ])("any prefix is a name, and only a name: %j", async (prefix) => {
    const path = newPath();
    const [store, other] = [openStore({ path, prefix }), openStore({ path, prefix: "other" })];
    await store.addMessages(key, [hello]);
    expect(await other.getMessages(key)).toEqual([]);
    await other.addMessages(key, [hello, hello]);
    await other.deleteSessions({ tenant: "acme", user: "alice" });
    expect(await store.getMessages(key)).toHaveLength(1);
    const names = rows(beside(path), "SELECT name FROM sqlite_schema").map(({ name }) => name);
    expect(names).toContain(`${prefix}messages`);
  });

  test.each(["sqlite_", "a\0b", "\ud800", 5 as never])(
    "a prefix that SQLite refuses: %j",
    (prefix) => {
      expect(() => sqlite.sqliteChatStore({ prefix })).toThrow(sqlite.InvalidOptionsError);
    },
  );

  test.each([
    ["sqlite:./chat.db", "chat.db"],
    ["sqlite:chat%20%3F.db", "chat ?.db"],
    ["SQLite:some/../chat.db", "chat.db"],
  ])("%s is a file of the working directory", async (url, name) => {
    const before = process.cwd();
    const directory = newFolder();
    process.chdir(directory);
    onTestFinished(() => process.chdir(before));
    const store = openStore({ url });
    process.chdir(before);
    await store.open();
    expect(readdirSync(directory)).toContain(name);
  });

  test.each(["sqlite://", "sqlite:"])("%s/absolute/path is one", async (scheme) => {
    const path = newPath();
    await openStore({ url: `${scheme}${path}` }).open();
    expect(existsSync(path)).toBe(true);
  });

  test.each([
    "sqlite:",
    "sqlite://chat.db",
    "sqlite:./chat.db?mode=ro",
    "sqlite:./100%",
    "sqlite:///a%2Fb",
    "sqlite:a%2Fb",
    "redis://me:secret@host",
    // As SQLAlchemy writes what is relative: it would be in the root directory.
    "sqlite:///./chat.db",
    "sqlite:///../chat.db",
    "sqlite:///%2e/chat.db",
    "sqlite:/./chat.db",
    "sqlite:///chat.db",
    "sqlite://",
    "sqlite:////var/chat.db",
    "sqlite:./chat.db\n",
    "sqlite:./chat.db ",
    "sqlite: ./chat.db",
  ])("the URL %s is refused", (url) => {
    expect(() => sqlite.sqliteChatStore({ url })).toThrow(/sqlite:\.\/chat\.db/);
    expect(() => sqlite.sqliteChatStore({ url })).not.toThrow(/secret/);
  });

  test.each([
    { path: "" },
    { path: "a\0b" },
    { path: 5 as never },
    { path: "sqlite:./chat.db" },
    { path: "file:chat.db?mode=ro" },
    { path: ":memory:?cache=shared" },
    { path: "./chats/" },
    { path: "a.db", url: "sqlite:a.db" },
    { database: "a.db" as never },
    { database: new Database(":memory:"), survives: "host" as const },
    { survives: "anything" as never },
  ])("%o is refused", (options) => {
    expect(() => sqlite.sqliteChatStore(options)).toThrow(sqlite.InvalidOptionsError);
  });

  // No test can cut the power: what a write survives then rests on these.
  test.each([
    [undefined, 2, 1],
    ["host", 2, 1],
    ["process", 1, 1],
  ] as const)("survives: %s syncs as it says", async (survives, synchronous, checkpoint) => {
    const pragma = vi.spyOn(Database.prototype, "pragma");
    onTestFinished(() => pragma.mockRestore());
    const store = openStore({ path: newPath(), survives });
    await store.addMessages(key, [hello]);
    const database = pragma.mock.contexts[0] as Database.Database;
    const settingOf = (name: string) => database.pragma(name, { simple: true });
    expect(
      ["journal_mode", "synchronous", "fullfsync", "checkpoint_fullfsync"].map(settingOf),
    ).toEqual(["wal", synchronous, checkpoint, checkpoint]);
  });

  test("what is given up for speed is declared", async () => {
    const path = newPath();
    expect(openStore({ path }).capabilities.survives).toBe("host");
    const fast = openStore({ path, survives: "process" });
    await fast.addMessages(key, [hello]);
    expect(fast.capabilities.survives).toBe("process");
    for (const url of ["sqlite::memory:", "sqlite:///:memory:", "sqlite://:memory:"]) {
      const memory = openStore({ url });
      await memory.addMessages(key, [hello]);
      expect(memory.capabilities).toMatchObject({ survives: "nothing", multiProcess: false });
    }
  });

  test("openChatStore finds the backend by its URL", async () => {
    const path = newPath();
    const store = await sqlite.openChatStore(`sqlite:${path}`);
    await store.addMessages(key, [hello]);
    await store.close();
    expect(await openStore({ path }).getMessages(key)).toHaveLength(1);
  });
});

function newFolder(): string {
  return mkdtempSync(join(folder, "own-"));
}

function newPath(): string {
  return join(newFolder(), "chat.db");
}

function openStore(options: sqlite.SqliteChatStoreOptions) {
  const store = sqlite.sqliteChatStore(options);
  onTestFinished(() => store.close().catch(() => undefined));
  return store;
}

/** A handle of the test's own on the same file. */
function beside(path: string): Database.Database {
  return newDatabase(path, { timeout: 10_000 });
}

function newDatabase(path = newPath(), options: Database.Options = {}): Database.Database {
  const database = new Database(path, options);
  onTestFinished(() => void database.close());
  return database;
}

function rows(database: Database.Database, sql: string): Record<string, unknown>[] {
  return database.prepare(sql).all() as Record<string, unknown>[];
}

/** Make a database with a session, and close it. */
async function fill(path: string, messages = 1): Promise<void> {
  const store = sqlite.sqliteChatStore({ path });
  await store.addMessages(key, Array(messages).fill(hello));
  await store.close();
}

function stamp(path: string, version: number, compatible: number): void {
  const database = beside(path);
  database
    .prepare("UPDATE chatstore_meta SET version = ?, compatible = ?")
    .run(version, compatible);
  database.close();
}

/** How many transactions the write-ahead log holds: frames whose header names the size of the database after a commit. */
function commits(path: string): number {
  const log = readFileSync(`${path}-wal`);
  if (log.length === 0) return 0;
  const frame = 24 + log.readUInt32BE(8);
  let count = 0;
  for (let offset = 32; offset + frame <= log.length; offset += frame) {
    if (log.readUInt32BE(offset + 4) !== 0) count++;
  }
  return count;
}

/** Empty the write-ahead log, and with a change from outside every cache of the file. */
function forget(path: string): void {
  const database = beside(path);
  database.exec("UPDATE chatstore_meta SET version = version");
  database.pragma("wal_checkpoint(TRUNCATE)");
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

function bytesRead(): number {
  return Number(/^rchar: (\d+)/.exec(readFileSync("/proc/self/io", "utf8"))?.[1]);
}

async function refusal(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    (value) => expect.fail(`it resolved: ${JSON.stringify(value)}`),
    (error: unknown) => error,
  );
}

/** A process that runs a module's text, with the built factory in reach. */
function child(code: string) {
  const source = `import { sqliteChatStore } from ${JSON.stringify(built.href)};\n${code}`;
  const process_ = spawn(process.execPath, ["--input-type=module", "--eval", source]);
  let [stdout, stderr] = ["", ""];
  process_.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  process_.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const finished = once(process_, "close").then(([code]) => ({ code: code as number, stderr }));
  return {
    process: process_ as ChildProcess,
    ready: Promise.race([once(process_.stdout, "data"), finished]),
    finished,
    lines: async () => {
      expect(await finished).toEqual({ code: 0, stderr: "" });
      return stdout.trim().split("\n");
    },
  };
}
