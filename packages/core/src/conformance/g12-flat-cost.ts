import { getEventListeners } from "node:events";
import type { ChatStore } from "../chat-store.js";
import { calls } from "./calls.js";
import { holds, same } from "./claims.js";
import { ids, say } from "./messages.js";
import { need, type Subject } from "./subject.js";
import { test } from "./tools.js";

const history = 2_500;
const idOf = (index: number) => `m${index}`;

/** What is counted here is trips and rows, not time. */
export function flatCost(subject: Subject): void {
  test(`the newest, and pages, of ${history} messages`, async () => {
    const store = subject.open(subject.namespace());
    const key = await longSession(subject, store);
    const slice = (start: number, end: number) =>
      Array.from({ length: end - start }, (_, index) => idOf(start + index));
    const reads: readonly [Parameters<ChatStore["getMessages"]>[1], string[]][] = [
      [{ last: 20 }, slice(history - 20, history)],
      [{ last: history + 5 }, slice(0, history)],
      [{ limit: 20 }, slice(0, 20)],
      [{ before: idOf(1_250), limit: 20 }, slice(1_230, 1_250)],
      [{ after: idOf(1_250), limit: 20 }, slice(1_251, 1_271)],
      [{ before: idOf(0), limit: 20 }, []],
      [{ after: idOf(history - 1), limit: 20 }, []],
      [{ before: idOf(5), limit: 20 }, slice(0, 5)],
      [{ after: idOf(history - 4), limit: 20 }, slice(history - 3, history)],
      [{ after: idOf(100) }, slice(101, history)],
      [{ before: idOf(2_400) }, slice(0, 2_400)],
    ];
    for (const [options, expected] of reads) {
      const { session, messages } = await store.readSession(key, options);
      same(ids(messages), expected, `The wrong messages for ${JSON.stringify(options)}`);
      same(session?.messageCount, history, "The count of a long session is wrong");
    }
  });

  test("an append is one round trip, whatever the length of the history", async (context) => {
    const roundTrips = need(context, subject.hooks.roundTrips, "roundTrips");
    const namespace = subject.namespace();
    const store = subject.open(namespace);
    const small = subject.key();
    await store.addMessages(small, [say("first", { id: idOf(0) })]);
    const long = await longSession(subject, store);
    const three = () => [say("x"), say("y"), say("z")];
    for (const key of [small, long]) {
      // The first use of a statement or script may have to tell it to the engine.
      await store.addMessages(key, three());
      await store.addMessages(key, [say("x", { id: "warm" })]);
      same(
        await roundTrips(namespace, () => store.addMessages(key, three())),
        1,
        "An append of messages without ids took more than one round trip",
      );
      const own = await roundTrips(namespace, () =>
        store.addMessages(key, [say("x", { id: "own" })]),
      );
      holds(own <= 2, `An append with an id of the caller's own took ${own} round trips`);
    }
    const [few = 0, many = 0] = await inTurn([small, long], async (key) => {
      let { version } = await store.addMessages(key, [say("x", { id: "end" }), say("y")]);
      ({ version } = await store.replaceMessagesAfter(key, "end", three(), { ifVersion: version }));
      return roundTrips(namespace, () =>
        store.replaceMessagesAfter(key, "end", three(), { ifVersion: version }),
      );
    });
    holds(
      many <= few,
      `Replacing the end took ${few} round trips on a short history, ${many} on a long one`,
    );
    for (const options of [{ last: 20 }, { after: idOf(0), limit: 20 }, { last: 0 }]) {
      const [few = 0, many = 0] = await inTurn([small, long], async (key) => {
        await store.getMessages(key, options);
        return roundTrips(namespace, () => store.getMessages(key, options));
      });
      holds(
        many <= few + 1,
        `${JSON.stringify(options)} took ${few} round trips on a short history, ${many} on a long one`,
      );
    }
  });

  test("an append, the newest and a page do not look at the whole history", async (context) => {
    const work = need(context, subject.hooks.work, "work");
    const namespace = subject.namespace();
    const store = subject.open(namespace);
    const key = await longSession(subject, store);
    await store.addMessages(key, [say("x", { id: "warm" })]);
    const whole = await work(namespace, () => store.getMessages(key));
    holds(whole >= history, `The work hook sees ${whole} units when ${history} messages are read`);
    const quick: Readonly<Record<string, () => Promise<unknown>>> = {
      "an append": () => store.addMessages(key, [say("x"), say("y")]),
      "an append with an id of the caller's own": () =>
        store.addMessages(key, [say("x", { id: "own" })]),
      "the newest 20": () => store.getMessages(key, { last: 20 }),
      "a page": () => store.getMessages(key, { before: idOf(2_000), limit: 20 }),
      "the session": () => store.getSession(key),
      "a title": () => store.setTitle(key, "Kittens"),
      "a new end": async () => store.replaceMessagesAfter(key, "own", [say("x")]),
    };
    for (const [name, call] of Object.entries(quick)) {
      const cost = await work(namespace, call);
      holds(
        cost * 4 <= whole,
        `${name} looks at ${cost} units, reading the whole history at ${whole}: it gets slower with every message`,
      );
    }
  });

  test("what an append costs does not grow with the history", async (context) => {
    const work = need(context, subject.hooks.work, "work");
    const namespace = subject.namespace();
    const store = subject.open(namespace);
    const [short, long] = [subject.key(), await longSession(subject, store)];
    await store.addMessages(short, [say("x", { id: "first" })]);
    const appends: Readonly<Record<string, (key: string, n: number) => Promise<unknown>>> = {
      "of one message": (key) => store.addMessages(key, [say("x")]),
      "of ten": (key) =>
        store.addMessages(
          key,
          Array.from({ length: 10 }, () => say("x")),
        ),
      "under an id of the caller's own": (key, n) =>
        store.addMessages(key, [say("x", { id: `own${n}` })]),
    };
    for (const [name, append] of Object.entries(appends)) {
      const [few = 0, many = 0] = await inTurn([short, long], async (key) => {
        await append(key, 0);
        // The least of several: engines tidy up now and then, at the cost of whoever comes by.
        const costs = await inTurn([1, 2, 3], (n) => work(namespace, () => append(key, n)));
        return Math.min(...costs);
      });
      holds(
        many <= few * 4 + 64 * 1024 * Number(few > 1_024) + 16,
        `An append ${name} costs ${few} units on a short history, and ${many} on a long one`,
      );
    }
  });

  test("calls leave nothing behind on the signals that later calls get", async () => {
    const rounds = 10;
    const store = subject.open(subject.namespace());
    const key = subject.key();
    await withListeners(async (listeners) => {
      for (const [name, call] of Object.entries(calls)) {
        const before = listeners();
        for (let round = 0; round < rounds; round++) {
          await call(store, key).catch(() => undefined);
        }
        const left = listeners() - before;
        holds(
          left < rounds,
          `${rounds} times ${name} left ${left} listeners behind: each call takes memory for ever`,
        );
      }
    });
  });

  test("calls that wait for each other leave nothing behind on their signals", async () => {
    const namespace = subject.namespace();
    const key = subject.key();
    const stores = Array.from({ length: 5 }, () => subject.open(namespace));
    await Promise.all(stores.map((store) => store.open()));
    await withListeners(async (listeners) => {
      const rounds = 12;
      for (let round = 0; round < rounds; round++) {
        // They meet at one session, and at whatever lock there is.
        await Promise.all(
          stores.flatMap((store) => [
            store.addMessages(key, [say("x")]),
            store.setTitle(subject.key(), "x"),
          ]),
        );
      }
      const left = listeners();
      holds(
        left < rounds,
        `${rounds} times five at once left ${left} listeners behind: each wait takes memory for ever`,
      );
    });
  });
}

/** Run with a count of the listeners on all signals that anybody listens to meanwhile. */
async function withListeners(run: (count: () => number) => Promise<void>): Promise<void> {
  const signals = new Set<AbortSignal>();
  const { addEventListener } = EventTarget.prototype;
  EventTarget.prototype.addEventListener = function (...args) {
    if (this instanceof AbortSignal) signals.add(this);
    addEventListener.apply(this, args);
  };
  try {
    await run(() =>
      [...signals].reduce((sum, signal) => sum + getEventListeners(signal, "abort").length, 0),
    );
  } finally {
    EventTarget.prototype.addEventListener = addEventListener;
  }
}

async function longSession(subject: Subject, store: ChatStore): Promise<string> {
  const key = subject.key();
  for (let start = 0; start < history; start += 500) {
    await store.addMessages(
      key,
      Array.from({ length: 500 }, (_, index) =>
        say(`message ${start + index} ${"x".repeat(200)}`, { id: idOf(start + index) }),
      ),
    );
  }
  return key;
}

async function inTurn<T, R>(items: readonly T[], call: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  for (const item of items) results.push(await call(item));
  return results;
}
