import type { ConformanceHooks } from "@chatstore/core/conformance";
import { startProxy, type TcpProxy } from "@chatstore/engines";
import { Redis } from "ioredis";

/** What the suite sees of a server without the store; the store reaches it through the proxy. */
export async function startHooks(url: string): Promise<{
  readonly proxy: TcpProxy;
  readonly hooks: ConformanceHooks;
  stop(): Promise<void>;
}> {
  const proxy = await startProxy(url);
  const redis = new Redis(url);
  const keysOf = async (namespace: string) =>
    (await redis.keys(`${namespace}*`)).filter(
      (key) => key === `${namespace}users` || key.startsWith(`${namespace}{`),
    );
  const countCommands = async () => {
    const calls = (await redis.info("commandstats")).matchAll(/^cmdstat_(?!info)\S+:calls=(\d+)/gm);
    return [...calls].reduce((sum, [, count]) => sum + Number(count), 0);
  };
  return {
    proxy,
    hooks: {
      dump: async (namespace) => {
        const keys = await keysOf(namespace);
        return JSON.stringify(await Promise.all(keys.map(async (key) => [key, await dump(key)])));
      },
      tamper: async (namespace, search, replacement) => {
        for (const key of await keysOf(namespace)) {
          if (!key.endsWith(":messages")) continue;
          for (const [id, value] of Object.entries(await redis.hgetall(key))) {
            await redis.hset(key, id, value.replaceAll(search, replacement));
          }
        }
      },
      cutConnections: async () => proxy.cutAll(),
      roundTrips: async (_, run) => {
        const before = proxy.roundTrips;
        await run();
        return proxy.roundTrips - before;
      },
      // Commands that scripts call are counted like those of clients, and each reads one message or less.
      work: async (_, run) => {
        const before = await countCommands();
        await run();
        return (await countCommands()) - before;
      },
    },
    async stop() {
      redis.disconnect();
      await proxy.stop();
    },
  };

  async function dump(key: string): Promise<unknown> {
    const type = await redis.type(key);
    if (type === "zset") return redis.zrange(key, 0, -1, "WITHSCORES");
    return type === "hash" ? redis.hgetall(key) : redis.dump(key);
  }
}
