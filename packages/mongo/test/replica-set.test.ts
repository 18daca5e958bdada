import { setTimeout as delay } from "node:timers/promises";
import { testChatStore } from "@chatstore/core/conformance";
import { startMongoReplicaSet, startProxy } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import { expect, onTestFinished, test } from "vitest";
import { contents, key, openStore, orphans, refusal, say } from "./store.ts";

await withEngine(startMongoReplicaSet, (replicaSet) => {
  const { url } = replicaSet;

  /** Several handles write to one session while something happens. What was acknowledged is there, once and in order. */
  async function writeDuring(collection: string, happening: () => Promise<unknown>) {
    const writers = [0, 1, 2].map(() => openStore({ url, collection, timeout: 30_000 }));
    const acknowledged: string[][] = writers.map(() => []);
    let isDone = false;
    const writing = writers.map(async (store, writer) => {
      for (let n = 0; !isDone; n++) {
        const text = `${writer} ${n}`;
        await store.addMessages(key, [say(text), say(`${text} too`)]);
        acknowledged[writer]?.push(text, `${text} too`);
      }
    });
    await happening();
    isDone = true;
    await Promise.all(writing);
    const all = (await contents(openStore({ url, collection, timeout: 30_000 }))).map(String);
    for (const [writer, texts] of acknowledged.entries()) {
      expect(texts.length).toBeGreaterThan(10);
      expect(all.filter((text) => text.startsWith(`${writer} `))).toEqual(texts);
    }
    expect(all.length).toBe(acknowledged.flat().length);
    expect(await orphans(url, collection)).toEqual([]);
  }

  test("an acknowledged write survives a failover", async () => {
    const store = openStore({ url });
    await store.open();
    expect(store.capabilities.survives).toBe("failover");
  });

  test("a primary that steps down loses and doubles nothing", async () => {
    await writeDuring("stepdown", async () => {
      await delay(500);
      await replicaSet.stepDown();
      await delay(3_000);
    });
  });

  test("a primary that is killed loses and doubles nothing", async () => {
    await writeDuring("killed", async () => {
      await delay(500);
      const primary = await replicaSet.primary();
      await primary.process.kill();
      await delay(4_000);
      await primary.process.start();
      await delay(500);
    });
  });

  testChatStore({
    name: "mongo, replica set",
    module: new URL("../dist/index.js", import.meta.url),
    factory: "mongoChatStore",
    options: (namespace) => ({ url, collection: namespace }),
    guarantees: ["G5", "G6", "G13"],
  });
});

await withEngine(
  () => startMongoReplicaSet(1),
  ({ url, servers }) => {
    test("a single member survives no failover", async () => {
      const store = openStore({ url });
      await store.addMessage(key, say("hello"));
      expect(store.capabilities.survives).toBe("host");
    });

    test("a write that the driver began a second time by itself may have happened the first time", async () => {
      const proxy = await startProxy(String(servers[0]?.url));
      onTestFinished(() => proxy.stop());
      const collection = "again";
      const store = openStore({ url: proxy.url, collection, timeout: 1_000 });
      await store.addMessage(key, say("one"));
      let error: Error | undefined;
      const isLost = await proxy.loseReply(
        1,
        async () => {
          error = await refusal(store.addMessage(key, say("canary")));
        },
        async () => proxy.blackHole(),
        "canary",
      );
      expect(isLost).toBe(true);
      expect(await contents(openStore({ url, collection }))).toEqual(["one", "canary"]);
      expect(error).toMatchObject({ retryable: true, outcome: "unknown" });
    });
  },
);
