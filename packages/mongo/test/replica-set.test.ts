import { setTimeout as delay } from "node:timers/promises";
import { testChatStore } from "@chatstore/core/conformance";
import { startMongoReplicaSet } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import { expect, test } from "vitest";
import { contents, key, openStore, orphans, say } from "./store.ts";

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
