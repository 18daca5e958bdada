import type { ConformanceHooks } from "@chatstore/core/conformance";
import { type Engine, startProxy } from "@chatstore/engines";
import { type Db, type Document, MongoClient } from "mongodb";

/** What the suite sees of a server without the store; the store reaches it through the proxy. */
export async function startHooks({ url, crash }: Engine): Promise<{
  readonly proxy: Awaited<ReturnType<typeof startProxy>>;
  readonly hooks: ConformanceHooks;
  stop(): Promise<void>;
}> {
  const proxy = await startProxy(url);
  const client = new MongoClient(url);
  const db = client.db("chatstore");
  const collectionsOf = async (namespace: string) =>
    (await db.collections()).filter(({ collectionName }) =>
      collectionName.startsWith(`${namespace}.`),
    );
  const serverStatus = () => db.command({ serverStatus: 1 });
  return {
    proxy,
    hooks: {
      dump: async (namespace) => {
        const collections = await collectionsOf(namespace);
        return JSON.stringify(
          await Promise.all(collections.map((collection) => collection.find().toArray())),
        );
      },
      tamper: async (namespace, search, replacement) => {
        for (const collection of await collectionsOf(namespace)) {
          for (const { _id, messages = [] } of await collection.find().toArray()) {
            const tampered = (messages as Document[]).map((message) => ({
              ...message,
              data: message["data"].replaceAll(search, replacement),
            }));
            await collection.updateOne({ _id }, { $set: { messages: tampered } });
          }
        }
      },
      connections: async () => proxy.connections,
      ...(crash !== undefined && { crash: () => crash() }),
      schema: async (namespace) => {
        const collections = (await collectionsOf(namespace)).toSorted((a, b) =>
          a.collectionName < b.collectionName ? -1 : 1,
        );
        const names = collections.map(async (collection) => [
          collection.collectionName,
          (await collection.indexes()).map(({ name }) => name),
        ]);
        return JSON.stringify(await Promise.all(names));
      },
      newerSchema: async (namespace) => {
        const newer = { $set: { version: 1_000, compatible: 1_000 } };
        for (const collection of await collectionsOf(namespace)) {
          await collection.updateOne({ _id: "schema" as never }, newer);
        }
      },
      drop: async (namespace) => {
        for (const collection of await collectionsOf(namespace)) await collection.drop();
      },
      cutConnections: async () => proxy.cutAll(),
      outage: async (_, during) => {
        proxy.blackHole();
        await during();
        proxy.heal();
      },
      // The driver's watching of the server names no collection.
      loseAnswer: (namespace, nth, run, meanwhile) =>
        proxy.loseReply(nth, run, meanwhile, namespace),
      roundTrips: async (_, run) => {
        const before = countCommands(await serverStatus());
        await run();
        return countCommands(await serverStatus()) - before;
      },
      // In bytes: documents that were looked at, by their average size.
      work: async (namespace, run) => {
        const before = documentsSeen(await statsOf(db, namespace));
        await run();
        const stats = await statsOf(db, namespace);
        const sum = (field: string) => stats.reduce((total, one) => total + one[field], 0);
        return ((documentsSeen(stats) - before) * sum("size")) / sum("count");
      },
    },
    async stop() {
      await client.close();
      await proxy.stop();
    },
  };
}

/** Commands that work on data: each is one round trip. The driver's own watching of the server is none. */
const counted = [
  ...["aggregate", "delete", "distinct", "find", "findAndModify", "getMore", "insert"],
  ...["killCursors", "update"],
];

export function countCommands({ metrics }: Document): number {
  return counted.reduce((sum, name) => sum + Number(metrics["commands"][name]["total"]), 0);
}

/** Statistics of the collections with messages. */
export function statsOf(db: Db, namespace: string): Promise<Document[]> {
  return Promise.all(
    ["sessions", "buckets"].map((name) => db.command({ collStats: `${namespace}.${name}` })),
  );
}

/** By the storage engine, since the server's own count leaves out what a stage like `$unionWith` reads. */
export function documentsSeen(stats: readonly Document[]): number {
  const calls = ["next calls", "prev calls", "search calls", "search near calls"];
  return stats
    .flatMap(({ wiredTiger }) => calls.map((name) => Number(wiredTiger["cursor"][name])))
    .reduce((sum, count) => sum + count, 0);
}
