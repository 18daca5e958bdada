/**
 * LangGraph's checkpoint savers. A conversation is a thread whose state holds the messages; an append is what a graph
 * does around a step: get the state, add to it, put all of it. The least of that: one checkpoint for each append, where a
 * graph puts one before and one after each node, and the writes between them. What they do without is in `without`, and
 * printed below the figures.
 */
import Database from "better-sqlite3";
import type pg from "pg";
import type { Contestant, Conversation, Durability, Message, Place } from "../contestant.js";
import { keyOf } from "../raw/encoding.js";
import { journaled, writeConcern } from "../raw/mongo.js";
import { durabilityOf as durabilityOfPostgres, openPool } from "../raw/postgres.js";
import { fileOf } from "../raw/sqlite.js";
import { fromChatMessage, toChatMessage } from "./langchain.js";
import { requirePeer } from "./packages.js";

type ChatMessage = ReturnType<typeof toChatMessage>;
type Version = number | string;

interface Checkpoint {
  readonly channel_values: { readonly messages?: readonly ChatMessage[] };
  readonly channel_versions: { readonly messages?: Version };
}

interface Config {
  readonly configurable: {
    readonly thread_id: string;
    readonly checkpoint_ns: string;
    readonly checkpoint_id?: string;
  };
}

interface Saver {
  getTuple(
    config: Config,
  ): Promise<{ readonly config: Config; readonly checkpoint: Checkpoint } | undefined>;
  put(
    config: Config,
    checkpoint: Checkpoint,
    metadata: object,
    newVersions: { readonly messages: Version },
  ): Promise<unknown>;
  getNextVersion(current: Version | undefined): Version;
}

const { emptyCheckpoint } = requirePeer("@langchain/langgraph-checkpoint") as {
  emptyCheckpoint(): Checkpoint;
};

const without = [
  "bounded reads and writes (each append reads all, and stores all once more)",
  "several writers (of two that append at once, the messages of one are lost)",
  "identity (a message that is stored again is there twice)",
];

function contestant(
  saver: Saver,
  { durability, close }: { readonly durability: Durability; close(): Promise<void> },
): Contestant {
  const configOf = (conversation: Conversation): Config => ({
    configurable: { thread_id: keyOf(conversation), checkpoint_ns: "" },
  });
  const append = async (conversation: Conversation, messages: readonly Message[]) => {
    const before = await saver.getTuple(configOf(conversation));
    const version = saver.getNextVersion(before?.checkpoint.channel_versions.messages);
    const state = before?.checkpoint.channel_values.messages ?? [];
    await saver.put(
      before?.config ?? configOf(conversation),
      {
        ...emptyCheckpoint(),
        channel_values: { messages: [...state, ...messages.map(toChatMessage)] },
        channel_versions: { messages: version },
      },
      { source: "loop", step: 0, parents: {} },
      { messages: version },
    );
  };
  const stateOf = async (conversation: Conversation) =>
    (await saver.getTuple(configOf(conversation)))?.checkpoint.channel_values.messages ?? [];
  return {
    durability,
    without,
    async fill(fillings) {
      for (const [conversation, messages] of fillings) await append(conversation, messages);
    },
    append,
    all: async (conversation) => (await stateOf(conversation)).map(fromChatMessage),
    newest: async (conversation, count) =>
      (await stateOf(conversation)).slice(-count).map(fromChatMessage),
    longest: { messages: 10_000, because: "each append reads and writes the whole state" },
    cannot: {
      "page-20": "reads the whole state, or nothing",
      "list-user": "does not know whose a thread is",
      "append-8-one": "of two that append at once, one is lost",
      "bytes-message":
        "grows with the square of the messages: each append stores all of them again",
    },
    close,
  };
}

/** `SqliteSaver`, on a database of the bench's own driver. It leaves `synchronous` as the driver has it. */
export async function openSqlite({ at, namespace }: Place): Promise<Contestant> {
  const { SqliteSaver } = requirePeer("@langchain/langgraph-checkpoint-sqlite") as {
    SqliteSaver: new (database: Database.Database) => Saver;
  };
  const database = new Database(fileOf(at, namespace));
  return contestant(new SqliteSaver(database), {
    durability: { survives: "process", settings: "WAL, synchronous=NORMAL" },
    close: async () => {
      database.close();
    },
  });
}

/** `PostgresSaver`. Set up by one process before others use it: of several that set up at once, most fail. */
export async function openPostgres({ at, namespace }: Place): Promise<Contestant> {
  const { PostgresSaver } = requirePeer("@langchain/langgraph-checkpoint-postgres") as {
    PostgresSaver: new (
      pool: pg.Pool,
      serde: undefined,
      options: { readonly schema: string },
    ) => Saver & { setup(): Promise<void> };
  };
  const pool = openPool({ connectionString: at });
  const saver = new PostgresSaver(pool, undefined, { schema: namespace });
  await saver.setup();
  return contestant(saver, {
    durability: await durabilityOfPostgres(at),
    close: () => pool.end(),
  });
}

/** `MongoDBSaver`: a document for each state, so that one of about 30,000 messages is too large. */
export async function openMongo({ at, namespace }: Place): Promise<Contestant> {
  const { MongoDBSaver } = requirePeer("@langchain/langgraph-checkpoint-mongodb") as {
    MongoDBSaver: new (options: object) => Saver & { setup(): Promise<unknown> };
  };
  const { MongoClient } = requirePeer("mongodb") as typeof import("mongodb");
  const client = new MongoClient(at, { writeConcern });
  await client.connect();
  const saver = new MongoDBSaver({
    client,
    dbName: "bench",
    checkpointCollectionName: `${namespace}.checkpoints`,
    checkpointWritesCollectionName: `${namespace}.writes`,
  });
  await saver.setup();
  return contestant(saver, { durability: journaled, close: () => client.close() });
}
