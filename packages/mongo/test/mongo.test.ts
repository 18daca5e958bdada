import { spawn } from "node:child_process";
import { once } from "node:events";
import { startMongoServer, startProxy } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import { expect, onTestFinished, test } from "vitest";
import * as mongo from "../src/index.ts";
import { beside, contents, key, many, openStore, orphans, refusal, say, stored } from "./store.ts";

const built = new URL("../dist/index.js", import.meta.url).href;
const mebibyte = 1024 * 1024;
const textsOf = (messages: readonly { content: unknown }[]) =>
  messages.map(({ content }) => content);

await withEngine(startMongoServer, ({ url }) => {
  let count = 0;
  const newCollection = () => `test${++count}`;

  test("a session of 50 MB of large messages", async () => {
    const collection = newCollection();
    const store = openStore({ url, collection, timeout: 30_000 });
    const large = (n: number) => say(`${n}`.repeat(7 * mebibyte), `m${n}`);
    for (let n = 0; n < 7; n++) await store.addMessage(key, large(n));
    await store.addMessages(key, [say("a".repeat(6 * mebibyte)), say("b".repeat(5 * mebibyte))]);
    const whole = await store.getMessages(key);
    expect(whole.map(({ content }) => `${String(content)[0]}${String(content).length}`)).toEqual([
      ...Array.from({ length: 7 }, (_, n) => `${n}${7 * mebibyte}`),
      `a${6 * mebibyte}`,
      `b${5 * mebibyte}`,
    ]);
    const newest = await store.getMessages(key, { last: 2 });
    expect(newest.map(({ content }) => String(content)[0])).toEqual(["a", "b"]);
    const pages = [{ last: 40 }, { before: "m4", limit: 2 }, { after: "m2", limit: 2 }] as const;
    const [all, before, after] = await Promise.all(
      pages.map(async (page) => (await store.getMessages(key, page)).map(({ id }) => id)),
    );
    expect(all).toEqual(whole.map(({ id }) => id));
    expect(before).toEqual(["m2", "m3"]);
    expect(after).toEqual(["m3", "m4"]);
    await store.deleteMessagesAfter(key, "m2");
    await store.setTitle(key, "large");
    expect((await store.getMessages(key)).map(({ id }) => id)).toEqual(["m0", "m1", "m2"]);
    await store.setMessages(key, whole);
    expect((await store.getSession(key))?.messageCount).toBe(9);
    expect(await orphans(url, collection)).toEqual([]);
  });

  test("a session of 50 MB of small messages, written and read at once", async () => {
    const collection = newCollection();
    const store = openStore({ url, collection, timeout: 30_000 });
    const text = "x".repeat(5_000);
    const messages = Array.from({ length: 10_000 }, (_, n) => say(text, `m${n}`));
    await store.setMessages(key, messages);
    const whole = await store.getMessages(key);
    expect(whole.map(({ id }) => id)).toEqual(messages.map(({ id }) => id));
    await store.deleteMessages(key);
    expect(await stored(url, collection)).toEqual({ sessions: [], buckets: [] });
  });

  test("messages that grow by editing until no document could hold them", async () => {
    const collection = newCollection();
    const store = openStore({ url, collection, timeout: 30_000 });
    await store.addMessages(key, many(130));
    for (const message of many(70, 130)) await store.addMessage(key, message);
    const expected = textsOf(many(200));
    // The first three are in a bucket, the last three in the head.
    for (const n of [0, 1, 2, 197, 198, 199]) {
      expected[n] = `${n % 10}`.repeat(7 * mebibyte);
      await store.updateMessage(key, `m${n}`, say(String(expected[n])));
    }
    expect(
      textsOf(await store.getMessages(key))
        .map(String)
        .map(short),
    ).toEqual(expected.map(short));
    await store.addMessage(key, say("next"));
    expect((await store.getSession(key))?.messageCount).toBe(201);
    expect(await orphans(url, collection)).toEqual([]);
  });

  test("edits of old messages keep order and count, and leave no old text", async () => {
    const collection = newCollection();
    const store = openStore({ url, collection });
    for (let start = 0; start < 600; start += 100) await store.addMessages(key, many(100, start));
    const model = many(600).map(({ id, content }) => ({ id, content }));
    const check = async () => {
      const { session, messages } = await store.readSession(key);
      expect(messages.map(({ id, content }) => ({ id, content }))).toEqual(model);
      expect(session?.messageCount).toBe(model.length);
    };
    const remove = async (id: string) => {
      const index = model.findIndex((one) => one.id === id);
      model.splice(index, 1);
      await store.deleteMessage(key, index);
    };
    for (const id of ["m5", "m70", "m71", "m300", "m5"]) {
      const found = model.find((one) => one.id === id);
      const content = `${found?.content} again`;
      if (found !== undefined) found.content = content;
      await store.updateMessage(key, id, say(content));
    }
    await check();
    for (const id of ["m0", "m64", "m128", "m599"]) await remove(id);
    await check();
    await store.addMessages(key, many(150, 600));
    model.push(...many(150, 600).map(({ id, content }) => ({ id, content })));
    await check();
    const page = await store.getMessages(key, { after: "m60", limit: 100 });
    expect(page.map(({ id }) => id)).toEqual(model.slice(60, 160).map(({ id }) => id));
    await store.deleteMessagesAfter(key, "m71");
    model.length = model.findIndex(({ id }) => id === "m71") + 1;
    await check();
    for (const message of many(200, 1_000)) await store.addMessage(key, message);
    model.push(...many(200, 1_000).map(({ id, content }) => ({ id, content })));
    await check();
    expect(await orphans(url, collection)).toEqual([]);
    expect(JSON.stringify(await stored(url, collection))).not.toMatch(/"m(300|599)"/);
  });

  test("text that begins with a dollar sign is text", async () => {
    const store = openStore({ url, collection: newCollection() });
    const user = "$user";
    const strange = mongo.sessionKey({ tenant: "$$NOW", user, conversation: "$literal" });
    const messages = [say("$version", "$messages"), say("$$ROOT", "$$NOW")];
    await store.addMessages(strange, messages);
    await store.setTitle(strange, "$title");
    await store.setState(strange, { facts: "$state" });
    await store.updateMessage(strange, "$messages", say("$$REMOVE"));
    const { session, messages: found } = await store.readSession(strange);
    expect(session).toMatchObject({ title: "$title", state: { facts: "$state" } });
    expect(found.map(({ id, content }) => [id, content])).toEqual([
      ["$messages", "$$REMOVE"],
      ["$$NOW", "$$ROOT"],
    ]);
    await store.setMessages(strange, messages);
    expect((await store.listSessions({ tenant: "$$NOW", user })).sessions.length).toBe(1);
    expect(await store.deleteSessions({ tenant: "$$NOW", user })).toBe(1);
  });

  test("many writers that seal at once lose, double and reorder nothing", async () => {
    const collection = newCollection();
    const stores = Array.from({ length: 4 }, () => openStore({ url, collection, timeout: 30_000 }));
    await Promise.all(
      stores.map(async (store, writer) => {
        for (let n = 0; n < 150; n++) await store.addMessage(key, say(`${writer} ${n}`));
      }),
    );
    const all = (await contents(openStore({ url, collection }))).map(String);
    expect(all.length).toBe(600);
    for (let writer = 0; writer < 4; writer++) {
      expect(all.filter((text) => text.startsWith(`${writer} `))).toEqual(
        Array.from({ length: 150 }, (_, n) => `${writer} ${n}`),
      );
    }
    expect(await orphans(url, collection)).toEqual([]);
  });

  /** A process that fills a head and is killed when its bucket is written and its head is not. */
  async function deadSealer(collection: string): Promise<void> {
    const proxy = await startProxy(url);
    onTestFinished(() => proxy.stop());
    const source = `import { mongoChatStore } from ${JSON.stringify(built)};
      const store = mongoChatStore(${JSON.stringify({ url: proxy.url, collection })});
      for (let n = 0; n < 200; n++) {
        await store.addMessage(${JSON.stringify(key)}, { role: "user", content: "canary" + n, id: "m" + n });
      }`;
    const happened = proxy.cutNext("before the request", "$slice");
    const child = spawn(process.execPath, ["--input-type=module", "--eval", source]);
    const exited = once(child, "exit");
    await happened;
    child.kill("SIGKILL");
    expect(await exited).toEqual([null, "SIGKILL"]);
    expect(await orphans(url, collection)).toHaveLength(1);
  }

  test("a writer that died between bucket and head loses nothing and is in nobody's way", async () => {
    const collection = newCollection();
    await deadSealer(collection);
    const store = openStore({ url, collection });
    const before = await contents(store);
    expect(before).toEqual(Array.from({ length: 64 }, (_, n) => `canary${n}`));
    await store.addMessages(key, [say("again", "m0b"), say("canary5", "m5")]);
    expect(await contents(store)).toEqual([...before, "again"]);
    expect(await orphans(url, collection)).toEqual([]);
  });

  const ways: Record<string, (store: mongo.ChatStore) => Promise<unknown>> = {
    erased: (store) => store.deleteMessages(key),
    "erased with the user": (store) => store.deleteSessions({ tenant: "acme", user: "alice" }),
    edited: (store) => store.deleteMessagesAfter(key, "m0"),
    replaced: (store) => store.setMessages(key, []),
  };
  for (const [way, end] of Object.entries(ways)) {
    test(`what such a writer left is gone when the session is ${way}`, async () => {
      const collection = newCollection();
      await deadSealer(collection);
      await end(openStore({ url, collection }));
      expect((await stored(url, collection)).buckets).toEqual([]);
      expect(JSON.stringify(await stored(url, collection))).not.toMatch(/canary[1-9]/);
    });
  }

  test("what such a writer left is swept when its session is gone", async () => {
    const collection = newCollection();
    await deadSealer(collection);
    // As when the process that erased it died at once.
    const db = beside(url).db("chatstore");
    await db.collection<{ _id: string }>(`${collection}.sessions`).deleteOne({ _id: key });
    expect(await openStore({ url, collection }).purgeExpired()).toBe(0);
    expect((await stored(url, collection)).buckets).toEqual([]);
  });

  test("erasing while others write leaves whole sessions and no buckets without one", async () => {
    const collection = newCollection();
    // As long as it takes: how fast the server is has no say in whether the data is right.
    const timeout = 600_000;
    const stores = Array.from({ length: 3 }, () => openStore({ url, collection, timeout }));
    const eraser = openStore({ url, collection, timeout });
    const sweeper = openStore({ url, collection, timeout });
    const writing = stores.map(async (store, writer) => {
      for (let n = 0; n < 8; n++) {
        await store.addMessages(key, many(70, 1_000 * (writer * 100 + n)));
        if (n % 4 === 3) await store.setMessages(key, many(150));
      }
    });
    // Everybody does a given number of things, so that nobody has to be told to stop.
    const erasing = (async () => {
      for (let n = 0; n < 40; n++) await eraser.deleteMessages(key);
    })();
    const sweeping = (async () => {
      for (let n = 0; n < 20; n++) await sweeper.purgeExpired();
    })();
    await Promise.all([...writing, erasing, sweeping]);
    const { session, messages } = await eraser.readSession(key);
    expect(messages.length).toBe(session?.messageCount ?? 0);
    expect(await orphans(url, collection)).toEqual([]);
    await eraser.deleteMessages(key);
    expect(await stored(url, collection)).toEqual({ sessions: [], buckets: [] });
  }, 600_000);

  test("erasing many sessions at once makes Node.js warn of nothing", async () => {
    const warnings: Error[] = [];
    const listener = (warning: Error) => warnings.push(warning);
    process.on("warning", listener);
    onTestFinished(() => void process.off("warning", listener));
    const store = openStore({ url, collection: newCollection() });
    const keys = Array.from({ length: 30 }, (_, n) =>
      mongo.sessionKey({ tenant: "acme", user: "alice", conversation: `${n}` }),
    );
    for (const each of keys) await store.addMessages(each, many(70));
    expect(await store.deleteSessions({ tenant: "acme", user: "alice" })).toBe(30);
    await new Promise(setImmediate);
    expect(warnings).toEqual([]);
  });

  test("a bucket that somebody deleted is an error, not a shorter history", async () => {
    const collection = newCollection();
    const store = openStore({ url, collection });
    await store.addMessages(key, many(300));
    await beside(url).db("chatstore").collection(`${collection}.buckets`).deleteOne({});
    expect(await refusal(store.getMessages(key))).toMatchObject({ code: "CORRUPT_SESSION" });
    expect(await contents(store, mongo.sessionKey({ user: "bob" }))).toEqual([]);
    await store.deleteMessages(key);
    expect(await contents(store)).toEqual([]);
  });

  test("the script of mongoSchema() is what migrate: check asks for", async () => {
    const collection = newCollection();
    const options = { url, collection, migrate: "check" } as const;
    expect(await refusal(openStore(options).open())).toMatchObject({ code: "SCHEMA" });
    const db = beside(url).db("chatstore");
    const shell = { getCollection: (name: string) => db.collection(name) };
    const statements = mongo.mongoSchema({ collection }).trim().split(";\n");
    for (const statement of statements) {
      await new Function("db", `return ${statement}`)(shell);
    }
    await openStore(options).addMessage(key, say("hello"));
    const indexes = await db.collection(`${collection}.sessions`).indexes();
    await openStore({ url, collection: `${collection}b` }).open();
    const own = await db.collection(`${collection}b.sessions`).indexes();
    expect(indexes).toEqual(own);
  });

  test.each([
    ["sessions", { collation: { locale: "en", strength: 2 } }, "collation (en)"],
    ["buckets", { collation: { locale: "de", numericOrdering: true } }, "collation (de)"],
    ["sessions", { capped: true, size: 4096 }, "capped"],
    ["buckets", { viewOn: "other" }, "view"],
  ])("%s that somebody made with %j are refused", async (name, settings, says) => {
    const collection = newCollection();
    const db = beside(url).db("chatstore");
    await db.createCollection(`${collection}.${name}`, settings);
    for (const migrate of ["auto", "check"] as const) {
      const error = await refusal(openStore({ url, collection, migrate }).open());
      expect(error).toMatchObject({ code: "SCHEMA" });
      expect(error.message).toContain(says);
      expect(error.message).toContain(`${collection}.${name}`);
    }
    await db.collection(`${collection}.${name}`).drop();
    await openStore({ url, collection }).addMessage(key, say("hello"));
  });

  test("a newer format is refused", async () => {
    const collection = newCollection();
    await openStore({ url, collection }).open();
    const meta = beside(url).db("chatstore").collection<{ _id: string }>(`${collection}.meta`);
    await meta.updateOne({ _id: "schema" }, { $set: { version: 9 } });
    await openStore({ url, collection }).open();
    await meta.updateOne({ _id: "schema" }, { $set: { compatible: 9 } });
    const error = await refusal(openStore({ url, collection }).open());
    expect(error).toMatchObject({ code: "UNSUPPORTED_FORMAT" });
  });
});

function short(text: unknown): string {
  return `${String(text).slice(0, 5)}${String(text).length}`;
}
