import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Database from "better-sqlite3";
import { afterAll, expect, test } from "vitest";
import { sessionKey, sqliteChatStore } from "../src/index.ts";

const folder = mkdtempSync(join(tmpdir(), "chatstore-sqlite-cost-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Bytes of a page in the log, with its header. */
const frame = 4_096 + 24;
const key = sessionKey({ user: "alice", conversation: "long" });
const other = sessionKey({ user: "bob" });
const times = { createdAt: new Date(0), updatedAt: new Date(0) };
const say = (id?: string) => ({ id, role: "user", content: "x".repeat(400) }) as const;

test("what operations cost does not creep up", async () => {
  const path = join(folder, "chat.db");
  let statements = 0;
  const database = new Database(path, { verbose: () => statements++ });
  database.pragma("journal_mode = WAL");
  const store = sqliteChatStore({ database });
  await store.setMessages(
    key,
    Array.from({ length: 2_000 }, (_, n) => say(`m${n}`)),
  );
  /** Statements, pages that are written to the log. Three statements are the busy timeout's, which is the owner's. */
  const most: Record<string, [() => Promise<unknown>, number, number]> = {
    "append one": [() => store.addMessage(key, say()), 8, 6],
    "append three": [() => store.addMessages(key, [say(), say(), say()]), 10, 7],
    "newest 20": [() => store.getMessages(key, { last: 20 }), 8, 0],
    "page of 20": [() => store.getMessages(key, { before: "m1000", limit: 20 }), 9, 0],
    session: [() => store.getSession(key), 8, 0],
    // A new session removes nothing: the log is not emptied.
    import: [() => store.importSession(other, { messages: [say()], ...times }), 8, 8],
    list: [() => store.listSessions({ user: "alice" }), 7, 0],
  };
  for (const [name, [run, calls, pages]] of Object.entries(most)) {
    database.pragma("wal_checkpoint(TRUNCATE)");
    statements = 0;
    await run();
    expect.soft(statements, `${name}: statements`).toBeLessThanOrEqual(calls);
    const written = Math.floor(statSync(`${path}-wal`).size / frame);
    expect.soft(written, `${name}: pages`).toBeLessThanOrEqual(pages);
  }
  await store.close();
  database.close();
});
