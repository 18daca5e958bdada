import { spawn } from "node:child_process";
import { once } from "node:events";
import { type Cut, startProxy, startRedisServer } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import { Redis } from "ioredis";
import { describe, expect, onTestFinished, test } from "vitest";
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

  test("a full server refuses new messages, gives back the old ones, and can be emptied", async () => {
    const server = await startRedisServer({ "maxmemory-policy": "noeviction" });
    onTestFinished(() => server.stop());
    const store = openStore({ url: server.url, timeout: 500 });
    await store.addMessage(key, say("one"));
    const admin = beside(server.url);
    await admin.config("SET", "maxmemory", "1");
    const error = await refusal(store.addMessage(key, say("canary".repeat(1_000))));
    expect(error).toMatchObject({ code: "BACKEND", retryable: true, outcome: "not-applied" });
    expect(error.message).toMatch(/maxmemory/);
    expect(await contents(store)).toEqual(["one"]);
    await store.deleteMessages(key);
    expect(await contents(store)).toEqual([]);
    await admin.config("SET", "maxmemory", "0");
    await store.addMessage(key, say("two"));
    expect(await contents(store)).toEqual(["two"]);
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
