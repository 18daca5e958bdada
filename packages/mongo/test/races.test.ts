import { startMongoServer } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import type { Db } from "mongodb";
import { expect, test } from "vitest";
import { beside, contents, key, many, openStore, orphans, say } from "./store.ts";

/** A real database on which one kind of call can be stopped on its way to the server. */
function stoppable(db: Db) {
  let stop: { call: string; reached: () => void; goOn: Promise<void> } | undefined;
  const wrap = <T extends object>(target: T, path: string): T =>
    new Proxy(target, {
      get(_, name) {
        const value = Reflect.get(target, name, target) as unknown;
        if (typeof value !== "function") return value;
        return (...args: unknown[]) => {
          const call = `${path}${String(name)}`;
          if (stop?.call === call) {
            const { reached, goOn } = stop;
            stop = undefined;
            reached();
            return goOn.then(() => value.apply(target, args) as unknown);
          }
          const result = value.apply(target, args) as unknown;
          if (name === "collection")
            return wrap(result as object, `${String(args[0]).split(".")[1]}.`);
          if (name === "find") return wrap(result as object, `${call}.`);
          return result === target ? wrap(target, path) : result;
        };
      },
    });
  return {
    db: wrap(db, ""),
    /** Run `during` while the next such call is stopped. */
    async at(call: string, start: () => Promise<unknown>, during: () => Promise<unknown>) {
      let goOn = () => {};
      const reached = new Promise<void>((resolve) => {
        stop = { call, reached: resolve, goOn: new Promise((go) => (goOn = go)) };
      });
      const running = start();
      const missed = running.then(() => expect.fail(`it made no call of ${call}`));
      await Promise.race([reached, missed]);
      await during();
      goOn();
      missed.catch(() => undefined);
      return running;
    },
  };
}

await withEngine(startMongoServer, ({ url }) => {
  let count = 0;
  const openTwo = () => {
    const collection = `test${++count}`;
    const { db, at } = stoppable(beside(url).db("chatstore"));
    const [slow, other] = [openStore({ db, collection }), openStore({ url, collection })];
    return { slow, other, at, collection };
  };
  const textsOf = (messages: readonly { content: unknown }[]) =>
    messages.map(({ content }) => content);

  test("a sweep takes no bucket that a writer is about to count", async () => {
    const { slow, other, at, collection } = openTwo();
    await slow.addMessages(key, many(90));
    // Fills the head, and seals it.
    await at(
      "sessions.updateOne",
      () => slow.addMessages(key, many(111, 90)),
      () => other.purgeExpired(),
    );
    expect(await contents(other)).toEqual(textsOf(many(201)));
    expect(await orphans(url, collection)).toEqual([]);
  });

  test("sealing does not bring back what an edit has just replaced", async () => {
    const { slow, other, at, collection } = openTwo();
    await slow.addMessages(key, many(90));
    // Fills the head, and seals it.
    await at(
      "sessions.updateOne",
      () => slow.addMessages(key, many(111, 90)),
      () => other.updateMessage(key, "m3", say("edited")),
    );
    const expected: unknown[] = textsOf(many(201));
    expected[3] = "edited";
    expect(await contents(other)).toEqual(expected);
    expect(await orphans(url, collection)).toEqual([]);
  });

  test("a sweep takes no bucket of a replacement that is under way", async () => {
    const { slow, other, at, collection } = openTwo();
    await other.addMessages(key, many(300));
    await slow.open();
    // Its buckets are written, its head does not count them yet.
    await at(
      "sessions.updateOne",
      () => slow.setMessages(key, many(500)),
      () => other.purgeExpired(),
    );
    expect(await contents(other)).toEqual(textsOf(many(500)));
    expect(await orphans(url, collection)).toEqual([]);
  });

  test("a page beside old messages that somebody edits meanwhile", async () => {
    const { slow, other, at } = openTwo();
    await slow.addMessages(key, many(400));
    await slow.addMessages(key, many(1, 400));
    const page = at(
      "buckets.find.toArray",
      () => slow.getMessages(key, { after: "m5", limit: 200 }),
      () => other.updateMessage(key, "m100", say("edited")),
    );
    const expected: unknown[] = textsOf(many(200, 6));
    expected[94] = "edited";
    expect(textsOf((await page) as { content: unknown }[])).toEqual(expected);
  });

  test("two edits of old messages at once both take effect", async () => {
    const { slow, other, at, collection } = openTwo();
    await slow.addMessages(key, many(400));
    await slow.addMessages(key, many(1, 400));
    await at(
      "buckets.insertMany",
      () => slow.updateMessage(key, "m5", say("one")),
      () => other.updateMessage(key, "m6", say("two")),
    );
    const page = await other.getMessages(key, { limit: 8 });
    expect(textsOf(page)).toEqual(["m0", "m1", "m2", "m3", "m4", "one", "two", "m7"]);
    expect(await orphans(url, collection)).toEqual([]);
  });

  test("an id that is sealed while it is looked for is not stored twice", async () => {
    const { slow, other, at } = openTwo();
    await slow.open();
    await other.addMessages(key, many(90, 200));
    await at(
      "sessions.findOneAndUpdate",
      () => slow.addMessages(key, [say("late", "late")]),
      async () => {
        await other.addMessages(key, [say("late", "late")]);
        for (const message of many(150, 1_000)) await other.addMessage(key, message);
      },
    );
    expect((await contents(other)).filter((text) => text === "late")).toHaveLength(1);
  });
});
