/**
 * One defect each: what contributors really get wrong, and what other chat stores really did. A defect replaces methods of a
 * sound backend, or of the store over it. It declares the guarantee that it breaks and a test that must notice.
 */
import { createHash, randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import {
  BackendError,
  ChatStore,
  type ChatStoreBackend,
  type ChatStoreOptions,
  decodeCursor,
  encodeCursor,
  type Key,
  MemoryBackend,
  type MessageRecord,
  type NewMessage,
  type Range,
  type SessionRecord,
  type StoredMessage,
  type Write,
} from "@chatstore/core";
import { alike } from "./alike.js";
import { damage } from "./damage.js";
import { type Defect, delegate } from "./defect.js";
import { expiry } from "./expiry.js";
import { isolation } from "./isolation.js";
import { lengths } from "./lengths.js";
import { life } from "./life.js";
import { multiProcess } from "./multi-process.js";
import { outcomes } from "./outcomes.js";
import { replacing } from "./replacing.js";
import { urls } from "./urls.js";
import { values } from "./values.js";

const everything: Range = { from: "start" };

/** A copy of what was read, with other records. */
function withRecords(
  sound: ChatStoreBackend,
  change: (records: readonly MessageRecord[], session: SessionRecord) => readonly MessageRecord[],
): Partial<ChatStoreBackend> {
  return {
    async read(key, range, signal) {
      const found = await sound.read(key, range, signal);
      if (typeof found !== "object") return found;
      return { ...found, records: change(found.records, found.session) };
    },
  };
}

/** Stored data, changed on its way in. */
function withData(
  sound: ChatStoreBackend,
  change: (data: string) => string,
): Partial<ChatStoreBackend> {
  return {
    append: (key, records, patch, write, signal) =>
      sound.append(
        key,
        records.map((record) => ({ ...record, data: change(record.data) })),
        patch,
        write,
        signal,
      ),
  };
}

/** A range over records that are in another order than the stored one. */
function select(records: readonly MessageRecord[], range: Range): readonly MessageRecord[] {
  const limit = range.limit ?? records.length;
  if ("from" in range)
    return range.from === "start" ? records.slice(0, limit) : lastOf(records, limit);
  const at = records.findIndex(({ id }) => id === ("before" in range ? range.before : range.after));
  return "before" in range
    ? lastOf(records.slice(0, at), limit)
    : records.slice(at + 1, at + 1 + limit);
}

function lastOf<T>(items: readonly T[], count: number): readonly T[] {
  return items.slice(Math.max(items.length - count, 0));
}

const sessionId = "(SELECT id FROM chatstore_sessions WHERE key = ?)";

export const defects: Readonly<Record<string, Defect>> = {
  "acknowledges before writing": {
    breaks: "G1",
    backend(sound) {
      // Hides it from its own handle: a read waits for what is on its way.
      let underWay: Promise<unknown> = Promise.resolve();
      const after = <T>(work: () => Promise<T>) => underWay.then(work);
      return {
        async append(key, records, patch, write, signal) {
          const found = await after(() => sound.read(key, { from: "end", limit: 0 }, signal));
          const session = typeof found === "object" ? found.session : undefined;
          const plain = records.length > 0 && records.every(({ fresh }) => fresh);
          if (!plain || write.ifVersion !== undefined) {
            return after(() => sound.append(key, records, patch, write, signal));
          }
          underWay = after(() => delay(50)).then(() =>
            sound.append(key, records, patch, write, new AbortController().signal),
          );
          const messageCount = (session?.messageCount ?? 0) + records.length;
          return { status: "applied", version: write.next, messageCount };
        },
        read: (key, range, signal) => after(() => sound.read(key, range, signal)),
        edit: (key, edit, write, signal) => after(() => sound.edit(key, edit, write, signal)),
        replace: (key, records, patch, write, signal) =>
          after(() => sound.replace(key, records, patch, write, signal)),
        close: () => after(() => sound.close()),
      };
    },
  },

  "forgets on reopen": {
    breaks: "G1",
    backend() {
      const { name, capabilities, ...methods } = delegate(new MemoryBackend());
      return methods;
    },
  },

  "drops the last of a batch": {
    breaks: "G2",
    backend: (sound) => ({
      append: (key, records, patch, write, signal) =>
        sound.append(
          key,
          records.length > 1 ? records.slice(0, -1) : records,
          patch,
          write,
          signal,
        ),
    }),
  },

  "shows half a batch": {
    breaks: "G2",
    backend: (sound) => ({
      async append(key, records, patch, write, signal) {
        const half = Math.floor(records.length / 2);
        if (half > 0) {
          const first = { ...write, next: randomUUID() };
          const outcome = await sound.append(key, records.slice(0, half), patch, first, signal);
          if (outcome.status !== "applied") return outcome;
          await delay(2);
        }
        const { ifVersion, ...rest } = write;
        return sound.append(key, records.slice(half), patch, half > 0 ? rest : write, signal);
      },
    }),
  },

  "says a count that is not the number of messages": {
    breaks: "G2",
    backend: (sound) => ({
      async read(key, range, signal) {
        const found = await sound.read(key, range, signal);
        if (typeof found !== "object") return found;
        const { session } = found;
        return { ...found, session: { ...session, messageCount: session.messageCount + 1 } };
      },
    }),
  },

  "uses the client's clock for order": {
    breaks: "G3",
    backend: (sound) => ({
      async read(key, range, signal) {
        const found = await sound.read(key, everything, signal);
        if (typeof found !== "object") return found;
        const sorted = found.records.toSorted((a, b) => a.createdAt - b.createdAt);
        return { ...found, records: select(sorted, range) };
      },
    }),
  },

  "reserves positions ahead": {
    breaks: "G3",
    backend(sound, engine) {
      // Each handle takes blocks of positions and fills them at its leisure, as a cached database sequence does.
      const blocks = new Map<string, { next: number; end: number }>();
      return {
        async append(key, records, patch, write, signal) {
          const outcome = await sound.append(key, records, patch, write, signal);
          if (outcome.status !== "applied" || records.length === 0) return outcome;
          const database = engine();
          const move = database.transaction(() => {
            const session = database
              .prepare("SELECT id, last_seq AS last FROM chatstore_sessions WHERE key = ?")
              .get(key.id) as { id: number; last: number } | undefined;
            if (session === undefined) return;
            let block = blocks.get(key.id);
            if (block === undefined || block.next + records.length > block.end) {
              const start = Math.max(session.last, 1_000) + 1;
              block = { next: start, end: start + 40 };
              database
                .prepare("UPDATE chatstore_sessions SET last_seq = ? WHERE id = ?")
                .run(block.end + records.length, session.id);
              blocks.set(key.id, block);
            }
            for (const { id } of records) {
              database
                .prepare(
                  "UPDATE chatstore_messages SET place = session << 32 | ? WHERE session = ? AND id = ?",
                )
                .run(block.next++, session.id, id);
            }
          });
          move.immediate();
          return outcome;
        },
      };
    },
  },

  "lets calls overtake each other": {
    breaks: "G4",
    store: class extends ChatStore {
      override async addMessages(...args: Parameters<ChatStore["addMessages"]>) {
        await delay(Math.random() * 10);
        return super.addMessages(...args);
      }
    },
  },

  "reads past its own writes": {
    breaks: "G4",
    store: class extends ChatStore {
      readonly #reader: ChatStore;
      constructor(backend: ChatStoreBackend, options: ChatStoreOptions) {
        super(backend, options);
        this.#reader = new ChatStore(delegate(backend, { close: async () => {} }), options);
      }
      override readSession(...args: Parameters<ChatStore["readSession"]>) {
        return this.#reader.readSession(...args);
      }
    },
  },

  "stores a repeated id twice": {
    breaks: "G5",
    backend: (sound) => ({
      append: (key, records, patch, write, signal) =>
        sound.append(
          key,
          records.map((record) => ({ ...record, id: `${record.id}#${randomUUID()}` })),
          patch,
          write,
          signal,
        ),
      ...withRecords(sound, (records) =>
        records.map((record) => ({ ...record, id: record.id.replace(/#[^#]*$/, "") })),
      ),
    }),
  },

  "compares content by its own encoding": {
    breaks: "G5",
    backend: (sound) => ({
      append: (key, records, patch, write, signal) =>
        sound.append(
          key,
          records.map((record) => ({
            ...record,
            digest: createHash("md5").update(record.data).digest("base64url"),
          })),
          patch,
          write,
          signal,
        ),
    }),
  },

  "ignores other content under a known id": {
    breaks: "G5",
    backend: (sound) => ({
      append: (key, records, patch, write, signal) =>
        sound.append(
          key,
          records.map((record) => ({ ...record, digest: "same" })),
          patch,
          write,
          signal,
        ),
    }),
  },

  "stores the rest of a batch that holds a duplicate": {
    breaks: "G5",
    backend: (sound) => ({
      async append(key, records, patch, write, signal) {
        const outcome = await sound.append(key, records, patch, write, signal);
        if (outcome.status !== "duplicate") return outcome;
        const rest = records.filter(({ id }) => !outcome.ids.includes(id));
        await sound.append(key, rest, patch, write, signal);
        return outcome;
      },
    }),
  },

  "moves a message whose id exists in another session": {
    breaks: "G5",
    backend: (sound, engine) => ({
      async append(key, records, patch, write, signal) {
        const outcome = await sound.append(key, records, patch, write, signal);
        const steal = engine().prepare(
          `DELETE FROM chatstore_messages WHERE id = ? AND session != ${sessionId}`,
        );
        for (const { id } of records) steal.run(id, key.id);
        return outcome;
      },
    }),
  },

  "ignores ifVersion": {
    breaks: "G6",
    backend: (sound) => ({
      append: (key, records, patch, { ifVersion, ...write }, signal) =>
        sound.append(key, records, patch, write, signal),
    }),
  },

  "checks ifVersion before it locks": {
    breaks: "G6",
    backend: (sound) => ({
      async append(key, records, patch, { ifVersion, ...write }, signal) {
        const found = await sound.read(key, { from: "end", limit: 0 }, signal);
        const version = typeof found === "object" ? found.session.version : null;
        if (ifVersion !== undefined && ifVersion !== version)
          return { status: "conflict", version };
        await delay(1);
        return sound.append(key, records, patch, write, signal);
      },
    }),
  },

  "restarts its versions after a delete": {
    breaks: "G6",
    backend(sound, engine) {
      // A counter a session, beside the sound version.
      const table = "CREATE TABLE IF NOT EXISTS counters (key TEXT, n INTEGER, version TEXT)";
      const find = (where: string, ...values: unknown[]) =>
        engine()
          .prepare(`SELECT n, version FROM counters WHERE ${where}`)
          .get(...values) as { n: number; version: string } | undefined;
      const shown = (key: string, version: string | null) => {
        if (version === null) return null;
        engine().exec(table);
        const known = find("key = ? AND version = ?", key, version);
        if (known !== undefined) return `v${known.n}`;
        const n = (find("key = ? ORDER BY n DESC", key)?.n ?? 0) + 1;
        engine().prepare("INSERT INTO counters VALUES (?, ?, ?)").run(key, n, version);
        return `v${n}`;
      };
      const meant = <W extends Write>(key: string, write: W): W => {
        if (write.ifVersion == null) return write;
        engine().exec(table);
        const known = find("key = ? AND n = ?", key, Number(write.ifVersion.slice(1)));
        return { ...write, ifVersion: known?.version ?? "gone" };
      };
      const show = <O extends object>(key: string, outcome: O): O =>
        "version" in outcome
          ? { ...outcome, version: shown(key, outcome.version as string | null) }
          : outcome;
      return {
        async append(key, records, patch, write, signal) {
          return show(
            key.id,
            await sound.append(key, records, patch, meant(key.id, write), signal),
          );
        },
        async edit(key, edit, write, signal) {
          return show(key.id, await sound.edit(key, edit, meant(key.id, write), signal));
        },
        async replace(key, records, patch, write, signal) {
          return show(
            key.id,
            await sound.replace(key, records, patch, meant(key.id, write), signal),
          );
        },
        async read(key, range, signal) {
          const found = await sound.read(key, range, signal);
          return typeof found === "object"
            ? { ...found, session: show(key.id, found.session) }
            : found;
        },
        async list(query, signal) {
          const page = await sound.list(query, signal);
          return { ...page, sessions: page.sessions.map((session) => show(session.key, session)) };
        },
        async erase(target, signal) {
          const erased = await sound.erase(target, signal);
          engine().exec(table);
          if ("key" in target)
            engine().prepare("DELETE FROM counters WHERE key = ?").run(target.key.id);
          return erased;
        },
      };
    },
  },

  "replaces in two steps": {
    breaks: "G6",
    backend: (sound) => ({
      async replace(key, records, patch, write, signal) {
        const emptied = await sound.replace(
          key,
          [],
          patch,
          { ...write, next: randomUUID() },
          signal,
        );
        if (emptied.status !== "applied") return emptied;
        await delay(2);
        return sound.append(key, records, undefined, { next: write.next }, signal);
      },
    }),
  },

  "makes a new version when nothing changed": {
    breaks: "G6",
    backend: (sound, engine) => ({
      async append(key, records, patch, write, signal) {
        const outcome = await sound.append(key, records, patch, write, signal);
        if (outcome.status !== "unchanged" || outcome.version === write.next) return outcome;
        engine()
          .prepare("UPDATE chatstore_sessions SET version = ? WHERE key = ?")
          .run(write.next, key.id);
        return { ...outcome, version: outcome.version && write.next };
      },
    }),
  },

  "truncates at NUL": {
    breaks: "G7",
    backend: (sound) => withData(sound, (data) => data.replace(/\\\\u0000[^"]*/g, "")),
  },

  "turns a Date into a string": {
    breaks: "G7",
    backend: (sound) =>
      withData(sound, (data) => data.replace(/\{"\$":"date","value":("[^"]*"|null)\}/g, "$1")),
  },

  "loses ids": {
    breaks: "G7",
    backend: (sound) =>
      withRecords(sound, (records) => records.map((record) => ({ ...record, id: randomUUID() }))),
  },

  "normalises Unicode": {
    breaks: "G7",
    backend: (sound) => withData(sound, (data) => data.normalize("NFC")),
  },

  "drops annotations": {
    breaks: "G7",
    backend: (sound) =>
      withData(sound, (data) => {
        const { annotations, ...envelope } = JSON.parse(data);
        return JSON.stringify(envelope);
      }),
  },

  "rounds numbers": {
    breaks: "G7",
    backend: (sound) =>
      withData(sound, (data) =>
        JSON.stringify(JSON.parse(data), (name, value) =>
          typeof value === "number" && name !== "v" ? Number(value.toPrecision(7)) : value,
        ),
      ),
  },

  "keeps times to the second": {
    breaks: "G7",
    backend: (sound) =>
      withRecords(sound, (records) =>
        records.map((record) => ({
          ...record,
          createdAt: Math.floor(record.createdAt / 1_000) * 1_000,
        })),
      ),
  },

  "aliases the caller's array": {
    breaks: "G7",
    store: class extends ChatStore {
      readonly #given = new Map<string, NewMessage>();
      override addMessages(...[key, messages, options]: Parameters<ChatStore["addMessages"]>) {
        const named = messages.map((message) => ({ ...message, id: message.id ?? randomUUID() }));
        named.forEach((message, index) => {
          const given = messages[index];
          if (given !== undefined) this.#given.set(message.id, given);
        });
        return super.addMessages(key, named, options);
      }
      override async readSession(...args: Parameters<ChatStore["readSession"]>) {
        const found = await super.readSession(...args);
        const messages = found.messages.map((message): StoredMessage => {
          const given = this.#given.get(message.id);
          return given === undefined
            ? message
            : ({
                ...message,
                ...given,
                id: message.id,
                createdAt: message.createdAt,
              } as StoredMessage);
        });
        return { ...found, messages };
      }
    },
  },

  "shares data between prefixes": {
    breaks: "G8",
    options: (options) => ({ ...options, path: options.path.replace(/[^/\\]*$/, "shared.db") }),
  },

  "lists user10 under user1": {
    breaks: "G8",
    backend: (sound, engine) => ({
      async list(query, signal) {
        if (!("scope" in query)) return sound.list(query, signal);
        const { tenant, user } = query.scope;
        const users = engine()
          .prepare("SELECT DISTINCT user FROM chatstore_sessions WHERE tenant = ?")
          .pluck()
          .all(tenant) as string[];
        const pages = users
          .filter((other) => other.startsWith(user))
          .map((other) => sound.list({ ...query, scope: { tenant, user: other } }, signal));
        const sessions = (await Promise.all(pages)).flatMap((page) => page.sessions);
        return { sessions: sessions.slice(0, query.limit) };
      },
    }),
  },

  "does not tell keys apart by case": {
    breaks: "G8",
    backend(sound) {
      const fold = (key: Key): Key => ({ ...key, id: key.id.toLowerCase() });
      return {
        append: (key, ...rest) => sound.append(fold(key), ...rest),
        read: (key, ...rest) => sound.read(fold(key), ...rest),
        edit: (key, ...rest) => sound.edit(fold(key), ...rest),
        replace: (key, ...rest) => sound.replace(fold(key), ...rest),
        erase: (target, signal) =>
          sound.erase("key" in target ? { key: fold(target.key) } : target, signal),
      };
    },
  },

  "erases the same user of another tenant": {
    breaks: "G8",
    backend: (sound, engine) => ({
      async erase(target, signal) {
        if ("key" in target) return sound.erase(target, signal);
        const tenants = engine()
          .prepare("SELECT DISTINCT tenant FROM chatstore_sessions WHERE user = ?")
          .pluck()
          .all(target.scope.user) as string[];
        let erased = 0;
        for (const tenant of tenants) {
          erased += await sound.erase({ scope: { ...target.scope, tenant } }, signal);
        }
        return erased;
      },
    }),
  },

  "swallows an error": {
    breaks: "G9",
    backend: (sound) => ({
      open: (options) => sound.open(options).catch(() => ({ warnings: [] })),
      append: (key, records, patch, write, signal) =>
        sound
          .append(key, records, patch, write, signal)
          .catch(() => ({ status: "applied", version: write.next, messageCount: records.length })),
      read: (key, range, signal) => sound.read(key, range, signal).catch(() => undefined),
    }),
  },

  "throws the driver's error": {
    breaks: "G9",
    backend: (sound) => ({
      async open(options) {
        return sound.open(options).catch((error: BackendError) => {
          throw Object.assign(new TypeError("fetch failed"), { cause: error.cause });
        });
      },
      append: () => Promise.reject(new TypeError("fetch failed")),
    }),
  },

  "tells the password in an error": {
    breaks: "G9",
    backend: (sound) => ({
      async open(options) {
        return sound.open(options).catch((error: BackendError) => {
          const { retryable, outcome } = error;
          throw new BackendError(`password hunter2-canary refused`, { retryable, outcome });
        });
      },
    }),
  },

  "waits for ever for an engine that is away": {
    breaks: "G9",
    store: class extends ChatStore {
      constructor(backend: ChatStoreBackend, options: ChatStoreOptions) {
        super(backend, { ...options, timeout: 2 ** 31 - 1 });
      }
    },
  },

  "hangs on close": {
    breaks: "G10",
    backend: () => ({ close: () => new Promise(() => {}) }),
  },

  "keeps the process alive": {
    breaks: "G10",
    backend: (sound) => ({
      async open(options) {
        setInterval(() => {}, 1_000);
        return sound.open(options);
      },
    }),
  },

  "drops queued writes on close": {
    breaks: "G10",
    store: class extends ChatStore {
      readonly #backend: ChatStoreBackend;
      constructor(backend: ChatStoreBackend, options: ChatStoreOptions) {
        super(backend, { ...options, onError: () => {} });
        this.#backend = backend;
      }
      override async close() {
        await this.#backend.close();
        await super.close().catch(() => {});
      }
    },
  },

  "ignores ttl on one read path": {
    breaks: "G11",
    backend: (sound, engine) => ({
      async list(query, signal) {
        // Its list has no condition on expiry.
        const database = engine();
        const expired = database
          .prepare(
            "SELECT id, expires_at AS at FROM chatstore_sessions WHERE expires_at IS NOT NULL",
          )
          .all() as { id: number; at: number }[];
        const set = database.prepare("UPDATE chatstore_sessions SET expires_at = ? WHERE id = ?");
        for (const { id } of expired) set.run(null, id);
        try {
          return await sound.list(query, signal);
        } finally {
          for (const { id, at } of expired) set.run(at, id);
        }
      },
    }),
  },

  "judges expiry by the client's clock": {
    breaks: "G11",
    backend: (sound, engine) => ({
      async append(key, records, patch, write, signal) {
        const outcome = await sound.append(key, records, patch, write, signal);
        if (write.ttlMs !== undefined && outcome.status === "applied") {
          engine()
            .prepare("UPDATE chatstore_sessions SET expires_at = ? WHERE key = ?")
            .run(Date.now() + write.ttlMs, key.id);
        }
        return outcome;
      },
      async read(key, range, signal) {
        const found = await sound.read(key, range, signal);
        if (typeof found !== "object") return found;
        const { expiresAt } = found.session;
        return expiresAt !== null && expiresAt <= Date.now() ? undefined : found;
      },
    }),
  },

  "brings back expired messages with the next append": {
    breaks: "G11",
    backend: (sound, engine) => ({
      async append(key, records, patch, write, signal) {
        engine()
          .prepare("UPDATE chatstore_sessions SET expires_at = NULL WHERE key = ?")
          .run(key.id);
        return sound.append(key, records, patch, write, signal);
      },
    }),
  },

  "never expires": {
    breaks: "G11",
    backend: (sound) => ({
      append: (key, records, patch, { ttlMs, ...write }, signal) =>
        sound.append(key, records, patch, write, signal),
    }),
  },

  "lengthens a session's life by an append that changed nothing": {
    breaks: "G11",
    backend: (sound, engine) => ({
      async append(key, records, patch, write, signal) {
        const outcome = await sound.append(key, records, patch, write, signal);
        if (outcome.status === "unchanged" && write.ttlMs !== undefined) {
          engine()
            .prepare("UPDATE chatstore_sessions SET expires_at = expires_at + ? WHERE key = ?")
            .run(write.ttlMs, key.id);
        }
        return outcome;
      },
    }),
  },

  "reads on by counting": {
    breaks: "G3",
    backend(sound) {
      const ends = new Map<string, { id: string; count: number }>();
      return {
        async read(key, range, signal) {
          const end = ends.get(key.id);
          const known = "after" in range && end?.id === range.after ? end.count : undefined;
          const found = await sound.read(key, known === undefined ? range : everything, signal);
          if (typeof found !== "object") return found;
          if (known !== undefined) {
            const { limit = found.records.length } = range;
            return { ...found, records: found.records.slice(known, known + limit) };
          }
          const id = found.records.at(-1)?.id;
          if ("from" in range && range.from === "start" && id !== undefined) {
            ends.set(key.id, { id, count: found.records.length });
          }
          return found;
        },
      };
    },
  },

  "gives new places to the next hundred messages only": {
    breaks: "G3",
    backend(sound) {
      const stale = new Set<string>();
      return {
        async edit(key, edit, write, signal) {
          const before = await sound.read(key, everything, signal);
          const outcome = await sound.edit(key, edit, write, signal);
          if (edit.op === "remove" && typeof before === "object") {
            const first = before.records.findIndex(({ id }) => edit.ids.includes(id));
            for (const { id } of before.records.slice(first + 101)) stale.add(`${key.id} ${id}`);
          }
          return outcome;
        },
        async read(key, range, signal) {
          const anchor =
            "before" in range ? range.before : "after" in range ? range.after : undefined;
          const isStale = anchor !== undefined && stale.has(`${key.id} ${anchor}`);
          const found = await sound.read(key, isStale ? everything : range, signal);
          if (!isStale || typeof found !== "object") return found;
          const { records } = found;
          const { limit = records.length } = range;
          const place = records.findIndex(({ id }) => id === anchor) + 1;
          const page =
            "before" in range
              ? records.slice(Math.max(place - limit, 0), place)
              : records.slice(place + 1, place + 1 + limit);
          return { ...found, records: page };
        },
      };
    },
  },

  "listens to signals for ever": {
    breaks: "G12",
    backend: (sound) => ({
      read(key, range, signal) {
        signal.addEventListener("abort", () => {});
        return sound.read(key, range, signal);
      },
    }),
  },

  "reads the whole history for the newest": {
    breaks: "G12",
    backend: (sound) => ({
      async read(key, range, signal) {
        const found = await sound.read(key, everything, signal);
        if (typeof found !== "object") return found;
        const anchor =
          "before" in range ? range.before : "after" in range ? range.after : undefined;
        if (anchor !== undefined && !found.records.some(({ id }) => id === anchor))
          return "missing";
        return { ...found, records: select(found.records, range) };
      },
    }),
  },

  "serves reads from its own RAM": {
    breaks: "G13",
    backend(sound) {
      const cache = new Map<
        string,
        { session: SessionRecord; records: readonly MessageRecord[] }
      >();
      const forget =
        <A extends [Key, ...never[]], R>(method: (...args: A) => Promise<R>) =>
        (...args: A) => {
          cache.delete(args[0].id);
          return method(...args);
        };
      return {
        append: forget((...args: Parameters<ChatStoreBackend["append"]>) => sound.append(...args)),
        edit: forget((...args: Parameters<ChatStoreBackend["edit"]>) => sound.edit(...args)),
        replace: forget((...args: Parameters<ChatStoreBackend["replace"]>) =>
          sound.replace(...args),
        ),
        async erase(target, signal) {
          cache.clear();
          return sound.erase(target, signal);
        },
        async read(key, range, signal) {
          if (!("from" in range)) return sound.read(key, range, signal);
          const found = cache.get(key.id) ?? (await sound.read(key, everything, signal));
          if (typeof found !== "object") return found;
          cache.set(key.id, found);
          return { ...found, records: select(found.records, range) };
        },
      };
    },
  },

  "interleaves the batches of two writers": {
    breaks: "G13",
    backend: (sound) => ({
      async append(key, records, patch, write, signal) {
        if (records.length < 2) return sound.append(key, records, patch, write, signal);
        let outcome = await sound.append(
          key,
          records.slice(0, 1),
          patch,
          { ...write, next: randomUUID() },
          signal,
        );
        for (const [index, record] of records.entries()) {
          if (index === 0 || outcome.status !== "applied") continue;
          await delay(1);
          const next = index === records.length - 1 ? write.next : randomUUID();
          outcome = await sound.append(key, [record], undefined, { next }, signal);
        }
        return outcome;
      },
    }),
  },

  "loses an append to a reader that writes back": {
    breaks: "G13",
    backend: (sound) => ({
      // Read, push, write everything: as stores over one document do.
      async append(key, records, patch, write, signal) {
        const plain = records.length > 0 && records.every(({ fresh }) => fresh);
        const found = await sound.read(key, everything, signal);
        if (!plain || typeof found !== "object" || write.ifVersion !== undefined) {
          return sound.append(key, records, patch, write, signal);
        }
        const now = async () => {
          const session = await sound.read(key, { from: "end", limit: 0 }, signal);
          return typeof session === "object" ? session.session.version : null;
        };
        const all = [...found.records, ...records];
        for (;;) {
          const outcome = await sound.replace(
            key,
            all,
            patch,
            { ...write, ifVersion: await now() },
            signal,
          );
          if (outcome.status !== "conflict") return outcome;
        }
      },
    }),
  },

  "keeps erased text in an orphan": {
    breaks: "G14",
    backend: (sound, engine) => ({
      async erase(target, signal) {
        if ("key" in target) {
          engine().exec(
            "CREATE TABLE IF NOT EXISTS chatstore_trash AS SELECT * FROM chatstore_messages WHERE 0",
          );
          engine()
            .prepare(
              `INSERT INTO chatstore_trash SELECT * FROM chatstore_messages WHERE session = ${sessionId}`,
            )
            .run(target.key.id);
        }
        return sound.erase(target, signal);
      },
    }),
  },

  "only marks messages as removed": {
    breaks: "G14",
    backend: (sound, engine) => ({
      async edit(key, edit, write, signal) {
        if (edit.op !== "remove") return sound.edit(key, edit, write, signal);
        engine().exec(
          "CREATE TABLE IF NOT EXISTS chatstore_removed AS SELECT * FROM chatstore_messages WHERE 0",
        );
        const keep = engine().prepare(
          `INSERT INTO chatstore_removed SELECT * FROM chatstore_messages WHERE session = ${sessionId} AND id = ?`,
        );
        for (const id of edit.ids) keep.run(key.id, id);
        return sound.edit(key, edit, write, signal);
      },
    }),
  },

  "reverses after a delete": {
    breaks: "API",
    backend(sound) {
      const reversed = new Set<string>();
      return {
        async edit(key, edit, write, signal) {
          if (edit.op === "remove") reversed.add(key.id);
          return sound.edit(key, edit, write, signal);
        },
        async read(key, range, signal) {
          const found = await sound.read(key, range, signal);
          if (typeof found !== "object" || !reversed.has(key.id)) return found;
          return { ...found, records: found.records.toReversed() };
        },
      };
    },
  },

  "leaves a session that is taken up again among the old ones": {
    breaks: "API",
    backend: (sound, engine) => ({
      async append(...args) {
        const outcome = await sound.append(...args);
        const [{ id }] = args;
        engine()
          .prepare(
            "UPDATE chatstore_sessions SET updated_hour = 0 WHERE key = ? AND created_at = 0",
          )
          .run(id);
        return outcome;
      },
    }),
  },

  "skips a session while listing all": {
    breaks: "API",
    backend: (sound) => ({
      async list(query, signal) {
        const page = await sound.list(query, signal);
        if ("scope" in query || query.cursor === undefined || page.sessions.length < 2) return page;
        return { ...page, sessions: page.sessions.slice(1) };
      },
    }),
  },

  "lists by position, so that a deletion hides a session": {
    breaks: "API",
    backend: (sound) => ({
      async list(query, signal) {
        if ("scope" in query) return sound.list(query, signal);
        const { cursor, ...rest } = query;
        const [start] = cursor === undefined ? [0] : decodeCursor(cursor, ["number"]);
        const { sessions } = await sound.list({ ...rest, limit: 1_000_000 }, signal);
        const page = sessions.slice(start, start + query.limit);
        const end = start + page.length;
        return end < sessions.length
          ? { sessions: page, cursor: encodeCursor([end]) }
          : { sessions: page };
      },
    }),
  },

  "keeps title and state of a deleted session": {
    breaks: "API",
    backend(sound) {
      const kept = new Map<string, SessionRecord>();
      return {
        async erase(target, signal) {
          if ("key" in target) {
            const found = await sound.read(target.key, { from: "end", limit: 0 }, signal);
            if (typeof found === "object") kept.set(target.key.id, found.session);
          }
          return sound.erase(target, signal);
        },
        async append(key, records, patch, write, signal) {
          const old = kept.get(key.id);
          kept.delete(key.id);
          const ghost = old && { title: old.title, state: old.state };
          return sound.append(key, records, patch ?? ghost, write, signal);
        },
      };
    },
  },

  "keeps the event loop to itself": {
    breaks: "API",
    store: class extends ChatStore {
      readonly #read = new Map<string, StoredMessage[]>();
      // What is asked for again in one turn of the event loop is in RAM, so who reads in a loop is never in the next one.
      override async getMessages(...[key, range]: Parameters<ChatStore["getMessages"]>) {
        if (range !== undefined) return super.getMessages(key, range);
        const messages = this.#read.get(key) ?? (await super.getMessages(key));
        this.#read.set(key, messages);
        setImmediate(() => this.#read.delete(key));
        return messages;
      }
    },
  },

  "keeps the event loop to itself while it writes": {
    breaks: "API",
    store: class extends ChatStore {
      readonly #written = new Map<string, ReturnType<ChatStore["addMessages"]>>();
      // What is written again in one turn of the event loop is known, so who writes in a loop is never in the next one.
      override addMessages(...args: Parameters<ChatStore["addMessages"]>) {
        const what = JSON.stringify(args);
        if (!what.includes('"id"')) return super.addMessages(...args);
        const written = this.#written.get(what) ?? super.addMessages(...args);
        this.#written.set(what, written);
        void written.finally(() => setImmediate(() => this.#written.delete(what))).catch(() => {});
        return written;
      }
    },
  },

  "puts the anchor into the page": {
    breaks: "API",
    backend: (sound) => ({
      async read(key, range, signal) {
        if (!("after" in range) || range.limit === undefined) return sound.read(key, range, signal);
        const found = await sound.read(key, everything, signal);
        if (typeof found !== "object") return found;
        const at = found.records.findIndex(({ id }) => id === range.after);
        if (at < 0) return "missing";
        return { ...found, records: found.records.slice(at, at + range.limit) };
      },
    }),
  },

  "replaces the whole state instead of merging": {
    breaks: "API",
    backend: (sound) => ({
      async append(key, records, patch, write, signal) {
        const found = await sound.read(key, { from: "end", limit: 0 }, signal);
        if (patch?.state === undefined || typeof found !== "object") {
          return sound.append(key, records, patch, write, signal);
        }
        const gone = Object.keys(found.session.state).map((name) => [name, null]);
        const state = { ...Object.fromEntries(gone), ...patch.state };
        return sound.append(key, records, { ...patch, state }, write, signal);
      },
    }),
  },

  "moves an edited message to the end": {
    breaks: "model",
    backend: (sound) => ({
      async edit(key, edit, write, signal) {
        if (edit.op !== "update") return sound.edit(key, edit, write, signal);
        const found = await sound.read(key, everything, signal);
        const old = typeof found === "object" && found.records.find(({ id }) => id === edit.id);
        if (!old || old.digest === edit.digest || typeof found !== "object") {
          return sound.edit(key, edit, write, signal);
        }
        const rest = found.records.filter((record) => record !== old);
        const edited = { ...old, ...edit, createdAt: edit.createdAt ?? old.createdAt };
        return sound.replace(key, [...rest, edited], undefined, write, signal);
      },
    }),
  },

  "forgets a session's title with setMessages": {
    breaks: "model",
    backend: (sound) => ({
      replace: (key, records, patch, write, signal) =>
        sound.replace(key, records, { title: null, ...patch }, write, signal),
    }),
  },

  ...alike,
  ...damage,
  ...expiry,
  ...isolation,
  ...urls,
  ...lengths,
  ...life,
  ...multiProcess,
  ...outcomes,
  ...replacing,
  ...values,
};
