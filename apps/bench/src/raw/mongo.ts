/**
 * The least that could work on MongoDB: one update that upserts the session's document and takes places in the order, and
 * one insert of the messages, a document each.
 *
 * - Order: the places. Unique ids: the index on `_id`, which holds session and id.
 * - Only the insert waits for the journal: what was written before it is in the journal before it.
 * - A batch is not atomic here: MongoDB changes one document atomically, and a standalone server has no transactions. To be
 *   atomic it would have to do more. For the same reason a message can turn up before one that is ahead of it.
 * - Left out: that, digests, compare-and-set, expiry, state, title, giving up in time.
 */
import { randomUUID } from "node:crypto";
import { MongoClient, type MongoServerError } from "mongodb";
import type {
  Contestant,
  Conversation,
  Durability,
  Filling,
  Message,
  Place,
} from "../contestant.js";
import { decode, encode, keyOf } from "./encoding.js";

interface SessionDocument {
  readonly _id: string;
  readonly user: string;
  readonly name: string;
  readonly version: string;
  readonly count: number;
  readonly updated: Date;
}

interface MessageDocument {
  readonly _id: { readonly session: string; readonly id: string };
  readonly seq: number;
  readonly data: string;
  readonly created: Date;
}

/** The store's own. */
const durable = {
  readConcern: { level: "majority" },
  writeConcern: { w: "majority", j: true },
} as const;
/** For clients that do not ask for it themselves. */
export const { writeConcern } = durable;
export const journaled: Durability = { survives: "host", settings: 'w: "majority", j: true' };
const notYetInTheJournal = { writeConcern: { w: 1, j: false } } as const;

export async function open({ at, namespace }: Place): Promise<Contestant> {
  const client = new MongoClient(at);
  const db = client.db("bench");
  const sessions = db.collection<SessionDocument>(`${namespace}.sessions`, durable);
  const messages = db.collection<MessageDocument>(`${namespace}.messages`, durable);
  await sessions.createIndex({ user: 1 });
  await messages.createIndex({ "_id.session": 1, seq: 1 }, { unique: true });

  const write = async (conversation: Conversation, batch: readonly Message[]) => {
    const { user, name } = conversation;
    const session = keyOf(conversation);
    const updated = new Date();
    const take = () =>
      sessions.findOneAndUpdate(
        { _id: session },
        { $inc: { count: batch.length }, $set: { user, name, version: randomUUID(), updated } },
        { ...notYetInTheJournal, upsert: true, returnDocument: "after", projection: { count: 1 } },
      );
    // Of several that begin a session at once, all but one may find that it is there already.
    const row = await take().catch((error: MongoServerError) => {
      if (error.code !== 11_000) throw error;
      return take();
    });
    const first = (row?.count ?? 0) - batch.length;
    await messages.insertMany(
      batch.map((message, index) => ({
        _id: { session, id: message.id ?? randomUUID() },
        seq: first + index,
        data: encode(message),
        created: updated,
      })),
    );
  };
  const toMessages = (found: readonly MessageDocument[]) =>
    found.map(({ _id, data }) => decode({ id: _id.id, data }));
  return {
    durability: journaled,
    async fill(fillings: Iterable<Filling>) {
      for (const [conversation, batch] of fillings) await write(conversation, batch);
    },
    append: write,
    all: async (conversation) =>
      toMessages(
        await messages
          .find({ "_id.session": keyOf(conversation) })
          .sort({ seq: 1 })
          .toArray(),
      ),
    async newest(conversation, count) {
      const session = keyOf(conversation);
      const found = messages.find({ "_id.session": session }).sort({ seq: -1 }).limit(count);
      return toMessages((await found.toArray()).reverse());
    },
    async page(conversation, { id }, count) {
      const session = keyOf(conversation);
      const anchor = await messages.findOne({ _id: { session, id } }, { projection: { seq: 1 } });
      const found = messages
        .find({ "_id.session": session, seq: { $lt: anchor?.seq ?? 0 } })
        .sort({ seq: -1 })
        .limit(count);
      return toMessages((await found.toArray()).reverse());
    },
    async list(user, count) {
      const found = await sessions.find({ user }).sort({ updated: -1 }).limit(count).toArray();
      return found.map(({ name }) => name);
    },
    close: () => client.close(),
  };
}

/** Bytes on disk: MongoDB compresses. */
export async function bytes({ at, namespace }: Place): Promise<number> {
  const client = new MongoClient(at);
  const db = client.db("bench");
  let sum = 0;
  for (const { collectionName } of await db.collections()) {
    if (!collectionName.startsWith(`${namespace}.`)) continue;
    const { storageSize, totalIndexSize } = await db.command({ collStats: collectionName });
    sum += storageSize + totalIndexSize;
  }
  await client.close();
  return sum;
}

/** A checkpoint: sizes on disk are those of the last one. */
export async function settle(at: string): Promise<void> {
  const client = new MongoClient(at);
  await client.db("admin").command({ fsync: 1 });
  await client.close();
}
