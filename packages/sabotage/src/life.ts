/** Defects of a store's life: of crashes, of schemas and connections, of calls whose time is over, of costs that nobody sees. */
import { setTimeout as delay } from "node:timers/promises";
import {
  BackendError,
  ChatStore,
  type ChatStoreBackend,
  decodeCursor,
  encodeCursor,
} from "@chatstore/core";
import Database from "better-sqlite3";
import { crashing, type Defect } from "./defect.js";

const never = () => new AbortController().signal;

/** Connections that nobody closes, kept from being collected. */
const left: unknown[] = [];

/** Appends that are under way, in all stores of this process. */
let underWay = 0;

export const life: Readonly<Record<string, Defect>> = {
  "claims to survive a crash with what it has only in its memory": {
    breaks: "G1",
    caughtBy: "what is acknowledged survives a crash of the engine",
    backend: (sound, engine) => ({
      capabilities: { ...sound.capabilities, survives: "failover" },
      append(...args) {
        const { name } = engine();
        crashing.add(() => {
          const database = new Database(name);
          database.exec(
            `DELETE FROM chatstore_messages
              WHERE place IN (SELECT max(place) FROM chatstore_messages GROUP BY session)`,
          );
          database.close();
        });
        return sound.append(...args);
      },
    }),
  },

  "is not finished: it cannot append, which who waits for an append should hear": {
    breaks: "G1",
    caughtBy: "processes killed while they write lose nothing that was acknowledged",
    says: /append is not written yet/,
    backend: () => ({ append: () => Promise.reject(new Error("append is not written yet")) }),
  },

  "is not finished: it cannot append beside others either": {
    breaks: "G13",
    caughtBy: "writers that are killed disturb neither readers nor other writers",
    says: /append is not written yet/,
    backend: () => ({ append: () => Promise.reject(new Error("append is not written yet")) }),
  },

  "reads title and state at another time than the messages": {
    breaks: "G2",
    caughtBy: "title, state and messages that are read together were there together",
    backend: (sound) => ({
      async read(key, range, signal) {
        const found = await sound.read(key, range, signal);
        // As long as a round trip takes.
        await delay(1);
        const now = await sound.read(key, { from: "end", limit: 0 }, signal);
        if (typeof found !== "object" || typeof now !== "object") return found;
        const { title, state } = now.session;
        return { ...found, session: { ...found.session, title, state } };
      },
    }),
  },

  "edits when its time is over": {
    breaks: "G9",
    caughtBy: "a call whose time is over begins nothing",
    backend: (sound) => ({
      edit: (key, edit, write) => sound.edit(key, edit, write, never()),
    }),
  },

  "erases when its time is over": {
    breaks: "G9",
    caughtBy: "a call whose time is over begins nothing",
    backend: (sound) => ({ erase: (target) => sound.erase(target, never()) }),
  },

  "cites in an error what was to be written": {
    breaks: "G9",
    caughtBy: "what people say is in no error",
    backend: (sound) => ({
      open: (options) => sound.open(options).catch(() => ({ warnings: [] })),
      async append(key, records, patch, write, signal) {
        await sound.open({ migrate: "off", signal }).catch((error: BackendError) => {
          const { message, retryable, outcome } = error;
          const cause = new Error(`INSERT INTO messages VALUES ('${records[0]?.data}')`);
          throw new BackendError(message, { retryable, outcome, cause });
        });
        return sound.append(key, records, patch, write, signal);
      },
    }),
  },

  "takes the user of a list from its cursor": {
    breaks: "G9",
    caughtBy: "a cursor that was not given for the list shows nobody else's sessions",
    backend: (sound) => ({
      async list(query, signal) {
        if (!("scope" in query)) return sound.list(query, signal);
        const { cursor, ...first } = query;
        const [inner, tenant, user] =
          cursor === undefined
            ? [undefined, query.scope.tenant, query.scope.user]
            : decodeCursor(cursor, ["string", "string", "string"]);
        const rest = inner === undefined ? first : { ...first, cursor: inner };
        const page = await sound.list({ ...rest, scope: { tenant, user } }, signal);
        return page.cursor === undefined
          ? page
          : { ...page, cursor: encodeCursor([page.cursor, tenant, user]) };
      },
    }),
  },

  "throws what its parser throws at a cursor": {
    breaks: "G9",
    caughtBy: "a cursor that was not given for the list shows nobody else's sessions",
    backend: (sound) => ({
      async list(query, signal) {
        if (query.cursor !== undefined) {
          JSON.parse(Buffer.from(query.cursor, "base64url").toString());
        }
        return sound.list(query, signal);
      },
    }),
  },

  "leaves a connection when it is closed": {
    breaks: "G10",
    caughtBy: "a closed store leaves no connection",
    backend: (sound, engine) => ({
      async open(options) {
        const opened = await sound.open(options);
        left.push(new Database(engine().name));
        return opened;
      },
    }),
  },

  "does not wait for what it closes": {
    breaks: "G10",
    caughtBy: "close() waits for the writes that nobody awaited",
    store: class extends ChatStore {
      override async close() {
        void super.close().catch(() => {});
      }
    },
  },

  "makes tables when it may only check": {
    breaks: "API",
    caughtBy: "with migrate check makes nothing",
    backend: (sound) => ({
      open: ({ migrate, signal }) =>
        sound.open({ migrate: migrate === "check" ? "auto" : migrate, signal }),
    }),
  },

  "uses a newer schema as if it were its own": {
    breaks: "API",
    caughtBy: "leaves a newer schema alone",
    backend: (sound, engine) => ({
      async open(options) {
        return sound.open(options).catch(async (error: { code?: unknown }) => {
          if (error.code !== "UNSUPPORTED_FORMAT") throw error;
          engine().exec("UPDATE chatstore_meta SET version = 1, compatible = 1");
          return sound.open(options);
        });
      },
    }),
  },

  "listens for a lock for ever": {
    breaks: "G12",
    caughtBy: "calls that wait for each other leave nothing behind on their signals",
    backend: (sound) => ({
      async append(key, records, patch, write, signal) {
        if (underWay > 0) signal.addEventListener("abort", () => {});
        underWay++;
        try {
          return await sound.append(key, records, patch, write, signal);
        } finally {
          underWay--;
        }
      },
    }),
  },

  "looks at the newest four hundred messages for an append": {
    breaks: "G12",
    caughtBy: "what an append costs does not grow with the history",
    backend: (sound: ChatStoreBackend) => ({
      async append(key, records, patch, write, signal) {
        await sound.read(key, { from: "end", limit: 400 }, signal);
        return sound.append(key, records, patch, write, signal);
      },
    }),
  },

  "keeps one of two messages that an import brings under one id": {
    breaks: "G5",
    caughtBy: "an id twice in one batch is refused",
    store: class extends ChatStore {
      override importSession(...[key, session]: Parameters<ChatStore["importSession"]>) {
        const byId = new Map(session.messages.map((message) => [message.id, message]));
        return super.importSession(key, { ...session, messages: [...byId.values()] });
      }
    },
  },
};
