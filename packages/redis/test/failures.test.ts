import { spawn } from "node:child_process";
import { once } from "node:events";
import { inspect } from "node:util";
import { type Cut, startProxy, startRedisServer } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import { Redis } from "ioredis";
import { describe, expect, onTestFinished, test } from "vitest";
import { toBackendError } from "../src/errors.ts";
import * as redis from "../src/index.ts";
import { beside, contents, key, openStore, refusal, say } from "./store.ts";

const built = new URL("../dist/index.js", import.meta.url).href;
const cuts: Cut[] = ["before the request", "after the request", "in the reply"];

await withEngine(startRedisServer, ({ url }) => {
  let count = 0;
  const newPrefix = () => `test${++count}:`;
  const newProxy = async () => {
    const proxy = await startProxy(url);
    onTestFinished(() => proxy.stop());
    return proxy;
  };

  /** The store's own client, and one that sends everything again after a break, as ioredis does unless told otherwise. */
  const clients = (proxied: string): [string, redis.RedisChatStoreOptions][] => {
    const client = new Redis(proxied);
    client.on("error", () => {});
    onTestFinished(() => client.disconnect());
    return [
      ["own", { url: proxied }],
      ["passed in", { client }],
    ];
  };

  describe.each(cuts)("a connection that breaks %s", (cut) => {
    test("loses no message and doubles none", async () => {
      const proxy = await newProxy();
      for (const [, options] of clients(proxy.url)) {
        const store = openStore({ ...options, prefix: newPrefix() });
        await store.addMessage(key, say("one"));
        const happened = proxy.cutNext(cut, "evalsha");
        await store.addMessages(key, [say("two"), say("three")]);
        await happened;
        expect(await contents(store)).toEqual(["one", "two", "three"]);
      }
    });

    test("does not undo what somebody else did meanwhile", async () => {
      const proxy = await newProxy();
      for (const [whose, options] of clients(proxy.url)) {
        const prefix = newPrefix();
        const store = openStore({ ...options, prefix });
        const other = openStore({ url, prefix });
        // The server knows the scripts: what is cut below is the write itself.
        await other.setMessages(key, [say("gone"), say("zero"), say("one"), say("two")]);
        await other.deleteMessage(key, 0);
        const interrupt = async (
          text: string,
          write: () => Promise<unknown>,
          between: () => Promise<unknown>,
        ) => {
          const happened = proxy.cutNext(cut, text);
          const writing = write();
          await happened;
          await between();
          // Never sent, or sent and lost? Who cannot know says so, instead of doing it to what is there now.
          if (cut === "before the request" && whose === "own" && text !== "mine") {
            expect(await refusal(writing)).toMatchObject({ code: "BACKEND", outcome: "unknown" });
            await write();
          } else {
            await writing;
          }
        };

        const remove = () => store.deleteMessage(key, 0);
        await interrupt("remove", remove, () => other.addMessage(key, say("three")));
        expect(await contents(store)).toEqual(["one", "two", "three"]);

        const name = () => store.setState(key, { note: "mine" });
        await interrupt("mine", name, () => other.setState(key, { note: "theirs" }));
        const { note } = (await store.getSession(key))?.state ?? {};
        // Sent and lost, it had happened before the other one; not sent, it happens after.
        expect(note).toBe(cut === "before the request" ? "mine" : "theirs");

        const replace = () => store.setMessages(key, [say("new")]);
        await interrupt("new", replace, () => other.addMessage(key, say("four")));
        expect(await contents(store)).toEqual(
          cut === "before the request" ? ["new"] : ["new", "four"],
        );
      }
    });
  });

  const repeatable: Record<string, (store: redis.ChatStore) => Promise<redis.WriteResult>> = {
    addMessages: (store) => store.addMessages(key, [say("mine", "mine")]),
    setState: (store) => store.setState(key, { note: "mine" }),
    setMessages: (store) => store.setMessages(key, [say("mine")]),
    replaceMessagesAfter: (store) => store.replaceMessagesAfter(key, null, [say("mine")]),
    deleteLastMessage: (store) => store.deleteLastMessage(key),
  };
  test.each(Object.entries(repeatable))(
    "a repeated %s whose answer was lost never returns the version of somebody else",
    async (_, write) => {
      const proxy = await newProxy();
      for (const [, options] of clients(proxy.url)) {
        const prefix = newPrefix();
        const store = openStore({ ...options, prefix });
        const other = openStore({ url, prefix });
        await store.addMessages(key, [say("one"), say("two")]);
        // The server knows the scripts: what is cut below is the write itself.
        await other.setMessages(key, [say("one"), say("two"), say("three")]);
        await other.deleteLastMessage(key);
        const happened = proxy.cutNext("after the request", "evalsha");
        const writing = write(store);
        await happened;
        const theirs = await other.addMessage(key, say("theirs"));
        const { version } = await writing;
        expect(version).not.toBe(theirs.version);
        const late = refusal(store.setMessages(key, [], { ifVersion: version }));
        expect(await late).toMatchObject({ code: "VERSION_CONFLICT" });
      }
    },
  );

  test("an erasure whose answer was lost counts what it has erased", async () => {
    const proxy = await newProxy();
    for (const [, options] of clients(proxy.url)) {
      const prefix = newPrefix();
      const store = openStore({ ...options, prefix });
      const keyOf = (conversation: string) => redis.sessionKey({ user: "bob", conversation });
      for (const name of ["a", "b", "c"]) await store.addMessage(keyOf(name), say(name));
      await store.deleteMessages(keyOf("c")); // the server knows the script from here on
      await store.addMessage(keyOf("c"), say("c"));
      // Told by the keys that it alone takes.
      const happened = proxy.cutNext("after the request", "staged");
      const erasing = store.deleteSessions({ user: "bob" });
      await happened;
      expect(await erasing).toBe(3);
      await store.addMessage(keyOf("d"), say("d"));
      expect(await store.deleteSessions({ user: "bob" })).toBe(1);
      expect(await store.deleteSessions({ user: "bob" })).toBe(0);
    }
  });

  test("a broken connection is said to be one, in words that are not ioredis's", async () => {
    const nobody = { host: "127.0.0.1", port: 1, maxRetriesPerRequest: 0, retryStrategy: () => 1 };
    const client = new Redis(nobody);
    onTestFinished(() => client.disconnect());
    client.on("error", () => {});
    const error: Error = await client.ping().catch((reason) => reason);
    expect(error.message).toContain("maxRetriesPerRequest");
    const said = toBackendError(error, "unknown", new Error("read ECONNRESET"));
    expect(said.message).toMatch(/the connection broke before the answer came: read ECONNRESET$/);
    expect(said).toMatchObject({ retryable: true, outcome: "unknown" });
    expect(inspect(said)).not.toContain("maxRetriesPerRequest");
  });

  test("a server that does not answer is a timeout, and later none", async () => {
    const proxy = await newProxy();
    const store = openStore({ url: proxy.url, prefix: newPrefix(), timeout: 1_000 });
    await store.addMessage(key, say("one"));
    proxy.blackHole();
    const start = performance.now();
    const [lost, read] = await Promise.all([
      refusal(store.addMessage(key, say("canary", "two"))),
      refusal(store.getSession(redis.sessionKey({ user: "bob" }))),
    ]);
    expect(performance.now() - start).toBeLessThan(2_500);
    expect(lost).toMatchObject({ code: "TIMEOUT", retryable: true, outcome: "unknown" });
    expect(read).toMatchObject({ retryable: true });
    proxy.heal();
    await store.addMessage(key, say("three"));
    expect(await contents(store)).toEqual(["one", "three"]);
  });

  test("a process can end although the server does not answer", async () => {
    const proxy = await newProxy();
    const source = `import { redisChatStore } from ${JSON.stringify(built)};
      const store = redisChatStore({ url: ${JSON.stringify(proxy.url)}, timeout: 1000 });
      await store.open();
      console.log("open");
      await new Promise((resolve) => process.stdin.once("data", resolve));
      process.stdin.destroy();
      await store.getSession("u:bob").catch((error) => console.log(error.code));
      await store.close();`;
    const child = spawn(process.execPath, ["--input-type=module", "--eval", source]);
    onTestFinished(() => void child.kill("SIGKILL"));
    let output = "";
    child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
    await once(child.stdout, "data");
    proxy.blackHole();
    const start = performance.now();
    child.stdin.write("go\n");
    expect(await once(child, "close")).toEqual([0, null]);
    expect(performance.now() - start).toBeLessThan(6_000);
    expect(output).toMatch(/^open\n(TIMEOUT|BACKEND)\n$/);
  });

  /** How a process ends that runs this with a store. */
  const runs = async (storeUrl: string, body: string, whenOpen: () => unknown) => {
    const source = `import { redisChatStore, sessionKey } from ${JSON.stringify(built)};
      const options = { url: ${JSON.stringify(storeUrl)}, prefix: "ends:", timeout: 2000, onWarning() {} };
      const store = redisChatStore(options);
      const key = sessionKey({ user: "bob" });
      await store.open();
      console.log("open");
      await new Promise((resolve) => process.stdin.once("data", resolve));
      process.stdin.destroy();
      ${body}`;
    const child = spawn(process.execPath, ["--input-type=module", "--eval", source]);
    onTestFinished(() => void child.kill("SIGKILL"));
    const ended = once(child, "close");
    let errors = "";
    child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
    await once(child.stdout, "data");
    await whenOpen();
    child.stdin.write("go\n");
    return { ended: await ended, errors };
  };

  test("a process that closes its store while the server is away ends well", async () => {
    const server = await startRedisServer();
    onTestFinished(() => server.stop());
    expect(await runs(server.url, "await store.close();", () => server.process.kill())).toEqual({
      ended: [0, null],
      errors: "",
    });
    await server.process.start();
    const body = "await store.close(); await store.close(); console.log('closed');";
    const standing = await runs(server.url, body, () => server.process.freeze());
    expect(standing).toEqual({ ended: [0, null], errors: "" });
    server.process.thaw();
  });

  test("a process that forgets to close its store ends once nothing is queued", async () => {
    const server = await startRedisServer();
    onTestFinished(() => server.stop());
    const body = `for (const content of ["a", "b", "c"]) void store.addMessage(key, { role: "user", content });`;
    expect(await runs(server.url, body, () => {})).toEqual({ ended: [0, null], errors: "" });
    const store = openStore({ url: server.url, prefix: "ends:" });
    expect(await contents(store, redis.sessionKey({ user: "bob" }))).toEqual(["a", "b", "c"]);
    // Nor does it wait for a server that may never come back.
    const away = await runs(server.url, "", () => server.process.kill());
    expect(away).toEqual({ ended: [0, null], errors: "" });
  });

  test("a server that stands still and goes on keeps every message once", async () => {
    const server = await startRedisServer();
    onTestFinished(() => server.stop());
    const store = openStore({ url: server.url, timeout: 6_000 });
    await store.addMessage(key, say("one"));
    server.process.freeze();
    const writing = store.addMessages(key, [say("two"), say("three")]);
    // Longer than a connection without an answer is kept.
    setTimeout(() => server.process.thaw(), 4_000);
    await writing;
    expect(await contents(store)).toEqual(["one", "two", "three"]);
  });

  test("a killed server that is started again has all that was acknowledged, and the store goes on", async () => {
    const server = await startRedisServer({ appendfsync: "always" });
    onTestFinished(() => server.stop());
    const store = openStore({ url: server.url, timeout: 1_000 });
    await store.open();
    expect(store.capabilities.survives).toBe("host");
    const acknowledged: string[] = [];
    const failures: redis.BackendError[] = [];
    let isDone = false;
    // Should this fail: a loop on a closed store is endless.
    onTestFinished(() => {
      isDone = true;
    });
    const writing = (async () => {
      for (let n = 0; !isDone; n++) {
        await store.addMessages(key, [say("x", `${n}a`), say("x", `${n}b`)]).then(
          () => acknowledged.push(`${n}a`, `${n}b`),
          (error: redis.BackendError) => failures.push(error),
        );
      }
    })();
    await expect.poll(() => acknowledged.length).toBeGreaterThan(100);
    await server.process.kill();
    await expect.poll(() => failures.length, { timeout: 5_000 }).toBeGreaterThan(1);
    const before = acknowledged.length;
    await server.process.start();
    await expect.poll(() => acknowledged.length, { timeout: 5_000 }).toBeGreaterThan(before + 10);
    isDone = true;
    await writing;
    const ids = (await store.getMessages(key)).map(({ id }) => id);
    const stored = new Set(ids);
    expect(ids).toHaveLength(stored.size);
    expect(acknowledged.filter((id) => !stored.has(id))).toEqual([]);
    expect(ids.filter((id) => !stored.has(id.replace(/.$/, "a")))).toEqual([]);
    expect(ids.filter((id) => !stored.has(id.replace(/.$/, "b")))).toEqual([]);
    for (const error of failures) expect(error).toMatchObject({ retryable: true });
    expect(failures.at(-1)?.message).toContain("ECONNREFUSED");
  });

  test("a store may be made before its server runs", async () => {
    const server = await startRedisServer();
    onTestFinished(() => server.stop());
    await server.process.stop();
    const store = openStore({ url: server.url, timeout: 500 });
    const error = await refusal(store.addMessage(key, say("canary")));
    expect(error).toMatchObject({ retryable: true, outcome: "not-applied" });
    expect(error.message).toContain("ECONNREFUSED");
    await server.process.start();
    await store.addMessage(key, say("hello"));
    expect(await contents(store)).toEqual(["hello"]);
  });

  describe("a full server", () => {
    const long = "canary".repeat(100);
    const abc = [say(`${long} a`, "a"), say(`${long} b`, "b"), say(`${long} c`, "c")];
    /** A store with a session of three messages, on a server that has no memory left. */
    const openFull = async (options: object = {}) => {
      const server = await startRedisServer({ "maxmemory-policy": "noeviction" });
      onTestFinished(() => server.stop());
      const store = openStore({ url: server.url, timeout: 500, ...options });
      await store.addMessages(key, abc);
      await store.setState(key, { notes: long });
      await store.setTitle(key, long);
      const admin = beside(server.url);
      await admin.config("SET", "maxmemory", "1");
      return { server, store, admin };
    };

    test("refuses what takes memory, and gives back what is there", async () => {
      const { store, admin } = await openFull();
      for (const call of [
        () => store.addMessage(key, say("canary")),
        () => store.addMessage(key, say("canary"), 0),
        () => store.setState(key, { more: "canary" }),
        () => store.setTitle(key, "canary"),
        () => store.updateMessage(key, "a", say(`${long}${long}`)),
        () => store.replaceMessagesAfter(key, "b", [say(long), say("canary")]),
        () => store.setMessages(key, [...abc, say(long)]),
        () =>
          store.setMessages(
            key,
            abc.map(({ content }) => say(`more ${content}`)),
          ),
        () => store.forkSession(key, redis.sessionKey({ user: "bob" })),
      ]) {
        const error = await refusal(call());
        // Not what became of it: the attempt that is under way at the end of its time is not known to be refused.
        expect(error).toMatchObject({ code: "BACKEND", retryable: true });
        expect(error.message).toMatch(/maxmemory/);
      }
      expect(await contents(store)).toEqual(abc.map(({ content }) => content));
      await store.deleteMessages(key);
      expect(await contents(store)).toEqual([]);
      await admin.config("SET", "maxmemory", "0");
      await store.addMessage(key, say("two"));
      expect(await contents(store)).toEqual(["two"]);
    });

    const freeing: Record<string, (store: redis.ChatStore) => Promise<unknown>> = {
      deleteMessage: (store) => store.deleteMessage(key, 0),
      deleteLastMessage: (store) => store.deleteLastMessage(key),
      deleteMessagesAfter: (store) => store.deleteMessagesAfter(key, "a"),
      "replaceMessagesAfter with less": (store) =>
        store.replaceMessagesAfter(key, "a", [say("short")]),
      "updateMessage to less": (store) => store.updateMessage(key, "b", say("short")),
      "setMessages to less": (store) => store.setMessages(key, [say("short"), say("shorter")]),
      "setMessages to nothing": (store) => store.setMessages(key, []),
      "setState of nothing": (store) => store.setState(key, { notes: null }),
      "setTitle to nothing": (store) => store.setTitle(key, null),
      deleteMessages: (store) => store.deleteMessages(key),
      deleteSessions: (store) => store.deleteSessions({ tenant: "acme", user: "alice" }),
      purgeExpired: (store) => store.purgeExpired(),
    };

    test.each(Object.entries(freeing))("takes %s, which frees memory", async (_, free) => {
      const { server, store, admin } = await openFull({ ttl: 3_600_000 });
      const before = await store.readSession(key);
      await free(store);
      const after = await store.readSession(key);
      const weight = (found: unknown) => JSON.stringify(found).length;
      expect(weight(after)).toBeLessThanOrEqual(weight(before));
      if (free !== freeing["purgeExpired"]) expect(after).not.toEqual(before);
      expect(after.messages).toHaveLength(after.session?.messageCount ?? 0);
      // By a handle that has not written before, too.
      await admin.config("SET", "maxmemory", "0");
      await store.setMessages(key, abc);
      await store.setState(key, { notes: long });
      await store.setTitle(key, long);
      await admin.config("SET", "maxmemory", "1");
      await free(openStore({ url: server.url, timeout: 500 }));
    });
  });

  test("a server that becomes a replica refuses, and takes messages again as a master", async () => {
    const server = await startRedisServer();
    onTestFinished(() => server.stop());
    const store = openStore({ url: server.url, timeout: 500 });
    await store.addMessage(key, say("one"));
    const admin = beside(server.url);
    await admin.replicaof("127.0.0.1", "1");
    expect(await refusal(store.addMessage(key, say("canary")))).toMatchObject({
      retryable: true,
      outcome: "not-applied",
      message: expect.stringContaining("READONLY"),
    });
    await admin.replicaof("NO", "ONE");
    await store.addMessage(key, say("two"));
    expect(await contents(store)).toEqual(["one", "two"]);
  });
});
