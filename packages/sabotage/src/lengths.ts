/** Defects that show only where there is much: many messages, many sessions, texts that grow when they are quoted. */
import {
  BackendError,
  type ChatStoreBackend,
  type MessageRecord,
  type Range,
} from "@chatstore/core";
import type { Defect } from "./defect.js";

const everything: Range = { from: "start" };

/** The newest so many messages, which is where a hasty look-up ends. */
async function newest(
  sound: ChatStoreBackend,
  count: number,
  ...[key, , signal]: Parameters<ChatStoreBackend["read"]>
): Promise<readonly MessageRecord[]> {
  const found = await sound.read(key, { from: "end", limit: count }, signal);
  return typeof found === "object" ? found.records : [];
}

const far = "ids far back in a long history are known";
const known = "the first of 5200 messages are known, edited, and stood at";
const whole = "5200 messages are read, copied and replaced whole";

export const lengths: Readonly<Record<string, Defect>> = {
  "looks for the ids of an append among the newest thousand": {
    breaks: "G5",
    caughtBy: far,
    backend: (sound) => ({
      async append(key, records, patch, write, signal) {
        const outcome = await sound.append(key, records, patch, write, signal);
        if (outcome.status !== "duplicate") return outcome;
        const near = new Set(
          (await newest(sound, 1_000, key, everything, signal)).map(({ id }) => id),
        );
        if (outcome.ids.some((id) => near.has(id))) return outcome;
        const rest = records.filter(({ id }) => !outcome.ids.includes(id));
        return sound.append(key, rest, patch, write, signal);
      },
    }),
  },

  "looks for a message to be edited among the newest thousand": {
    breaks: "API",
    caughtBy: known,
    backend: (sound) => ({
      async edit(key, edit, write, signal) {
        if (edit.op !== "update") return sound.edit(key, edit, write, signal);
        const near = await newest(sound, 1_000, key, everything, signal);
        return near.some(({ id }) => id === edit.id)
          ? sound.edit(key, edit, write, signal)
          : { status: "missing", ids: [edit.id] };
      },
    }),
  },

  "looks for the message that a page is next to among the newest thousand": {
    breaks: "API",
    caughtBy: known,
    backend: (sound) => ({
      async read(key, range, signal) {
        if ("from" in range) return sound.read(key, range, signal);
        const anchor = "before" in range ? range.before : range.after;
        const near = await newest(sound, 1_000, key, everything, signal);
        return near.some(({ id }) => id === anchor) ? sound.read(key, range, signal) : "missing";
      },
    }),
  },

  "reads five thousand messages at most": {
    breaks: "API",
    caughtBy: whole,
    backend: (sound) => ({
      read: (key, range, signal) =>
        sound.read(key, { ...range, limit: Math.min(range.limit ?? 5_000, 5_000) }, signal),
    }),
  },

  "erases the newest thousand of a session's messages": {
    breaks: "G14",
    caughtBy: "deleteMessages of a long session leaves no trace",
    backend: (sound, engine) => ({
      async erase(target, signal) {
        if ("key" in target) {
          engine().exec(
            `CREATE TABLE IF NOT EXISTS chatstore_left AS SELECT * FROM chatstore_messages WHERE 0`,
          );
          engine()
            .prepare(
              `INSERT INTO chatstore_left SELECT * FROM chatstore_messages
                WHERE session = (SELECT id FROM chatstore_sessions WHERE key = ?)
                ORDER BY place DESC LIMIT -1 OFFSET 1000`,
            )
            .run(target.key.id);
        }
        return sound.erase(target, signal);
      },
    }),
  },

  "cannot hold what doubles when it is quoted": {
    breaks: "API",
    caughtBy: "may be made of backslashes",
    backend: (sound) => ({
      async append(key, records, patch, write, signal) {
        // As an engine does whose statements are at most 16 MiB long.
        if (records.some(({ data }) => JSON.stringify(data).length > 16_000_000)) {
          throw new BackendError("The statement is too long", {
            retryable: false,
            outcome: "not-applied",
          });
        }
        return sound.append(key, records, patch, write, signal);
      },
    }),
  },

  "counts characters in UTF-16 where it keeps a title": {
    breaks: "API",
    caughtBy: "may be made of four-byte characters",
    backend: (sound) => ({
      append: (key, records, patch, write, signal) =>
        sound.append(
          key,
          records,
          typeof patch?.title === "string" ? { ...patch, title: patch.title.slice(0, 511) } : patch,
          write,
          signal,
        ),
    }),
  },
};
