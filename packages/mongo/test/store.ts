import { inspect } from "node:util";
import { type Document, MongoClient } from "mongodb";
import { expect, onTestFinished } from "vitest";
import * as mongo from "../src/index.ts";

/** A store, closed after the test. */
export function openStore(options: mongo.MongoChatStoreOptions) {
  const store = mongo.mongoChatStore({ onWarning: () => {}, ...options });
  onTestFinished(() => store.close().catch(() => undefined));
  return store;
}

/** A client beside the store, closed after the test. */
export function beside(url: string): MongoClient {
  const client = new MongoClient(url);
  onTestFinished(() => client.close());
  return client;
}

/** What is stored, read outside the store. */
export async function stored(url: string, collection: string) {
  const db = beside(url).db("chatstore");
  const all = (name: string) => db.collection(`${collection}.${name}`).find().toArray();
  const [sessions, buckets] = await Promise.all([all("sessions"), all("buckets")]);
  return { sessions, buckets };
}

/** Buckets that are in no session's count: there may be no more of a session than its head says. */
export async function orphans(url: string, collection: string): Promise<Document[]> {
  const { sessions, buckets } = await stored(url, collection);
  const places = new Map(sessions.map((head) => [String(head._id), Number(head["sealed"])]));
  return buckets.filter(({ _id }) => {
    const { session } = _id as unknown as { session: string };
    const left = places.get(session) ?? 0;
    places.set(session, left - 1);
    return left <= 0;
  });
}

/** What a promise rejects with. A message must not be readable in it, nor a password. */
export async function refusal(promise: Promise<unknown>): Promise<mongo.BackendError> {
  const error = await promise.then(
    (value) => expect.fail(`it resolved: ${JSON.stringify(value)}`),
    (error: unknown) => error,
  );
  expect(inspect(error, { depth: null, showHidden: true })).not.toMatch(/hunter2|canary/);
  return error as mongo.BackendError;
}

export const key = mongo.sessionKey({ tenant: "acme", user: "alice", conversation: "support" });

export function say(content: string, id?: string) {
  return { role: "user", content, ...(id !== undefined && { id }) } as const;
}

/** Messages with the ids and texts `m0`, `m1`, … */
export function many(count: number, start = 0) {
  return Array.from({ length: count }, (_, index) => say(`m${start + index}`, `m${start + index}`));
}

export async function contents(store: mongo.ChatStore, session: string = key): Promise<unknown[]> {
  return (await store.getMessages(session)).map(({ content }) => content);
}
