/** Defects of sessions that expire, and of lists that meet them or meet changes. */
import { type ChatStoreBackend, decodeCursor, encodeCursor } from "@chatstore/core";
import type { Defect } from "./defect.js";

/** Pages of what `keep` leaves, without a cursor where it leaves nothing. */
function endingEarly(
  sound: ChatStoreBackend,
  engine: Parameters<NonNullable<Defect["backend"]>>[1],
  applies: (query: Parameters<ChatStoreBackend["list"]>[0]) => boolean,
): Partial<ChatStoreBackend> {
  return {
    async list(query, signal) {
      if (!applies(query)) return sound.list(query, signal);
      const database = engine();
      const expired = database
        .prepare(
          `SELECT id, key, expires_at AS at FROM chatstore_sessions
            WHERE expires_at <= unixepoch('subsec') * 1000`,
        )
        .all() as { id: number; key: string; at: number }[];
      const set = database.prepare("UPDATE chatstore_sessions SET expires_at = ? WHERE id = ?");
      for (const { id } of expired) set.run(null, id);
      try {
        const page = await sound.list(query, signal);
        const dead = new Set(expired.map(({ key }) => key));
        const sessions = page.sessions.filter(({ key }) => !dead.has(key));
        return sessions.length > 0 ? { ...page, sessions } : { sessions };
      } finally {
        for (const { id, at } of expired) set.run(at, id);
      }
    },
  };
}

const endsNoList = "expired sessions end no list";

export const expiry: Readonly<Record<string, Defect>> = {
  "counts the milliseconds of a life in 32 bits": {
    breaks: "G11",
    caughtBy: "a life may be longer than a counter of milliseconds holds",
    backend: (sound) => ({
      append: (key, records, patch, { ttlMs, ...write }, signal) =>
        sound.append(
          key,
          records,
          patch,
          ttlMs === undefined ? write : { ...write, ttlMs: ttlMs % 2 ** 32 },
          signal,
        ),
    }),
  },

  "lengthens a session's life by a write that it refuses": {
    breaks: "G11",
    caughtBy: "a write that is refused does not extend",
    backend: (sound, engine) => ({
      async append(key, records, patch, write, signal) {
        const outcome = await sound.append(key, records, patch, write, signal);
        if (outcome.status === "conflict" && write.ttlMs !== undefined) {
          engine()
            .prepare("UPDATE chatstore_sessions SET expires_at = expires_at + ? WHERE key = ?")
            .run(write.ttlMs, key.id);
        }
        return outcome;
      },
    }),
  },

  "lengthens a session's life by an edit of a message that is not there": {
    breaks: "G11",
    caughtBy: "a write that is refused does not extend",
    backend: (sound, engine) => ({
      async edit(key, edit, write, signal) {
        const outcome = await sound.edit(key, edit, write, signal);
        if (outcome.status === "missing" && write.ttlMs !== undefined) {
          engine()
            .prepare("UPDATE chatstore_sessions SET expires_at = expires_at + ? WHERE key = ?")
            .run(write.ttlMs, key.id);
        }
        return outcome;
      },
    }),
  },

  "ends a user's list at a page of expired sessions": {
    breaks: "G11",
    caughtBy: endsNoList,
    backend: (sound, engine) => endingEarly(sound, engine, (query) => "scope" in query),
  },

  "ends the list of all at a page of expired sessions": {
    breaks: "G11",
    caughtBy: endsNoList,
    backend: (sound, engine) => endingEarly(sound, engine, (query) => !("scope" in query)),
  },

  "lists all by the time of their change, so that a change hides a session": {
    breaks: "API",
    caughtBy: "a session that is changed between pages is listed all the same",
    backend: (sound) => ({
      async list(query, signal) {
        if ("scope" in query) return sound.list(query, signal);
        const { cursor, ...rest } = query;
        const [before, last] =
          cursor === undefined ? [Infinity, ""] : decodeCursor(cursor, ["number", "string"]);
        const { sessions } = await sound.list({ ...rest, limit: 1_000_000 }, signal);
        const left = sessions
          .toSorted((a, b) => b.updatedAt - a.updatedAt || (a.key < b.key ? -1 : 1))
          .filter((one) => one.updatedAt < before || (one.updatedAt === before && one.key > last));
        const page = left.slice(0, query.limit);
        const end = page.at(-1);
        return end !== undefined && left.length > page.length
          ? { sessions: page, cursor: encodeCursor([end.updatedAt, end.key]) }
          : { sessions: page };
      },
    }),
  },
};
