import { spawn } from "node:child_process";
import { once } from "node:events";
import { type Cut, startMongoServer, startProxy } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import { MongoClient } from "mongodb";
import { describe, expect, onTestFinished, test } from "vitest";
import * as mongo from "../src/index.ts";
import { beside, contents, key, many, openStore, orphans, refusal, say } from "./store.ts";

const built = new URL("../dist/index.js", import.meta.url).href;
const cuts: Cut[] = ["before the request", "after the request", "in the reply"];

await withEngine(startMongoServer, ({ url, process: server }) => {
  let count = 0;
  const newCollection = () => `test${++count}`;
  const newProxy = async () => {
    const proxy = await startProxy(url);
    onTestFinished(() => proxy.stop());
    return proxy;
  };

  describe.each(cuts)("a connection that breaks %s", (cut) => {
    test("loses no message, doubles none, and leaves nothing behind", async () => {
      const proxy = await newProxy();
      const collection = newCollection();
      const store = openStore({ url: proxy.url, collection });
      await store.addMessage(key, say("m0", "m0"));
      const interrupted = async (text: string, write: () => Promise<unknown>) => {
        const happened = proxy.cutNext(cut, text);
        await Promise.all([write(), happened]);
      };
      await interrupted("one", () => store.addMessages(key, [say("one"), say("two")]));
      expect(await contents(store)).toEqual(["m0", "one", "two"]);
      await interrupted("edited", () => store.updateMessage(key, "m0", say("edited")));
      expect(await contents(store)).toEqual(["edited", "one", "two"]);
      const messages = many(300);
      // The buckets of a replacement, then its head.
      await interrupted("m10", () => store.setMessages(key, messages));
      await interrupted("m299", () => store.setMessages(key, messages));
      // The bucket of old text, then the head that counts it, which knows nothing of the text.
      await interrupted("anew", () => store.updateMessage(key, "m3", say("anew")));
      await interrupted("runs", () => store.deleteMessagesAfter(key, "m250"));
      // Sealing: the head after the bucket.
      await store.addMessages(key, many(60, 300));
      await interrupted("$slice", async () => {
        for (const message of many(140, 400)) await store.addMessage(key, message);
      });
      const expected = [...many(251), ...many(60, 300), ...many(140, 400)].map(
        (one) => one.content,
      );
      expected[3] = "anew";
      expect(await contents(store)).toEqual(expected);
      await interrupted("delete", () => store.deleteMessages(key));
      expect(await contents(store)).toEqual([]);
      await store.purgeExpired();
      expect(await orphans(url, collection)).toEqual([]);
    });

    test("does not undo what somebody else did meanwhile", async () => {
      const proxy = await newProxy();
      const collection = newCollection();
      const store = openStore({ url: proxy.url, collection });
      const other = openStore({ url, collection });
      await other.setMessages(key, [say("zero"), say("one"), say("two")]);
      const happened = proxy
        .cutNext(cut, "$concatArrays")
        .then(() => other.addMessage(key, say("theirs")));
      await store.addMessage(key, say("mine"));
      await happened;
      expect((await contents(store)).toSorted()).toEqual(["mine", "one", "theirs", "two", "zero"]);
      const replacing = proxy.cutNext(cut, "new");
      const outcome = store.setMessages(key, [say("new")]).then(
        () => "applied",
        (error: mongo.BackendError) => error.outcome,
      );
      await replacing;
      await other.addMessage(key, say("later"));
      // Never sent, or sent and lost? Who cannot know says so, instead of doing it to what is there now.
      expect(["applied", "unknown"]).toContain(await outcome);
      const left = await contents(store);
      expect(left).toContain("later");
      expect(left.includes("new")).toBe(!left.includes("zero"));
      if ((await outcome) === "applied") expect(left).toContain("new");
    });
  });

  test("a server that does not answer is a timeout, and later none", async () => {
    const proxy = await newProxy();
    const store = openStore({ url: proxy.url, collection: newCollection(), timeout: 1_000 });
    await store.addMessage(key, say("one"));
    proxy.blackHole();
    const start = performance.now();
    const lost = await refusal(store.addMessage(key, say("canary")));
    const read = await refusal(store.getSession(key));
    expect(performance.now() - start).toBeLessThan(4_000);
    expect(lost).toMatchObject({ retryable: true, outcome: "unknown" });
    expect(read).toMatchObject({ retryable: true });
    proxy.heal();
    await store.getSession(key).catch(() => undefined);
    await store.addMessage(key, say("three"));
    expect(await contents(store)).toEqual(["one", "three"]);
  });

  test("a server that is not there is an error that says so, within the timeout", async () => {
    const store = openStore({ url: "mongodb://app:hunter2@127.0.0.1:1/app", timeout: 600 });
    const start = performance.now();
    const error = await refusal(store.addMessage(key, say("canary")));
    expect(performance.now() - start).toBeLessThan(2_000);
    expect(error).toMatchObject({ retryable: true, outcome: "not-applied" });
    expect(error.message).toContain("127.0.0.1:1");
  });

  test("TLS to a server without is an error within the timeout, without the password", async () => {
    const withTls = url
      .replace("mongodb://", "mongodb://app:hunter2@")
      .replace(/\/?(\?.*)?$/, "/?tls=true");
    const store = openStore({ url: withTls, timeout: 1_500 });
    const start = performance.now();
    const error = await refusal(store.addMessage(key, say("canary")));
    expect(performance.now() - start).toBeLessThan(4_000);
    expect(error).toMatchObject({ outcome: "not-applied" });
    expect(error.message).not.toContain("hunter2");
  });

  test("a server that is away, at first or later, is found again by itself", async () => {
    const collection = newCollection();
    const open = (options: mongo.MongoChatStoreOptions) =>
      openStore({ ...options, collection, timeout: 1_000 });
    const client = new MongoClient(url, { serverSelectionTimeoutMS: 500 });
    onTestFinished(() => client.close());
    const [early, late, passedIn] = [
      open({ url }),
      open({ url }),
      open({ db: client.db("chatstore") }),
    ];
    await early.addMessage(key, say("one"));
    await server.kill();
    const failing = [early, late, passedIn].map((store) =>
      refusal(store.addMessage(key, say("canary"))),
    );
    const [lost, ...unopened] = await Promise.all(failing).finally(() => server.start());
    expect(lost).toMatchObject({ retryable: true });
    for (const error of unopened) {
      expect(error).toMatchObject({ retryable: true, outcome: "not-applied" });
    }
    await late.addMessage(key, say("two"));
    await early.addMessage(key, say("three"));
    await passedIn.addMessage(key, say("four"));
    expect(await contents(openStore({ url, collection }))).toEqual(["one", "two", "three", "four"]);
  });

  test("a write that no server got is not applied, in whichever attempt the time ran out", async () => {
    const collection = newCollection();
    const open = (options: mongo.MongoChatStoreOptions) =>
      openStore({ ...options, collection, timeout: 1_000 });
    // One gives up looking for a server before the store does, one never does.
    const stores = [open({ url }), open({ client: beside(url), database: "chatstore" })];
    for (const store of stores) await store.addMessage(key, say("before"));
    await server.kill();
    // They find out.
    for (const store of stores) await refusal(store.getSession(key));
    const failing = stores.map((store) => refusal(store.addMessage(key, say("canary"))));
    const errors = await Promise.all(failing).finally(() => server.start());
    for (const error of errors) {
      expect(error).toMatchObject({ retryable: true, outcome: "not-applied" });
    }
    // Nor does it happen when the server is back.
    for (const store of stores) await store.addMessage(key, say("after"));
    expect(await contents(openStore({ url, collection }))).toEqual([
      "before",
      "before",
      "after",
      "after",
    ]);
  });

  test("a process can end although the server does not answer", async () => {
    const proxy = await newProxy();
    const source = `import { mongoChatStore } from ${JSON.stringify(built)};
      const store = mongoChatStore({ url: ${JSON.stringify(proxy.url)}, timeout: 1000 });
      await store.open();
      console.log("open");
      await new Promise((resolve) => process.stdin.once("data", resolve));
      process.stdin.destroy();
      await store.getSession("u:bob").catch((error) => console.log(error.name));
      await store.close();`;
    const child = spawn(process.execPath, ["--input-type=module", "--eval", source]);
    onTestFinished(() => void child.kill("SIGKILL"));
    const exited = once(child, "exit");
    await once(child.stdout, "data");
    proxy.blackHole();
    child.stdin.write("go\n");
    expect(await exited).toEqual([0, null]);
  });

  test("a client of one's own is used as it is, and stays open", async () => {
    const client = beside(url);
    const db = client.db("other");
    const collection = newCollection();
    for (const options of [{ client, database: "other" }, { db }]) {
      const store = openStore({ ...options, collection });
      await store.addMessage(key, say("hello"));
      await store.close();
    }
    expect(await db.collection(`${collection}.sessions`).countDocuments()).toBe(1);
  });

  test("a client's own settings do not change what is read", async () => {
    const client = new MongoClient(url, {
      promoteValues: false,
      ignoreUndefined: true,
      readPreference: "secondary",
      writeConcern: { w: 0 },
    });
    onTestFinished(() => client.close());
    const store = openStore({ client, collection: newCollection() });
    await store.addMessages(key, many(200));
    await store.setState(key, { facts: [1] });
    expect(await store.getSession(key)).toMatchObject({ messageCount: 200, state: { facts: [1] } });
    expect(await contents(store)).toEqual(many(200).map(({ content }) => content));
  });

  test("whatever the settings, a change is on a majority's disks before it is acknowledged", async () => {
    const careless = { writeConcern: { w: 1, journal: false }, monitorCommands: true };
    const clients = [
      new MongoClient(url, careless),
      new MongoClient(`${url}&w=0&journal=false`, { monitorCommands: true }),
    ];
    for (const client of clients) {
      onTestFinished(() => client.close());
      const concerns = new Set<string>();
      client.on("commandStarted", ({ commandName, command }) => {
        if (/^(insert|update|delete|findAndModify|createIndexes)$/.test(commandName)) {
          const { w, j } = command["writeConcern"];
          concerns.add(`${commandName} ${w} ${j}`);
        }
      });
      const store = openStore({ client, collection: newCollection() });
      await store.setMessages(key, many(100));
      await store.addMessages(key, many(100, 100));
      await store.updateMessage(key, "m1", say("edited"));
      await store.deleteMessages(key);
      const names = ["createIndexes", "delete", "findAndModify", "insert", "update"];
      expect([...concerns].sort()).toEqual(names.map((name) => `${name} majority true`));
      expect(store.capabilities.survives).toBe("host");
    }
  });

  test("options that are wrong are refused at once", () => {
    const client = new MongoClient(url);
    const wrong: mongo.MongoChatStoreOptions[] = [
      {},
      { url: "postgres://app:hunter2@localhost" },
      { url: "mongodb://app:hunter2@localhost:port" },
      { url, client },
      { url, db: client.db("a") },
      { client, mongo: {} },
      { db: client.db("a"), database: "b" },
      { client: {} as never },
      { url, collection: "" },
      { url, collection: "a$b" },
      { url, collection: "system.x" },
      { url, collection: "x".repeat(101) },
      { url, database: "a/b" },
      { url, mongo: { maxPoolSize: -1 } },
    ];
    for (const options of wrong) {
      let error: unknown;
      try {
        mongo.mongoChatStore(options);
      } catch (thrown) {
        error = thrown;
      }
      expect(error, JSON.stringify(Object.keys(options))).toMatchObject({
        code: "INVALID_OPTIONS",
      });
      expect(String((error as Error).stack)).not.toContain("hunter2");
    }
  });
});

await withEngine(
  () => startMongoServer({ nojournal: true }),
  ({ url }) => {
    test("a server that keeps no journal acknowledges nothing", async () => {
      for (const migrate of ["auto", "off"] as const) {
        const error = await refusal(openStore({ url, migrate }).addMessage(key, say("canary")));
        expect(error).toMatchObject({ retryable: false, outcome: "not-applied" });
        expect(error.message).toContain("Start the server with its journal");
      }
    });
  },
);

await withEngine(
  () => startMongoServer({ auth: true }),
  async ({ url, port }) => {
    const address = `127.0.0.1:${port}/chat?directConnection=true`;
    // Without a user yet, the server lets this machine make one.
    const root = { user: "root", password: "hunter2-root" };
    const first = new MongoClient(url);
    await first.db("admin").command({ createUser: root.user, pwd: root.password, roles: ["root"] });
    await first.close();
    const admin = new MongoClient(`mongodb://root:${root.password}@${address}&authSource=admin`);
    for (const [user, role] of [
      ["writer", "readWrite"],
      ["reader", "read"],
    ] as const) {
      await admin
        .db("chat")
        .command({ createUser: user, pwd: "hunter2@/", roles: [{ role, db: "chat" }] });
    }
    await admin.close();

    test("the role readWrite on the database is enough", async () => {
      const store = openStore({ url: `mongodb://writer:hunter2%40%2F@${address}` });
      await store.addMessages(key, many(300));
      await store.addMessages(key, [say("m1", "m1"), say("new", "new")]);
      await store.updateMessage(key, "m1", say("edited"));
      expect((await contents(store)).length).toBe(301);
      expect(await store.deleteSessions({ tenant: "acme", user: "alice" })).toBe(1);
      expect(await store.purgeExpired()).toBe(0);
    });

    test("a wrong password, and a missing right, are no passing failures", async () => {
      const cases = [
        { url: `mongodb://writer:hunter2wrong@${address}` },
        { url: `mongodb://127.0.0.1:${port}/chat?directConnection=true` },
        { url: `mongodb://reader:hunter2%40%2F@${address}` },
        {
          url: `mongodb://${address}`,
          mongo: { auth: { username: "writer", password: "hunter2" } },
        },
      ];
      for (const options of cases) {
        const start = performance.now();
        const error = await refusal(openStore(options).addMessage(key, say("canary")));
        expect(error).toMatchObject({
          code: "BACKEND",
          retryable: false,
          outcome: "not-applied",
        });
        expect(performance.now() - start).toBeLessThan(4_000);
      }
    });
  },
);
