import { testChatStore } from "@chatstore/core/conformance";
import { type RedisServer, startRedisCluster, startRedisSentinels } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import { Cluster } from "ioredis";
import { describe, expect, onTestFinished, test } from "vitest";
import * as redis from "../src/index.ts";
import { hooksOf } from "./hooks.ts";
import { contents, key, openStore, refusal, say } from "./store.ts";

/** Write pairs of messages to several sessions until told to end; who could not write goes on trying. */
function writeEverywhere(store: redis.ChatStore, sessions: readonly string[]) {
  const acknowledged: { session: string; id: string }[] = [];
  let isDone = false;
  const writing = sessions.map(async (session) => {
    for (let n = 0; !isDone; n++) {
      const pair = [say("x", `${n}a`), say("x", `${n}b`)];
      await store.addMessages(session, pair).then(
        () => acknowledged.push({ session, id: `${n}a` }, { session, id: `${n}b` }),
        () => undefined,
      );
    }
  });
  return {
    acknowledged,
    async end() {
      isDone = true;
      await Promise.all(writing);
    },
  };
}

/**
 * What was stored is whole, and what was acknowledged is in order; returns what was acknowledged and is not there. (A write that
 * was reported as unknown may have happened at any time.)
 */
async function lostOf(
  store: redis.ChatStore,
  sessions: readonly string[],
  acknowledged: readonly { session: string; id: string }[],
) {
  const lost: { session: string; id: string }[] = [];
  for (const session of sessions) {
    const ids = (await store.getMessages(session)).map(({ id }) => id);
    expect(ids.map((id) => id.slice(-1)).join("")).toMatch(/^(ab)*$/);
    const stored = new Set(ids);
    const expected = acknowledged.filter((one) => one.session === session);
    lost.push(...expected.filter(({ id }) => !stored.has(id)));
    const known = new Set(expected.map(({ id }) => id));
    expect(ids.filter((id) => known.has(id))).toEqual(
      expected.map(({ id }) => id).filter((id) => stored.has(id)),
    );
  }
  return lost;
}

const sessions = Array.from({ length: 12 }, (_, n) => redis.sessionKey({ user: `user${n}` }));

const durable = { appendfsync: "always" };
const startSentinels = () => startRedisSentinels({ config: durable });
const startCluster = () => startRedisCluster(durable);

await withEngine(startSentinels, (set) => {
  const { sentinels, masterName } = set;
  const redisOptions = { sentinels: [...sentinels], name: masterName };

  test("a Sentinel's address is not taken for the server's", async () => {
    const [sentinel] = sentinels;
    const error = await refusal(openStore({ url: `redis://127.0.0.1:${sentinel?.port}` }).open());
    expect(error).toMatchObject({
      retryable: false,
      message: expect.stringContaining("sentinels"),
    });
  });

  test("Sentinel: a failover loses nothing that waited for the replica, and the store follows", async () => {
    const store = openStore({ redis: redisOptions, waitReplicas: 1, timeout: 2_000 });
    await store.open();
    expect(store.capabilities.survives).toBe("failover");
    const writers = writeEverywhere(store, sessions);
    await expect.poll(() => writers.acknowledged.length).toBeGreaterThan(200);
    const port = await set.masterPort();
    await serverAt(set.servers, port).process.kill();
    await expect.poll(() => set.masterPort(), { timeout: 25_000, interval: 200 }).not.toBe(port);

    // Nobody follows the new master, so nothing can be promised; the store says so, and writes without a promise go on.
    await writers.end();
    const error = await refusal(store.addMessage(key, say("canary", "kept")));
    expect(error).toMatchObject({ retryable: true, outcome: "unknown" });
    const modest = openStore({ redis: redisOptions });
    expect(await lostOf(modest, sessions, writers.acknowledged)).toEqual([]);
    expect(await modest.addMessage(key, say("canary", "kept"))).toMatchObject({ messageCount: 1 });

    await serverAt(set.servers, port).process.start();
    await expect
      .poll(() => store.addMessage(key, say("with a replica again")), {
        timeout: 25_000,
        interval: 500,
      })
      .toMatchObject({ messageCount: expect.any(Number) });
  });
});

await withEngine(startCluster, (cluster) => {
  const nodes = [...cluster.nodes];

  testChatStore({
    name: "redis cluster",
    module: new URL("../dist/index.js", import.meta.url),
    factory: "redisChatStore",
    options: (namespace) => ({ cluster: nodes, prefix: namespace }),
    hooks: hooksOf(cluster.servers.slice(0, 3).map(({ url }) => url)),
    // What depends on where a key lives.
    guarantees: ["G8", "G14", "model"],
  });

  describe("Cluster", () => {
    test("a node's address alone is refused with what to write", async () => {
      const error = await refusal(openStore({ url: cluster.url }).open());
      expect(error).toMatchObject({ retryable: false });
      expect(error.message).toContain("cluster: [");
    });

    test("a Cluster client of one's own, with replicas to wait for", async () => {
      const client = new Cluster(nodes);
      onTestFinished(() => client.disconnect());
      const store = openStore({ client, prefix: "own:", waitReplicas: 1 });
      await Promise.all(sessions.map((session) => store.addMessage(session, say("hello"))));
      expect(new Set(await store.getKeys())).toEqual(new Set(sessions));
      await store.setMessages(
        key,
        Array.from({ length: 3_000 }, (_, n) => say(`${n}`)),
      );
      expect(await contents(store)).toHaveLength(3_000);
      await store.close();
      expect(client.status).toBe("ready");
    });

    test("a master that is killed takes with it nothing that waited for its replica", async () => {
      const careful = openStore({ cluster: nodes, prefix: "a:", waitReplicas: 1, timeout: 4_000 });
      const quick = openStore({ cluster: nodes, prefix: "b:", timeout: 4_000 });
      await Promise.all([careful.open(), quick.open()]);
      expect(careful.capabilities.survives).toBe("failover");
      expect(quick.capabilities.survives).toBe("host");
      const writers = [
        writeEverywhere(careful, sessions),
        writeEverywhere(quick, sessions),
      ] as const;
      for (const { acknowledged } of writers) {
        await expect.poll(() => acknowledged.length).toBeGreaterThan(200);
      }
      await cluster.servers[0]?.process.kill();
      // Every session takes messages again: its slot has a new master.
      const later = writers[1].acknowledged.length;
      await expect
        .poll(
          () => new Set(writers[1].acknowledged.slice(later).map(({ session }) => session)).size,
          {
            timeout: 25_000,
            interval: 200,
          },
        )
        .toBe(sessions.length);
      for (const { end } of writers) await end();

      const reader = openStore({ cluster: nodes, prefix: "a:" });
      expect(await lostOf(reader, sessions, writers[0].acknowledged)).toEqual([]);
      // Without waiting, the newest messages may be gone; what is there is whole and in order.
      await lostOf(quick, sessions, writers[1].acknowledged);
      expect(new Set(await quick.getKeys())).toEqual(new Set(sessions));
      await cluster.servers[0]?.process.start();
    });
  });
});

function serverAt(servers: readonly RedisServer[], port: number): RedisServer {
  const server = servers.find((one) => one.port === port);
  if (server === undefined) throw new Error(`no server at ${port}`);
  return server;
}
