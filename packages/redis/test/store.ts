import { inspect } from "node:util";
import { Redis } from "ioredis";
import { expect, onTestFinished } from "vitest";
import * as redis from "../src/index.ts";

/** A store, closed after the test. */
export function openStore(options: redis.RedisChatStoreOptions) {
  const store = redis.redisChatStore({ onWarning: () => {}, ...options });
  onTestFinished(() => store.close().catch(() => undefined));
  return store;
}

/** A client beside the store, closed after the test. */
export function beside(url: string): Redis {
  const client = new Redis(url);
  client.on("error", () => {});
  onTestFinished(() => client.disconnect());
  return client;
}

/** What a promise rejects with. A message must not be readable in it, nor a password. */
export async function refusal(promise: Promise<unknown>): Promise<redis.BackendError> {
  const error = await promise.then(
    (value) => expect.fail(`it resolved: ${JSON.stringify(value)}`),
    (error: unknown) => error,
  );
  expect(inspect(error, { depth: null, showHidden: true })).not.toMatch(/hunter2|canary/);
  return error as redis.BackendError;
}

/** Milliseconds that a promise takes to settle. */
export async function duration(promise: Promise<unknown>): Promise<number> {
  const start = performance.now();
  await promise.catch(() => undefined);
  return performance.now() - start;
}

export const key = redis.sessionKey({ tenant: "acme", user: "alice", conversation: "support" });

export function say(content: string, id?: string) {
  return { role: "user", content, ...(id !== undefined && { id }) } as const;
}

export async function contents(store: redis.ChatStore, session: string = key): Promise<unknown[]> {
  return (await store.getMessages(session)).map(({ content }) => content);
}

/** Repeat something as long as something else takes. */
export async function meanwhile(
  step: (round: number) => Promise<unknown>,
  body: () => Promise<unknown>,
): Promise<void> {
  let isDone = false;
  const repeating = (async () => {
    for (let round = 0; !isDone; round++) await step(round);
  })();
  try {
    await body();
  } finally {
    isDone = true;
    await repeating;
  }
}
