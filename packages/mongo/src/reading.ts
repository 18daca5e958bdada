/** Which messages a range or an edit concerns, in the head and in the buckets that it counts. */
import { type Edit, type Key, type Outcome, patchChanges, type Range } from "@chatstore/core";
import type { Document, Filter } from "mongodb";
import { type Documents, type Found, toSession } from "./documents.js";
import type { Bucket, BucketId, Head, Message } from "./schema.js";
import * as schema from "./schema.js";

/** A read met buckets that its head does not count any more. */
export const moved = Symbol("moved");

/** The messages of a session, before they are cut. */
export interface Layout
  extends Pick<Head, "generation" | "runs" | "sealed" | "messages" | "messageCount"> {
  /** Counted buckets with other contents. */
  readonly revised: readonly (readonly [number: number, messages: readonly Message[]])[];
}

/** Where a message is: in the bucket of this number, or, at `sealed`, in the head. */
interface Place {
  readonly number: number;
  readonly index: number;
  readonly bucket?: Bucket;
}

/** Nothing but appending and sealing lies between them. */
export function isSameLayout(one: Head, other: Head): boolean {
  return one.generation === other.generation && one.edit === other.edit;
}

/** What a range needs of head and buckets: all of it, almost always. */
export function wantedFor(
  documents: Documents,
  key: Key,
  range: Range,
  most: number,
): schema.Wanted {
  if ("from" in range) {
    if (range.from === "start") return { messages: most === 0 ? [] : "$messages" };
    return { messages: schema.newest(most), buckets: schema.bucketsOfNewest(key.id, most) };
  }
  const [id, messages, step] =
    "before" in range
      ? ([range.before, schema.around(range.before), -1] as const)
      : ([range.after, "$messages", 1] as const);
  const { bucketsName } = documents;
  const beside = schema.withNeighbour(bucketsName, step);
  return { messages, buckets: [...schema.bucketsWith(key.id, [id]), ...beside] };
}

/** The messages of a range. */
export async function select(
  documents: Documents,
  head: Found,
  range: Range,
  most: number,
  signal: AbortSignal,
): Promise<readonly Message[] | "missing" | typeof moved> {
  if ("from" in range) {
    return range.from === "start"
      ? forward(documents, head, { number: 0, index: 0 }, most, signal)
      : backward(
          documents,
          head,
          { number: head.sealed, index: head.messages.length },
          most,
          signal,
        );
  }
  const id = "before" in range ? range.before : range.after;
  const place = await locate(documents, head, id, signal);
  if (place === "missing" || place === moved) return place;
  const { number, index } = place;
  return "before" in range
    ? backward(documents, head, place, most, signal)
    : forward(documents, head, { ...place, number, index: index + 1 }, most, signal);
}

async function locate(
  documents: Documents,
  head: Found,
  id: string,
  signal: AbortSignal,
): Promise<Place | "missing" | typeof moved> {
  const index = head.messages.findIndex((message) => message.id === id);
  if (index >= 0) return { number: head.sealed, index };
  for (const bucket of head.buckets) {
    const index = bucket.messages.findIndex((message) => message.id === id);
    if (index >= 0) return { number: bucket._id.number, index, bucket };
  }
  return head.sealed === 0 || (await isCurrent(documents, head, signal)) ? "missing" : moved;
}

/** Whether the head still counts the same buckets. */
async function isCurrent(documents: Documents, head: Found, signal: AbortSignal): Promise<boolean> {
  const now = await documents.find({ id: head._id }, {}, signal);
  return now !== undefined && isSameLayout(head, now);
}

async function forward(
  documents: Documents,
  head: Found,
  { number, index, bucket }: Place,
  most: number,
  signal: AbortSignal,
): Promise<readonly Message[] | typeof moved> {
  if (number === head.sealed) return head.messages.slice(index, index + most);
  const found = bucket === undefined ? [] : bucket.messages.slice(index);
  const from = bucket === undefined ? number : number + 1;
  const rest = await countedBuckets(
    documents,
    head,
    from,
    head.sealed,
    1,
    most - found.length,
    signal,
  );
  if (rest === moved) return moved;
  return [...found, ...rest.flatMap(({ messages }) => messages), ...head.messages].slice(0, most);
}

async function backward(
  documents: Documents,
  head: Found,
  { number, index, bucket }: Place,
  most: number,
  signal: AbortSignal,
): Promise<readonly Message[] | typeof moved> {
  const found = (number === head.sealed ? head : (bucket as Bucket)).messages.slice(0, index);
  const rest = await countedBuckets(documents, head, 0, number, -1, most - found.length, signal);
  if (rest === moved) return moved;
  const all = [...rest.reverse().flatMap(({ messages }) => messages), ...found];
  return all.slice(Math.max(all.length - most, 0));
}

/**
 * Counted buckets from `from` up to `end`, from either side, until they hold `most` messages; of each, at most so many on
 * that side.
 */
async function countedBuckets(
  documents: Documents,
  head: Found,
  from: number,
  end: number,
  direction: 1 | -1,
  most: number,
  signal: AbortSignal,
): Promise<Bucket[] | typeof moved> {
  const found: Bucket[] = [];
  let count = 0;
  const isEnough = () => found.length >= end - from || count >= most;
  const next = () => (direction === 1 ? from + found.length : end - 1 - found.length);
  const take = (bucket: Bucket) => {
    found.push(bucket);
    count += bucket.messages.length;
  };
  // What came with the head.
  while (!isEnough()) {
    const known = head.buckets.find(({ _id }) => _id.number === next());
    if (known === undefined) break;
    take(known);
  }
  const { _id: session, generation } = head;
  let range: Document = {
    $gte: { session, generation, number: direction === 1 ? next() : from },
    $lt: { session, generation, number: direction === 1 ? end : next() + 1 },
  };
  while (!isEnough()) {
    const left = most - count;
    // No limit is 0.
    const limit = most === Infinity ? 0 : Math.ceil(left / schema.bucketMessages) + 1;
    const slice = { messages: { $slice: direction * left } };
    const page = await documents.run(signal, ({ buckets }) =>
      buckets
        .find({ _id: range } as Filter<Bucket>, left < 2 ** 31 ? { projection: slice } : {})
        .sort({ _id: direction })
        .limit(limit)
        .toArray(),
    );
    for (const bucket of page) {
      if (!schema.counts(head, bucket._id)) continue;
      if (bucket._id.number !== next()) return moved;
      take(bucket);
    }
    const last = page.at(-1);
    if (last === undefined || page.length < limit || limit === 0) break;
    range = { ...range, [direction === 1 ? "$gt" : "$lt"]: last._id };
    if (direction === 1) delete range["$gte"];
  }
  return isEnough() ? found : moved;
}

/** What an edit makes of a session. */
export async function layoutAfter(
  documents: Documents,
  head: Found,
  edit: Edit,
  signal: AbortSignal,
): Promise<Layout | Outcome | "unchanged" | "missing" | typeof moved> {
  const { generation, runs, sealed, messageCount } = head;
  if (edit.op === "replaceAfter") {
    const place = await locate(documents, head, edit.id, signal);
    if (place === "missing" || place === moved) return place;
    const { number, index, bucket } = place;
    const kept = (bucket ?? head).messages.slice(0, index + 1);
    const before = head.buckets.filter(({ _id }) => _id.number < number);
    const keptIds = new Set(
      [...before.flatMap((one) => one.messages), ...kept].map(({ id }) => id),
    );
    const ids = edit.records.map(({ id }) => id).filter((id) => keptIds.has(id));
    if (ids.length > 0) return { status: "duplicate", ids };
    const sizes = await countMessages(documents, head, number, signal);
    if (sizes === moved) return moved;
    const removed = sizes + head.messages.length - kept.length;
    const added = edit.records.map(schema.toMessage);
    if (removed + added.length === 0 && !patchChanges(toSession(head), edit.patch)) {
      return "unchanged";
    }
    return {
      generation,
      runs: runs.filter(({ from }) => from < number),
      sealed: number,
      messages: [...kept, ...added],
      messageCount: messageCount - removed + added.length,
      revised: [],
    };
  }
  const ids = new Set(edit.op === "remove" ? edit.ids : [edit.id]);
  const touched = [head, ...head.buckets].flatMap(({ messages }) =>
    messages.filter(({ id }) => ids.has(id)),
  );
  // An id that was not found may be in a bucket that another writer has just revised.
  if (touched.length < ids.size && sealed > 0 && !(await isCurrent(documents, head, signal))) {
    return moved;
  }
  if (edit.op === "update") {
    const [message] = touched;
    if (message === undefined) return "missing";
    if (message.digest === edit.digest) return "unchanged";
  } else if (touched.length === 0) return "unchanged";
  const change = (messages: readonly Message[]) =>
    edit.op === "remove"
      ? messages.filter(({ id }) => !ids.has(id))
      : messages.map((message) => (message.id === edit.id ? updated(message, edit) : message));
  const edited = {
    generation,
    messageCount: messageCount - (edit.op === "remove" ? touched.length : 0),
    messages: change(head.messages),
  };
  const revised = head.buckets.map(({ _id, messages }) => [_id.number, change(messages)] as const);
  const tooLarge = revised.find(
    ([, messages]) => schema.sizeOf(messages) > schema.largestBucketBytes,
  )?.[0];
  if (tooLarge === undefined) return { ...edited, runs, sealed, revised };
  // From this bucket on, all is cut anew.
  const rest = await countedBuckets(documents, head, tooLarge, sealed, 1, Infinity, signal);
  if (rest === moved) return moved;
  const messages = [...rest.flatMap((bucket) => change(bucket.messages)), ...edited.messages];
  return {
    ...edited,
    messages,
    runs: runs.filter(({ from }) => from < tooLarge),
    sealed: tooLarge,
    revised: revised.filter(([number]) => number < tooLarge),
  };
}

/** How many messages the buckets from `from` on hold. */
async function countMessages(
  documents: Documents,
  head: Found,
  from: number,
  signal: AbortSignal,
): Promise<number | typeof moved> {
  const { _id: session, generation, sealed } = head;
  if (from >= sealed) return 0;
  const found = await documents.run(signal, ({ buckets }) =>
    buckets
      .aggregate<{ _id: BucketId; size: number }>([
        {
          $match: {
            _id: {
              $gte: { session, generation, number: from },
              $lt: { session, generation, number: sealed },
            },
          },
        },
        { $project: { size: { $size: "$messages" } } },
      ])
      .toArray(),
  );
  const counted = found.filter(({ _id }) => schema.counts(head, _id));
  if (counted.length < sealed - from) return moved;
  return counted.reduce((sum, { size }) => sum + size, 0);
}

function updated(message: Message, edit: Edit & { readonly op: "update" }): Message {
  const createdAt = edit.createdAt === null ? message.createdAt : new Date(edit.createdAt);
  return { id: message.id, digest: edit.digest, data: edit.data, createdAt };
}
