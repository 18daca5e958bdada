import type { ConformanceHooks } from "@chatstore/core/conformance";
import type { TcpProxy } from "@chatstore/engines";
import { Redis } from "ioredis";
import { afterAll } from "vitest";

/** What the suite sees of servers without the store, which reaches them through the proxy if there is one. */
export function hooksOf(urls: readonly string[], proxy?: TcpProxy): ConformanceHooks {
  const clients = urls.map((url) => new Redis(url).on("error", () => {}));
  afterAll(() => {
    for (const client of clients) client.disconnect();
  });
  const stored = async (namespace: string) => {
    const found = clients.map(async (client) =>
      (await client.keys(`${namespace}*`)).map((key) => ({ client, key })),
    );
    return (await Promise.all(found))
      .flat()
      .filter(({ key }) => key === `${namespace}users` || key.startsWith(`${namespace}{`));
  };
  const countCommands = async () => {
    const stats = await Promise.all(clients.map((client) => client.info("commandstats")));
    const calls = stats.join("\n").matchAll(/^cmdstat_(?!info)\S+:calls=(\d+)/gm);
    return [...calls].reduce((sum, [, count]) => sum + Number(count), 0);
  };
  const difference = async (count: () => number | Promise<number>, run: () => Promise<unknown>) => {
    const before = await count();
    await run();
    return (await count()) - before;
  };
  return {
    dump: async (namespace) => {
      const keys = await stored(namespace);
      const contents = keys.map(async ({ client, key }) => [key, await contentOf(client, key)]);
      return JSON.stringify(await Promise.all(contents));
    },
    tamper: async (namespace, search, replacement) => {
      for (const { client, key } of await stored(namespace)) {
        if (!key.endsWith(":messages")) continue;
        for (const [id, value] of Object.entries(await client.hgetall(key))) {
          await client.hset(key, id, value.replaceAll(search, replacement));
        }
      }
    },
    // Commands that scripts call are counted like those of clients, and each reads one message or less.
    work: (_, run) => difference(countCommands, run),
    ...(proxy !== undefined && {
      cutConnections: async () => proxy.cutAll(),
      outage: async (_, during) => {
        proxy.blackHole();
        proxy.cutAll();
        await during();
        proxy.heal();
      },
      roundTrips: (_, run) => difference(() => proxy.roundTrips, run),
    }),
  };
}

async function contentOf(client: Redis, key: string): Promise<unknown> {
  return (await client.type(key)) === "zset"
    ? client.zrange(key, 0, -1, "WITHSCORES")
    : client.hgetall(key);
}
