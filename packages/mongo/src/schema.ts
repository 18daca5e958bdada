/**
 * The stored format: collections, documents, indexes, what finds them, and every update that changes them.
 *
 * MongoDB changes one document atomically, so one document per session, its *head*, is the only authority. It holds the
 * session and its newest messages; older ones are in *buckets*, which are inserted and deleted but never changed. A bucket
 * that no head counts does not exist.
 *
 * - Sealing moves the oldest messages of a full head into buckets: insert them, then change the head on condition that its
 *   `generation`, `edit` and `sealed` are as they were read. Every writer cuts a head at the same places and names the
 *   buckets alike, so it does not matter who inserted one, nor who died in between.
 * - Replacing and editing insert buckets of names that nobody else can make, then change the head on the same condition
 *   and that of the version, and give it a new `edit`.
 * - What no head counts is removed by `tidy` in `tidying.ts`: it lists buckets, then gives the head a new `edit`, so that no
 *   write that is under way can count one of them any more, and then deletes.
 *
 * All strings of messages, titles and keys go into updates as `$literal`: in a pipeline a text that begins with `$` would
 * be evaluated.
 */
import {
  InvalidOptionsError,
  type Key,
  type MessageRecord,
  type Patch,
  type SessionRecord,
  type Version,
  type Write,
} from "@chatstore/core";
import type { Document, IndexDescription } from "mongodb";

/** The version of the format that this code writes; the oldest whose code may use it. */
export const currentVersion = 1;
export const compatibleVersion = 1;

/** `<collection>.meta`: one document. */
export interface Meta {
  readonly _id: "schema";
  readonly version: number;
  /** The oldest version of the format whose code may use these collections. */
  readonly compatible: number;
}

/** A stored message. */
export interface Message {
  readonly id: string;
  /** Of the content, for idempotence. */
  readonly digest: string;
  /** `{"v":1,"role":"user","content":"hi",...}` */
  readonly data: string;
  readonly createdAt: Date;
}

/** `<collection>.sessions`: a head. */
export interface Head {
  /** The session's key: `t:acme/u:alice/c:support`. */
  readonly _id: string;
  /** Empty: the key has none. */
  readonly tenant: string;
  /** Empty: a raw key. */
  readonly user: string;
  readonly conversation: string;
  /** Replaced by every change. `null`: the session does not exist yet, somebody is writing its buckets. */
  readonly version: Version | null;
  /** Of all messages, those in buckets included. */
  readonly messageCount: number;
  readonly createdAt: Date;
  readonly updatedAt: Date;
  /** Absent: never. */
  readonly expiresAt?: Date;
  readonly title: string | null;
  /** Encoded JSON documents by entry name. */
  readonly state: Readonly<Record<string, string>>;
  /** Replaced when all messages are. */
  readonly generation: string;
  /** Replaced by every change of messages but appending. */
  readonly edit: string;
  /** How many buckets count: those with the numbers 0 to `sealed - 1`. */
  readonly sealed: number;
  /** Which `edit` the counted buckets have: each run from its number up to the next run's. */
  readonly runs: readonly Run[];
  /** The newest messages. */
  readonly messages: readonly Message[];
  /** Bytes of `messages`. */
  readonly bytes: number;
}

export interface Run {
  readonly from: number;
  readonly edit: string;
}

/** The name of a bucket. The order of its fields is that of its sorting. */
export interface BucketId {
  readonly session: string;
  readonly generation: string;
  readonly number: number;
  readonly edit: string;
}

/** `<collection>.buckets` */
export interface Bucket {
  readonly _id: BucketId;
  readonly messages: readonly Message[];
}

/** Listing needs these, and the sweep. */
export const headIndexes: readonly IndexDescription[] = [
  { name: "by_user", key: { tenant: 1, user: 1, updatedAt: -1, _id: 1 } },
  { name: "by_tenant", key: { tenant: 1, _id: 1 } },
  { name: "by_expiry", key: { expiresAt: 1 }, sparse: true },
];

/** Looking for ids needs this. */
export const bucketIndexes: readonly IndexDescription[] = [
  { name: "by_message", key: { "_id.session": 1, "messages.id": 1 } },
];

/** A bucket is complete when it holds so many messages or bytes; the last message may exceed the bytes. */
export const bucketMessages = 32;
const bucketBytes = 64 * 1024;
/** Sealing leaves so many messages in the head, if their bytes allow: the newest are read from there. */
const keptMessages = 32;
/**
 * Whoever appends and leaves a head as full as this seals it. A standalone server writes the whole head to its journal for
 * each append: the smaller, the better.
 */
const fullMessages = bucketMessages + keptMessages;
const fullBytes = 128 * 1024;
/** A head that was not sealed in time takes no more than this. A batch may exceed it, once: it fits into 16 MB all the same. */
const mostMessages = 128;
const mostBytes = 1024 * 1024;
/** Larger than this, no bucket is written: MongoDB takes 16 MB. */
export const largestBucketBytes = 12 * 1024 * 1024;

/** Bytes of a message's fields beside its text. */
const messageOverhead = 96;

export function sizeOf(messages: readonly Message[]): number {
  return messages.reduce((sum, message) => sum + size(message), 0);
}

function size({ id, data }: Message): number {
  return Buffer.byteLength(data) + Buffer.byteLength(id) + messageOverhead;
}

/**
 * Cut the messages of a head: complete buckets, and what stays in the head. A cut depends on nothing but the messages
 * before it, so that writers who know more or fewer messages cut alike.
 */
export function cut(messages: readonly Message[]): {
  readonly buckets: readonly (readonly Message[])[];
  readonly rest: readonly Message[];
} {
  const buckets: (readonly Message[])[] = [];
  let start = 0;
  let bytesLeft = sizeOf(messages);
  while (isFull(messages.length - start, bytesLeft)) {
    let end = start;
    for (let bytes = 0; end - start < bucketMessages && bytes < bucketBytes; end++) {
      bytes += size(messages[end] as Message);
    }
    const bucket = messages.slice(start, end);
    buckets.push(bucket);
    bytesLeft -= sizeOf(bucket);
    start = end;
  }
  return { buckets, rest: messages.slice(start) };
}

/** Whether a head of so many messages and bytes is to be sealed. */
export function isFull(length: number, bytes: number): boolean {
  return length >= fullMessages || bytes >= fullBytes;
}

/** The `edit` of a counted bucket. */
function editOf({ runs }: Pick<Head, "runs">, number: number): string | undefined {
  return runs.findLast(({ from }) => from <= number)?.edit;
}

/** Whether the head counts the bucket. */
export function counts(
  head: Pick<Head, "_id" | "generation" | "sealed" | "runs">,
  { session, generation, number, edit }: BucketId,
): boolean {
  return (
    session === head._id &&
    generation === head.generation &&
    number < head.sealed &&
    edit === editOf(head, number)
  );
}

/** The runs of a head when its buckets from `from` up to `end` have another edit. */
export function withRun(
  { runs, sealed }: Pick<Head, "runs" | "sealed">,
  from: number,
  end: number,
  edit: string,
): Run[] {
  const after = end < sealed ? editOf({ runs }, end) : undefined;
  const all = [
    ...runs.filter((run) => run.from < from),
    { from, edit },
    ...(after === undefined ? [] : [{ from: end, edit: after }]),
    ...runs.filter((run) => run.from > end),
  ];
  return all.filter((run, index) => run.edit !== all[index - 1]?.edit);
}

/** In an update pipeline: a value as it is. */
const literal = (value: unknown) => ({ $literal: value });

/** The session has not expired. */
export const isLive = {
  $or: [{ $eq: [{ $type: "$expiresAt" }, "missing"] }, { $gt: ["$expiresAt", "$$NOW"] }],
};
export const isExpired = { $not: [isLive] };
/** The head takes another batch. */
export const hasRoom = {
  $and: [{ $lt: [{ $size: "$messages" }, mostMessages] }, { $lt: ["$bytes", mostBytes] }],
};

/** What is read of a session beside its head's other fields. */
export interface Wanted {
  /** An expression that gives the head's messages. Default: none of them. */
  readonly messages?: unknown;
  /** Stages on the collection of buckets, which give buckets. */
  readonly buckets?: Document[] | undefined;
}

/** The newest messages of a document. */
export function newest(count: number): unknown {
  if (count === 0) return [];
  return count >= 2 ** 31 ? "$messages" : { $slice: ["$messages", -count] };
}

/** The messages of a document if one of them has the id, otherwise none. */
export function around(id: string): unknown {
  return { $cond: [{ $in: [literal(id), "$messages.id"] }, "$messages", []] };
}

/** Stages that find the buckets of a session with any of the ids. */
export function bucketsWith(session: string, ids: readonly string[]): Document[] {
  return [{ $match: { "_id.session": session, "messages.id": { $in: ids } } }];
}

/** Id and digest of the stored ones of some ids. */
export function digestsOf(session: string, ids: readonly string[]): Wanted {
  const input = { $filter: { input: "$messages", cond: { $in: ["$$this.id", literal(ids)] } } };
  const messages = { $map: { input, in: { id: "$$this.id", digest: "$$this.digest" } } };
  return { messages, buckets: [...bucketsWith(session, ids), { $project: { messages } }] };
}

/** Stages that find the newest buckets that the newest messages take beside what a head keeps, if any. */
export function bucketsOfNewest(session: string, count: number): Document[] | undefined {
  if (count <= keptMessages || count === Infinity) return undefined;
  return [
    { $match: { _id: bucketsOf(session) } },
    { $sort: { _id: -1 } },
    { $limit: Math.ceil((count - keptMessages) / bucketMessages) },
  ];
}

/** The range of the names of a session's buckets. */
export function bucketsOf(session: string) {
  return { $gte: { session, generation: "" }, $lt: { session, generation: "\uffff" } };
}

/** Stages that add to each bucket the next (1) or the previous (-1), if it has the same `edit`, as almost all have. */
export function withNeighbour(collection: string, step: 1 | -1): Document[] {
  const neighbour = { $mergeObjects: ["$_id", { number: { $add: ["$_id.number", step] } }] };
  return [
    { $set: { neighbour } },
    { $lookup: { from: collection, localField: "neighbour", foreignField: "_id", as: "others" } },
    // One document each: together they may be too large for one.
    {
      $project: {
        _id: 0,
        all: { $concatArrays: [[{ _id: "$_id", messages: "$messages" }], "$others"] },
      },
    },
    { $unwind: "$all" },
    { $replaceRoot: { newRoot: "$all" } },
  ];
}

export type Times = Pick<SessionRecord, "createdAt" | "updatedAt" | "expiresAt">;
/** What a pipeline sets in a head. */
export type Fields = Readonly<Record<string, unknown>>;

/** Messages at the end of a head, whatever is there. */
export function appended(messages: readonly Message[]): Fields {
  return {
    messages: { $concatArrays: ["$messages", literal(messages)] },
    messageCount: { $add: ["$messageCount", messages.length] },
    bytes: { $add: ["$bytes", sizeOf(messages)] },
  };
}

/** Buckets take the first messages of a head. */
export function sealed(
  head: Pick<Head, "edit" | "sealed" | "runs">,
  buckets: readonly (readonly Message[])[],
): Fields {
  const end = head.sealed + buckets.length;
  const moved = buckets.flat();
  return {
    messages: { $slice: ["$messages", moved.length, 2 ** 31 - 1] },
    bytes: { $subtract: ["$bytes", sizeOf(moved)] },
    sealed: end,
    runs: literal(withRun(head, head.sealed, end, head.edit)),
  };
}

/** Another list of messages. */
export function contents(
  of: Pick<Head, "messages" | "messageCount" | "generation" | "edit" | "sealed" | "runs">,
): Fields {
  const { messages, messageCount, generation, edit, runs } = of;
  return {
    messages: literal(messages),
    bytes: sizeOf(messages),
    messageCount,
    generation,
    edit,
    sealed: of.sealed,
    runs: literal(runs),
  };
}

/** A session that begins, in place of nothing or of an expired one. */
export function begun(key: Key): Fields {
  return {
    tenant: literal(key.tenant),
    user: literal(key.user),
    conversation: literal(key.conversation),
    createdAt: "$$NOW",
    updatedAt: "$$NOW",
    expiresAt: "$$REMOVE",
    title: null,
    state: literal({}),
  };
}

/** A head that nobody sees: the sweep removes it, and every condition of a write can be put on it. */
export function reserved(key: Key, generation: string, edit: string): Document[] {
  const empty = { messages: [], messageCount: 0, sealed: 0, runs: [], generation, edit };
  return [
    {
      $set: {
        ...begun(key),
        ...contents(empty),
        version: null,
        expiresAt: new Date(0),
      },
    },
  ];
}

/** A change, as a pipeline. Later fields win over earlier ones. */
export function change(
  fields: Fields,
  write: Write & { readonly times?: Times },
  patch: Patch = {},
): Document[] {
  const entries = Object.entries(patch.state ?? {}).map(([name, data]) => [
    `state.${name}`,
    data === null ? "$$REMOVE" : literal(data),
  ]);
  return [
    {
      $set: {
        ...fields,
        version: literal(write.next),
        updatedAt: "$$NOW",
        ...(write.ttlMs !== undefined && { expiresAt: { $add: ["$$NOW", write.ttlMs] } }),
        ...(write.times && imported(write.times)),
      },
    },
    {
      $set: {
        ...(patch.title !== undefined && { title: literal(patch.title) }),
        ...Object.fromEntries(entries),
      },
    },
  ].filter(({ $set }) => Object.keys($set).length > 0);
}

function imported({ createdAt, updatedAt, expiresAt }: Times): Fields {
  return {
    createdAt: new Date(createdAt),
    updatedAt: new Date(updatedAt),
    expiresAt: expiresAt === null ? "$$REMOVE" : new Date(expiresAt),
  };
}

export function toMessage({ id, digest, data, createdAt }: MessageRecord): Message {
  return { id, digest, data, createdAt: new Date(createdAt) };
}

export function toRecord({ id, digest, data, createdAt }: Message): MessageRecord {
  return { id, digest, data, createdAt: createdAt.getTime() };
}

/**
 * The script that creates the collections and indexes: for somebody with the rights, to be run with `mongosh` when the
 * store itself may not (`migrate: "check"`). It may be run any number of times.
 *
 * @param options `collection` as the store has it.
 */
export function mongoSchema(options: { readonly collection?: string | undefined } = {}): string {
  const { collection } = checkNames(options);
  const creation = ([name, indexes]: readonly [string, readonly IndexDescription[]]) =>
    indexes.map(
      ({ key, ...rest }) =>
        `db.getCollection(${JSON.stringify(`${collection}.${name}`)})` +
        `.createIndex(${JSON.stringify(key)}, ${JSON.stringify(rest)});\n`,
    );
  const stamp =
    `db.getCollection(${JSON.stringify(`${collection}.meta`)}).updateOne({ _id: "schema" }, ` +
    `{ $max: { version: ${currentVersion}, compatible: ${compatibleVersion} } }, { upsert: true });\n`;
  const indexes = [["sessions", headIndexes] as const, ["buckets", bucketIndexes] as const];
  return [...indexes.flatMap(creation), stamp].join("");
}

/** @throws InvalidOptionsError for what MongoDB cannot hold in a name. */
export function checkNames(options: {
  readonly collection?: string | undefined;
  readonly database?: string | undefined;
}): { readonly collection: string; readonly database: string | undefined } {
  const { collection = "chatstore", database } = options;
  if (
    typeof collection !== "string" ||
    !/^[^$\0]+$/.test(collection) ||
    /^system\.|^\.|\.$|\.\./.test(collection) ||
    !collection.isWellFormed() ||
    Buffer.byteLength(collection) > 100
  ) {
    throw new InvalidOptionsError(
      `collection is ${JSON.stringify(collection)}; it must be a text of 1 to 100 bytes without "$" and NUL, ` +
        'not begin with "system.", and have no empty part between dots: it begins the names of collections',
    );
  }
  if (database !== undefined && !/^[^/\\. "$*<>:|?\0]{1,63}$/.test(database)) {
    throw new InvalidOptionsError(
      `database is ${JSON.stringify(database)}, which MongoDB does not take as a name`,
    );
  }
  return { collection, database };
}
