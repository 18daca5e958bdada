import type { ConformanceHooks } from "@chatstore/core/conformance";
import { startProxy } from "@chatstore/engines";
import { type Document, MongoClient } from "mongodb";

/** What the suite sees of a server without the store; the store reaches it through the proxy. */
export async function startHooks(url: string): Promise<{
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
      cutConnections: async () => proxy.cutAll(),
      outage: async (_, during) => {
        proxy.blackHole();
        await during();
        proxy.heal();
      },
      roundTrips: async (_, run) => {
        const before = countCommands(await serverStatus());
        await run();
        return countCommands(await serverStatus()) - before;
      },
      // In bytes: documents that were looked at, by their average size.
      work: async (namespace, run) => {
        const before = await serverStatus();
        await run();
        const documents = documentsSeen(await serverStatus()) - documentsSeen(before);
        const stats = await Promise.all(
          ["sessions", "buckets"].map((name) => db.command({ collStats: `${namespace}.${name}` })),
        );
        const sum = (field: string) => stats.reduce((total, one) => total + one[field], 0);
        return (documents * sum("size")) / sum("count");
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

function countCommands({ metrics }: Document): number {
  return counted.reduce((sum, name) => sum + Number(metrics["commands"][name]["total"]), 0);
}

function documentsSeen({ metrics }: Document): number {
  return Number(metrics["queryExecutor"]["scannedObjects"]);
}
