/**
 * The least that could work on SQLite: one transaction with one upsert of the session's row and one insert for each
 * message, in the same journal mode and with the same syncs as the store.
 *
 * - Order: `seq` counts on from the row's count. Unique ids: an index. Atomic: `BEGIN IMMEDIATE`.
 * - Sessions are indexed by user only: a user's few rows are sorted when they are listed, so that an append moves no entry
 *   of an index.
 * - Left out: digests, compare-and-set, expiry, state, title, waiting without blocking.
 */
import { randomUUID } from "node:crypto";
import { statSync } from "node:fs";
import { join } from "node:path";
import Database from "better-sqlite3";
import type { Contestant, Conversation, Filling, Message, Place } from "../contestant.js";
import { decode, encode, keyOf } from "./encoding.js";

const schema = `
CREATE TABLE IF NOT EXISTS sessions (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  user TEXT NOT NULL,
  name TEXT NOT NULL,
  version TEXT NOT NULL,
  count INTEGER NOT NULL,
  updated INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS sessions_by_user ON sessions (user);
CREATE TABLE IF NOT EXISTS messages (
  session INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  id TEXT NOT NULL,
  data TEXT NOT NULL,
  created INTEGER NOT NULL,
  PRIMARY KEY (session, seq),
  UNIQUE (session, id)
) WITHOUT ROWID, STRICT;`;

type Row = { readonly id: string; readonly data: string; readonly created: number };

export async function open({ at, namespace }: Place): Promise<Contestant> {
  const db = new Database(fileOf(at, namespace));
  db.pragma("journal_mode = WAL");
  db.pragma("synchronous = FULL");
  db.exec(schema);

  const saveSession = db.prepare<unknown[], { id: number; count: number }>(`
    INSERT INTO sessions (key, user, name, version, count, updated) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET version = excluded.version, updated = excluded.updated,
      count = count + excluded.count
    RETURNING id, count`);
  const insert = db.prepare(
    "INSERT INTO messages (session, seq, id, data, created) VALUES (?, ?, ?, ?, ?)",
  );
  const ofSession = "FROM messages WHERE session = (SELECT id FROM sessions WHERE key = @key)";
  const columns = "SELECT id, data, created";
  const selectAll = db.prepare<unknown[], Row>(`${columns} ${ofSession} ORDER BY seq`);
  const selectNewest = db.prepare<unknown[], Row>(
    `${columns} ${ofSession} ORDER BY seq DESC LIMIT @count`,
  );
  const selectPage = db.prepare<unknown[], Row>(`${columns} ${ofSession}
      AND seq < (SELECT seq ${ofSession} AND id = @before) ORDER BY seq DESC LIMIT @count`);
  const selectSessions = db.prepare<unknown[], { name: string }>(`
    SELECT name, version, count, updated FROM sessions WHERE user = ?
    ORDER BY updated DESC LIMIT ?`);

  const write = (conversation: Conversation, messages: readonly Message[]) => {
    const { user, name } = conversation;
    const now = Date.now();
    const { length } = messages;
    const session = saveSession.get(keyOf(conversation), user, name, randomUUID(), length, now);
    const { id, count } = session as { id: number; count: number };
    for (const [index, message] of messages.entries()) {
      insert.run(id, count - length + index, message.id ?? randomUUID(), encode(message), now);
    }
  };
  const append = db.transaction(write);
  const fill = db.transaction((fillings: Iterable<Filling>) => {
    for (const [conversation, messages] of fillings) write(conversation, messages);
  });
  return {
    durability: { survives: "host", settings: "WAL, synchronous=FULL" },
    fill: async (fillings) => fill(fillings),
    append: async (conversation, messages) => append.immediate(conversation, messages),
    all: async (conversation) => selectAll.all({ key: keyOf(conversation) }).map(decode),
    newest: async (conversation, count) =>
      selectNewest
        .all({ key: keyOf(conversation), count })
        .reverse()
        .map(decode),
    page: async (conversation, { id }, count) =>
      selectPage
        .all({ key: keyOf(conversation), before: id, count })
        .reverse()
        .map(decode),
    list: async (user, count) => selectSessions.all(user, count).map(({ name }) => name),
    close: async () => {
      db.close();
    },
  };
}

/** Bytes on disk. */
export async function bytes({ at, namespace }: Place): Promise<number> {
  return statSync(fileOf(at, namespace)).size;
}

/** The store's database is in the same place: a namespace has one or the other. */
export function fileOf(folder: string, namespace: string): string {
  return join(folder, `${namespace}.db`);
}
