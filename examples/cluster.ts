/**
 * Four processes behind one port. A user's next request may land on any of them, and any of them may die: the endpoint is that
 * of hono.ts as it stands, because it remembers nothing in its process.
 *
 *     npx tsx cluster.ts
 *
 * SQLite serves all processes of one machine. For several machines, change the store's line in hono.ts to
 * `postgresChatStore`, `redisChatStore` or `mongoChatStore`.
 */
import cluster from "node:cluster";

if (cluster.isPrimary) {
  for (let worker = 1; worker <= 4; worker++) cluster.fork();
  // Only who has served is replaced: a worker that cannot even start would be started for ever.
  cluster.on("listening", (worker) => worker.once("exit", () => cluster.fork()));
} else {
  await import("./hono.ts");
}
