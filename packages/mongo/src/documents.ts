/** The documents of one store: how they are asked for and written, and what is read of a session at once. */
import { setMaxListeners } from "node:events";
import {
  ClosedError,
  type FailureOutcome,
  type Key,
  SchemaError,
  type SessionRecord,
} from "@chatstore/core";
import type { Collection, Document } from "mongodb";
import { Connection, isDuplicateKey } from "./connection.js";
import type { MongoChatStoreOptions } from "./options.js";
import type { Bucket, BucketId, Head, Message, Meta } from "./schema.js";
import * as schema from "./schema.js";

/** So many sessions are worked on at once. */
const sessionsAtOnce = 10;

/** Changes keep their place in the log on disk, and on a majority of the members, before they resolve. */
const durable = {
  readPreference: "primary",
  readConcern: { level: "majority" },
  writeConcern: { w: "majority", j: true },
  // Whatever an own client's are.
  promoteValues: true,
  promoteLongs: true,
  ignoreUndefined: false,
} as const;

interface Collections {
  readonly sessions: Collection<Head>;
  readonly buckets: Collection<Bucket>;
  readonly meta: Collection<Meta>;
}

/** A head as it was read. */
export type Found = Head & {
  readonly isLive: boolean;
  /** As far as asked for. */
  readonly messages: readonly Message[];
  /** Counted ones that were asked for, in order. */
  readonly buckets: readonly Bucket[];
};

/** The collections, through a connection that is open until {@link close}. */
export class Documents {
  readonly #connection: Connection;
  readonly #collections: Collections;
  #closed = false;

  /** @throws InvalidOptionsError for options that are wrong, missing, or contradict each other. */
  constructor(options: MongoChatStoreOptions, collection: string) {
    this.#connection = new Connection(options);
    const { db } = this.#connection;
    this.#collections = {
      sessions: db.collection<Head>(`${collection}.sessions`, durable),
      buckets: db.collection<Bucket>(`${collection}.buckets`, durable),
      meta: db.collection<Meta>(`${collection}.meta`, durable),
    };
  }

  /** The name of the collection of buckets. */
  get bucketsName(): string {
    return this.#collections.buckets.collectionName;
  }

  /** What the server says of itself. */
  async connect(signal: AbortSignal): Promise<Document> {
    if (this.#closed) throw new ClosedError();
    return this.#connection.connect(signal);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#connection.close();
  }

  /**
   * The head, with those of its messages that the expression gives, and those of its buckets that the stages find.
   *
   * The head is read before the buckets: one that is sealed between is one too many, which it does not count, and never one
   * too few.
   */
  async find(
    key: Pick<Key, "id">,
    { messages = [], buckets: stages }: schema.Wanted,
    signal: AbortSignal,
  ): Promise<Found | undefined> {
    const pipeline: Document[] = [
      { $match: { _id: key.id } },
      { $set: { isLive: schema.isLive, messages } },
    ];
    if (stages !== undefined) {
      const coll = this.bucketsName;
      pipeline.push({ $unionWith: { coll, pipeline: stages } });
    }
    const [first, ...rest] = await this.run(signal, ({ sessions }) =>
      sessions.aggregate<Document>(pipeline).toArray(),
    );
    // Without a head, the first may be a bucket that nobody counts.
    if (first?.["_id"] !== key.id) return undefined;
    const head = first as Omit<Found, "buckets">;
    const buckets = (rest as Bucket[])
      .filter(({ _id }) => schema.counts(head, _id))
      .sort((one, other) => one._id.number - other._id.number);
    return { ...head, buckets };
  }

  /** The names of a session's buckets, and then its head: all that were there before it was read. */
  async listBuckets(
    { id }: Pick<Key, "id">,
    outcome: FailureOutcome,
    signal: AbortSignal,
  ): Promise<{
    readonly ids: readonly BucketId[];
    readonly head: Pick<Head, "_id" | "generation" | "edit" | "sealed" | "runs"> | undefined;
  }> {
    const head = [
      { $match: { _id: id } },
      { $project: { generation: 1, edit: 1, sealed: 1, runs: 1 } },
    ];
    const found = await this.run(
      signal,
      ({ buckets, sessions }) =>
        buckets
          .aggregate<Document>([
            { $match: { _id: schema.bucketsOf(id) } },
            { $project: { _id: 1 } },
            { $unionWith: { coll: sessions.collectionName, pipeline: head } },
          ])
          .toArray(),
      outcome,
    );
    const last = found.at(-1);
    const hasHead = last?.["_id"] === id;
    return {
      ids: (hasHead ? found.slice(0, -1) : found).map(({ _id }) => _id as BucketId),
      head: hasHead ? (last as Head) : undefined,
    };
  }

  /** @throws SchemaError when somebody made a collection that mixes up keys, or forgets what it was told. */
  async refuseUnusable(signal: AbortSignal): Promise<void> {
    const names = Object.values(this.#collections as object).map(
      ({ collectionName }: Collection) => collectionName,
    );
    const found = await this.run(signal, (_, db) =>
      db.listCollections({ name: { $in: names } }, { nameOnly: false }).toArray(),
    );
    for (const { name, type, options = {} } of found) {
      const { collation, capped } = options;
      const flaw = collation
        ? `has a collation (${collation["locale"]}), under which different keys can be the same`
        : capped
          ? "is capped: it drops what is oldest"
          : type !== undefined && type !== "collection" && `is a ${type}`;
      if (flaw) {
        throw new SchemaError(
          `${name} ${flaw}. Let the store make its collections, or make it without that, and copy what it holds`,
        );
      }
    }
  }

  /** @param outcome Of the write that this belongs to, when it fails and the failure does not tell. */
  run<T>(
    signal: AbortSignal,
    operation: (collections: Collections, db: Connection["db"]) => Promise<T>,
    outcome: FailureOutcome = "not-applied",
  ): Promise<T> {
    if (this.#closed) throw new ClosedError();
    return this.#connection.run(signal, outcome, (db) => operation(this.#collections, db));
  }

  /**
   * @param operation Is given options for the driver, with which it stops waiting for a connection when the signal aborts: what
   *   is refused as not applied must not happen later. (Its types allow a signal only to reads.)
   */
  write<T>(
    signal: AbortSignal,
    operation: (collections: Collections, options: object) => Promise<T>,
    outcome: FailureOutcome = "unknown",
  ): Promise<T> {
    // Many sessions at once wait on one signal, and the driver adds listeners of its own: no leak.
    setMaxListeners(0, signal);
    return this.run(signal, (collections) => operation(collections, { signal }), outcome);
  }
}

export function ignoreDuplicate(error: unknown): undefined {
  if (!isDuplicateKey(error)) throw error;
}

/** Some at once, in order. */
export async function inTurns<T, R>(
  items: readonly T[],
  work: (item: T) => Promise<R>,
): Promise<R[]> {
  const results: R[] = [];
  for (let start = 0; start < items.length; start += sessionsAtOnce) {
    const some = items.slice(start, start + sessionsAtOnce);
    results.push(...(await Promise.all(some.map(work))));
  }
  return results;
}

export function toSession(head: Head): SessionRecord {
  return {
    key: head._id,
    version: head.version ?? "",
    messageCount: head.messageCount,
    createdAt: head.createdAt.getTime(),
    updatedAt: head.updatedAt.getTime(),
    expiresAt: head.expiresAt?.getTime() ?? null,
    title: head.title,
    state: head.state ?? {},
  };
}
