import { randomUUID } from "node:crypto";
import type { ConformanceHooks } from "@chatstore/core/conformance";
import type { TcpProxy } from "@chatstore/engines";
import { Redis } from "ioredis";
import { afterAll, expect } from "vitest";

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
  return {
    dump: async (namespace) => {
      const keys = await stored(namespace);
      const contents = keys.map(async ({ client, key }) => [key, await contentOf(client, key)]);
      return JSON.stringify(await Promise.all(contents));
    },
    tamper: async (namespace, search, replacement) => {
      for (const { client, key } of await stored(namespace)) {
        if (!key.endsWith(":messages")) continue;
        for (const [index, message] of (await client.lrange(key, 0, -1)).entries()) {
          if (!message.includes(search)) continue;
          await client.lset(key, index, message.replaceAll(search, replacement));
        }
      }
    },
    drop: async (namespace) => {
      for (const { client, key } of await stored(namespace)) await client.unlink(key);
    },
    // Each command, and each element that it reads; those that scripts call included.
    work: async (_, run) => {
      const costs = await Promise.all(clients.map((client) => watch(client)));
      await run();
      return (await Promise.all(costs.map((cost) => cost()))).reduce((sum, cost) => sum + cost, 0);
    },
    ...(proxy !== undefined && {
      connections: async () => proxy.connections,
      cutConnections: async () => proxy.cutAll(),
      outage: async (_, during) => {
        proxy.blackHole();
        proxy.cutAll();
        await during();
        proxy.heal();
      },
      loseAnswer: (namespace, nth, run, meanwhile) =>
        proxy.loseReply(nth, run, meanwhile, namespace),
      roundTrips: async (_, run) => {
        const before = proxy.roundTrips;
        await run();
        return proxy.roundTrips - before;
      },
    }),
  };
}

async function contentOf(client: Redis, key: string): Promise<unknown> {
  switch (await client.type(key)) {
    case "list":
      return client.lrange(key, 0, -1);
    case "zset":
      return client.zrange(key, 0, -1, "WITHSCORES");
    default:
      return client.hgetall(key);
  }
}

const reading = /^([lz]range|zrangebyscore|hmget|hgetall)$/i;

/** Watch a server. Returns what tells how much it was made to do since. */
async function watch(client: Redis): Promise<() => Promise<number>> {
  const monitor = await client.monitor();
  const commands: string[][] = [];
  monitor.on("monitor", (_, command: string[]) => commands.push(command));
  return async () => {
    const last = randomUUID();
    await client.echo(last);
    await expect.poll(() => commands.at(-1)?.[1]).toBe(last);
    monitor.disconnect();
    let cost = 0;
    for (const [name = "", ...args] of commands.slice(0, -1)) {
      // How much it has read is found by asking again.
      cost += reading.test(name) ? ((await client.call(name, args)) as unknown[]).length : 1;
    }
    return cost;
  };
}
