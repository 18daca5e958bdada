import { startProxy, startRedisServer } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import { Redis } from "ioredis";
import { afterAll, expect, test } from "vitest";
import { redisChatStore, sessionKey } from "../src/index.ts";
import { hooksOf } from "./hooks.ts";

await withEngine(startRedisServer, async ({ url }) => {
  const proxy = await startProxy(url);
  const beside = new Redis(url);
  afterAll(async () => {
    beside.disconnect();
    await proxy.stop();
  });
  const prefix = "cost:";
  const hooks = hooksOf([url], proxy);
  const key = sessionKey({ user: "alice", conversation: "long" });
  const say = (id?: string) => ({ id, role: "user", content: "x".repeat(400) }) as const;
  const position = async () =>
    Number(/^aof_current_size:(\d+)/m.exec(await beside.info("persistence"))?.[1]);

  test("what operations cost does not creep up", async () => {
    await using store = redisChatStore({ url: proxy.url, prefix });
    await store.setMessages(
      key,
      Array.from({ length: 2_000 }, (_, n) => say(`m${n}`)),
    );
    /** Round trips, commands and elements that they read (those of scripts included), bytes that are written to the log. */
    const most: Record<string, [() => Promise<unknown>, number, number, number]> = {
      "append one": [() => store.addMessage(key, say()), 1, 8, 1_050],
      "append three": [() => store.addMessages(key, [say(), say(), say()]), 1, 8, 2_200],
      "newest 20": [() => store.getMessages(key, { last: 20 }), 1, 21, 0],
      "page of 20": [() => store.getMessages(key, { before: "m1000", limit: 20 }), 1, 24, 0],
      session: [() => store.getSession(key), 1, 1, 0],
      list: [() => store.listSessions({ user: "alice" }), 2, 5, 0],
    };
    for (const [name, [run, trips, commands, bytes]] of Object.entries(most)) {
      await run(); // which tells the server the script
      const made = await hooks.roundTrips?.(prefix, run);
      expect.soft(made, `${name}: trips`).toBeLessThanOrEqual(trips);
      const done = await hooks.work?.(prefix, run);
      expect.soft(done, `${name}: work`).toBeLessThanOrEqual(commands);
      const before = await position();
      await run();
      const written = (await position()) - before;
      expect.soft(written, `${name}: bytes`).toBeLessThanOrEqual(bytes);
    }
  });
});
