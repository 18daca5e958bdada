/**
 * Mastra's stores, by the memory domain that its agents use. Messages get times that rise with each, since they are sorted
 * by these. What they do without is in `without`, and printed below the figures.
 */
import { randomUUID } from "node:crypto";
import type { Contestant, Conversation, Durability, Message, Place } from "../contestant.js";
import { keyOf } from "../raw/encoding.js";
import { journaled, writeConcern } from "../raw/mongo.js";
import { durabilityOf as durabilityOfPostgres } from "../raw/postgres.js";
import { durabilityOf as durabilityOfRedis } from "../raw/redis.js";
import { fileOf } from "../raw/sqlite.js";
import { requirePeer } from "./packages.js";

interface StoredMessage {
  readonly id: string;
  readonly threadId: string;
  readonly resourceId: string;
  readonly role: "user" | "assistant";
  readonly type: "v2";
  readonly createdAt: Date;
  readonly content: {
    readonly format: 2;
    readonly parts: readonly { readonly type: "text"; readonly text: string }[];
  };
}

interface Thread {
  readonly id: string;
  readonly resourceId: string;
  readonly title: string;
  readonly createdAt: Date;
  readonly updatedAt: Date;
  readonly metadata: object;
}

interface MemoryDomain {
  getThreadById(by: { readonly threadId: string }): Promise<Thread | null>;
  saveThread(by: { readonly thread: Thread }): Promise<unknown>;
  saveMessages(by: { readonly messages: readonly StoredMessage[] }): Promise<unknown>;
  listMessages(by: {
    readonly threadId: string;
    /** `false`: all; 0: those to `include` only. */
    readonly perPage: number | false;
    readonly orderBy?: { readonly field: "createdAt"; readonly direction: "ASC" | "DESC" };
    /** PostgreSQL does without a count then; the others count, or have all of them anyway. */
    readonly includeTotal?: false;
    readonly include?: readonly { readonly id: string; readonly withPreviousMessages: number }[];
  }): Promise<{ readonly messages: readonly StoredMessage[] }>;
  listThreads(by: {
    readonly filter: { readonly resourceId: string };
    readonly perPage: number;
    readonly orderBy: { readonly field: "updatedAt"; readonly direction: "DESC" };
  }): Promise<{ readonly threads: readonly Thread[] }>;
}

interface Store {
  init(): Promise<void>;
  getStore(domain: "memory"): Promise<MemoryDomain>;
  close(): Promise<void>;
}

type NewStore = new (options: object) => Store;

/** Messages saved at once where a conversation is filled, and conversations that are. */
const savedAtOnce = 1_000;
const filledAtOnce = 8;

const without = [
  "an order of its own (it sorts by the writers' clocks)",
  "ids in a session (the id of a message in another thread, of whomever, moves that one here)",
  "compare-and-set",
];

async function contestant(
  store: Store,
  durability: Durability,
  rest: Partial<Contestant> = {},
): Promise<Contestant> {
  await store.init();
  const memory = await store.getStore("memory");
  const now = clock();
  const known = new Set<string>();

  const ensureThread = async ({ user, name }: Conversation, threadId: string) => {
    if (known.has(threadId)) return;
    if ((await memory.getThreadById({ threadId })) === null) {
      const time = new Date();
      const thread = { id: threadId, resourceId: user, title: name, metadata: {} };
      await memory.saveThread({ thread: { ...thread, createdAt: time, updatedAt: time } });
    }
    known.add(threadId);
  };
  const save = async (
    conversation: Conversation,
    messages: readonly Message[],
    timeOf: (index: number) => number,
  ) => {
    const threadId = keyOf(conversation);
    await ensureThread(conversation, threadId);
    await memory.saveMessages({
      messages: messages.map(({ id, role, content }, index) => ({
        id: id === undefined ? randomUUID() : idIn(threadId, id),
        threadId,
        resourceId: conversation.user,
        role,
        type: "v2",
        createdAt: new Date(timeOf(index)),
        content: { format: 2, parts: [{ type: "text", text: content }] },
      })),
    });
  };
  return {
    durability,
    async fill(fillings) {
      const queue = fillings[Symbol.iterator]();
      const work = async () => {
        for (let next = queue.next(); !next.done; next = queue.next()) {
          const [conversation, messages] = next.value;
          const begin = Date.now() - messages.length;
          for (let first = 0; first < messages.length; first += savedAtOnce) {
            const batch = messages.slice(first, first + savedAtOnce);
            await save(conversation, batch, (index) => begin + first + index);
          }
        }
      };
      await Promise.all(Array.from({ length: filledAtOnce }, work));
    },
    append: (conversation, messages) => save(conversation, messages, now),
    async all(conversation) {
      const threadId = keyOf(conversation);
      const { messages } = await memory.listMessages({ threadId, perPage: false });
      return messages.map(toMessage);
    },
    async newest(conversation, count) {
      const { messages } = await memory.listMessages({
        threadId: keyOf(conversation),
        perPage: count,
        orderBy: { field: "createdAt", direction: "DESC" },
        includeTotal: false,
      });
      return messages.map(toMessage).reverse();
    },
    async page(conversation, { id }, count) {
      const threadId = keyOf(conversation);
      const include = [{ id: idIn(threadId, id), withPreviousMessages: count }];
      const { messages } = await memory.listMessages({ threadId, perPage: 0, include });
      return messages.slice(0, -1).map(toMessage); // the last one is the one before which they are
    },
    async list(user, count) {
      const { threads } = await memory.listThreads({
        filter: { resourceId: user },
        perPage: count,
        orderBy: { field: "updatedAt", direction: "DESC" },
      });
      return threads.map(({ title }) => title);
    },
    without,
    close: () => store.close(),
    ...rest,
  };
}

/** Milliseconds that never come twice. */
function clock(): () => number {
  let last = 0;
  return () => {
    last = Math.max(Date.now(), last + 1);
    return last;
  };
}

/** An id that no other thread has. */
function idIn(threadId: string, id: string): string {
  return `${threadId}/${id}`;
}

function toMessage({ id, role, content }: StoredMessage): Message {
  return { id, role, content: content.parts.map(({ text }) => text).join("") };
}

/** `LibSQLStore`. */
export function openLibSQL({ at, namespace }: Place): Promise<Contestant> {
  const { LibSQLStore } = requirePeer("@mastra/libsql") as { LibSQLStore: NewStore };
  return contestant(
    new LibSQLStore({ id: namespace, url: `file:${fileOf(at, namespace)}` }),
    {
      survives: "process",
      settings: "WAL, synchronous=NORMAL",
    },
    {
      without: [
        ...without,
        "atomic batches (50 messages, and the thread's time, are a transaction each)",
      ],
    },
  );
}

/** `PostgresStore`. */
export async function openPostgres({ at, namespace }: Place): Promise<Contestant> {
  const { PostgresStore } = requirePeer("@mastra/pg") as { PostgresStore: NewStore };
  return contestant(
    new PostgresStore({ id: namespace, connectionString: at, schemaName: namespace }),
    await durabilityOfPostgres(at),
    { without: [...without, "order where times are the same (by ids, which are random)"] },
  );
}

/**
 * `RedisStore`. The newest 20 are read by reading all, and a user's threads by a scan of all keys: it gets a database of
 * its own, so that it meets its own only.
 */
export async function openRedis({ at, namespace }: Place): Promise<Contestant> {
  const { RedisStore } = requirePeer("@mastra/redis") as { RedisStore: NewStore };
  const url = new URL(at);
  url.pathname = `/${databaseOf(namespace)}`;
  return contestant(
    new RedisStore({ id: namespace, connectionString: url.href }),
    await durabilityOfRedis(at),
    { cannot: { "bytes-message": "its keys have no prefix to weigh them by" } },
  );
}

/** One of Redis's other databases: the names of namespaces differ in length. */
function databaseOf(namespace: string): number {
  return 1 + (namespace.length % 15);
}

/** `MongoDBStore`. A batch is atomic on a replica set only. */
export async function openMongo({ at, namespace }: Place): Promise<Contestant> {
  const { MongoDBStore } = requirePeer("@mastra/mongodb") as { MongoDBStore: NewStore };
  return contestant(
    new MongoDBStore({ id: namespace, uri: at, dbName: namespace, options: { writeConcern } }),
    journaled,
    { cannot: { "bytes-message": "it is in a database of its own" } },
  );
}
