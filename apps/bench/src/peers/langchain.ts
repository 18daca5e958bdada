/**
 * LangChain's chat message histories, as their documentation has them: one client, or pool, for all, and a history object
 * for each conversation, kept. What they do without is in `without`, and printed below the figures.
 */
import { randomUUID } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { Redis } from "ioredis";
import type { Contestant, Conversation, Filling, Message, Place } from "../contestant.js";
import { keyOf } from "../raw/encoding.js";
import { journaled, writeConcern } from "../raw/mongo.js";
import { durabilityOf as durabilityOfPostgres, openPool } from "../raw/postgres.js";
import { durabilityOf as durabilityOfRedis } from "../raw/redis.js";
import { requirePeer } from "./packages.js";

interface ChatMessage {
  readonly id?: string;
  readonly content: unknown;
  getType(): string;
}

type NewChatMessage = new (fields: {
  readonly id: string;
  readonly content: string;
}) => ChatMessage;

interface History {
  addMessages(messages: readonly ChatMessage[]): Promise<void>;
  getMessages(): Promise<readonly ChatMessage[]>;
}

type NewHistory = new (options: object) => History;

interface StoredMessage {
  readonly type: string;
  readonly data: object;
}

interface MessagesModule {
  readonly HumanMessage: NewChatMessage;
  readonly AIMessage: NewChatMessage;
  mapChatMessagesToStoredMessages(messages: readonly ChatMessage[]): readonly StoredMessage[];
}

const { HumanMessage, AIMessage, mapChatMessagesToStoredMessages } = requirePeer(
  "@langchain/core/messages",
) as MessagesModule;

export function toChatMessage({ id = randomUUID(), role, content }: Message): ChatMessage {
  return new (role === "user" ? HumanMessage : AIMessage)({ id, content });
}

export function fromChatMessage(message: ChatMessage): Message {
  const { id, content } = message;
  const role = message.getType() === "human" ? "user" : "assistant";
  return { ...(id !== undefined && { id }), role, content: content as string };
}

/** As all histories keep them. */
function toStored(messages: readonly Message[]): readonly StoredMessage[] {
  return mapChatMessagesToStoredMessages(messages.map(toChatMessage));
}

const without = [
  "bounded reads (the newest 20 are cut from all)",
  "atomic batches (one write for each message; two writers mix theirs)",
  "identity (a message that is stored again is there twice)",
];

const cannot = {
  "page-20": "reads the whole history, or nothing",
  "list-user": "does not know whose a session is",
};

/** A contestant on a history object for each conversation. */
function contestant(
  open: (conversation: Conversation) => History,
  rest: Pick<Contestant, "durability" | "fill" | "close"> & Partial<Contestant>,
): Contestant {
  const historyOf = remembered(open);
  const all = async (conversation: Conversation) =>
    (await historyOf(conversation).getMessages()).map(fromChatMessage);
  return {
    append: (conversation, messages) =>
      historyOf(conversation).addMessages(messages.map(toChatMessage)),
    all,
    newest: async (conversation, count) => (await all(conversation)).slice(-count),
    without,
    cannot,
    ...rest,
  };
}

/** The history object of each conversation. */
function remembered(open: (conversation: Conversation) => History) {
  const histories = new Map<string, History>();
  return (conversation: Conversation): History => {
    const key = keyOf(conversation);
    const history = histories.get(key) ?? open(conversation);
    histories.set(key, history);
    return history;
  };
}

/** Messages that are on their way at once, when one connection keeps their order. */
const sentAtOnce = 1_000;

async function fillInOrder(
  historyOf: (conversation: Conversation) => History,
  fillings: Iterable<Filling>,
) {
  for (const [conversation, messages] of fillings) {
    const history = historyOf(conversation);
    for (let first = 0; first < messages.length; first += sentAtOnce) {
      const sent = messages.slice(first, first + sentAtOnce).map(toChatMessage);
      await Promise.all(sent.map((message) => history.addMessages([message])));
    }
  }
}

/** `@langchain/community`, by ioredis. Without a `sessionTTL`, as by default, nothing expires. */
export async function openIoredis({ at, namespace }: Place): Promise<Contestant> {
  const { RedisChatMessageHistory } = requirePeer(
    "@langchain/community/stores/message/ioredis",
  ) as { RedisChatMessageHistory: NewHistory };
  const client = new Redis(at);
  return onRedis(RedisChatMessageHistory, client, { at, namespace });
}

/**
 * `@langchain/redis`, by node-redis. Connected before it is used: two that use a client first at the same time both
 * connect it, and one of them fails.
 */
export async function openNodeRedis({ at, namespace }: Place): Promise<Contestant> {
  const { RedisChatMessageHistory } = requirePeer("@langchain/redis") as {
    RedisChatMessageHistory: NewHistory;
  };
  const { createClient } = requirePeer("redis") as {
    createClient(options: { readonly url: string }): {
      connect(): Promise<unknown>;
      quit(): Promise<unknown>;
    };
  };
  const client = createClient({ url: at });
  await client.connect();
  return onRedis(RedisChatMessageHistory, client, { at, namespace });
}

async function onRedis(
  History: NewHistory,
  client: { quit(): Promise<unknown> },
  { at, namespace }: Place,
): Promise<Contestant> {
  const open = (conversation: Conversation) =>
    new History({ client, sessionId: `${namespace}:${keyOf(conversation)}` });
  return contestant(open, {
    durability: await durabilityOfRedis(at),
    fill: (fillings) => fillInOrder(open, fillings),
    close: async () => {
      await client.quit();
    },
  });
}

/** `@langchain/community`. Its table has an index on its serial numbers only: a read looks at the rows of all sessions. */
export async function openPostgres({ at, namespace }: Place): Promise<Contestant> {
  const { PostgresChatMessageHistory } = requirePeer(
    "@langchain/community/stores/message/postgres",
  ) as { PostgresChatMessageHistory: NewHistory };
  const pool = openPool({ connectionString: at });
  await pool.query(`CREATE SCHEMA IF NOT EXISTS ${namespace}`);
  const tableName = `${namespace}.langchain_chat_histories`;
  const open = (conversation: Conversation) =>
    new PostgresChatMessageHistory({ pool, tableName, sessionId: keyOf(conversation) });
  return contestant(open, {
    durability: await durabilityOfPostgres(at),
    without: [...without, "texts with NUL or half a surrogate pair (refused)"],
    // The rows that it would write one by one.
    async fill(fillings) {
      for (const [conversation, messages] of fillings) {
        await open(conversation).getMessages(); // creates the table
        const rows = toStored(messages).map(({ type, data }) => JSON.stringify({ ...data, type }));
        await pool.query(
          `INSERT INTO ${tableName} (session_id, message)
            SELECT $1, message FROM unnest($2::jsonb[]) WITH ORDINALITY AS m (message, place) ORDER BY place`,
          [keyOf(conversation), rows],
        );
      }
    },
    close: () => pool.end(),
  });
}

/**
 * `@langchain/community`, "for demo and development purposes only": one JSON file of all sessions, rewritten in place for
 * each message, and read once, into a variable of the module.
 *
 * The module is loaded anew for each place, since whoever gives it another path still gets the sessions of the first.
 */
export async function openFile({ at, namespace }: Place): Promise<Contestant> {
  const filePath = join(at, namespace, "history.json");
  mkdirSync(dirname(filePath), { recursive: true });
  const load = () => {
    const specifier = "@langchain/community/stores/message/file_system";
    delete requirePeer.cache[requirePeer.resolve(specifier)];
    const { FileSystemChatMessageHistory } = requirePeer(specifier) as {
      FileSystemChatMessageHistory: NewHistory;
    };
    return remembered(
      ({ user, name }) =>
        new FileSystemChatMessageHistory({ filePath, userId: user, sessionId: name }),
    );
  };
  let historyOf = load();
  return contestant((conversation) => historyOf(conversation), {
    durability: { survives: "process", settings: "rewrites a file in place, without a sync" },
    // By its own hand it would rewrite the file for each message.
    async fill(fillings) {
      const users = existsSync(filePath) ? JSON.parse(readFileSync(filePath, "utf8")) : {};
      for (const [{ user, name }, messages] of fillings) {
        users[user] ??= {};
        users[user][name] = { messages: toStored(messages) };
      }
      writeFileSync(filePath, JSON.stringify(users));
      historyOf = load();
    },
    without: [
      ...without,
      "other processes (it reads its copy in memory, and writes that over their sessions)",
      "several writers (of 50 messages added to one session at once, 1 was left)",
    ],
    longest: { messages: 10_000, because: "each append rewrites all sessions" },
    cannot: {
      ...cannot,
      "list-user": "lists in no order, by reading everything",
      "append-8-one": "a process writes over what others wrote",
      "append-8-own": "a process writes over what others wrote",
    },
    close: async () => {},
  });
}

/** `@langchain/mongodb`: a document for each session, without an index, that holds all its messages. */
export async function openMongo({ at, namespace }: Place): Promise<Contestant> {
  const { MongoDBChatMessageHistory } = requirePeer("@langchain/mongodb") as {
    MongoDBChatMessageHistory: NewHistory;
  };
  const { MongoClient } = requirePeer("mongodb") as typeof import("mongodb");
  const client = new MongoClient(at, { writeConcern });
  const collection = client.db("bench").collection(`${namespace}.histories`);
  const sessionIdOf = (conversation: Conversation) => keyOf(conversation);
  return contestant(
    (conversation) =>
      new MongoDBChatMessageHistory({ collection, sessionId: sessionIdOf(conversation) }),
    {
      durability: journaled,
      async fill(fillings) {
        for (const [conversation, messages] of fillings) {
          // Its own statement, with more in it.
          await collection.updateOne(
            { sessionId: sessionIdOf(conversation) },
            { $push: { messages: { $each: toStored(messages) } } } as object,
            { upsert: true },
          );
        }
      },
      longest: { messages: 10_000, because: "a document has room for about 32,000" },
      close: () => client.close(),
    },
  );
}
