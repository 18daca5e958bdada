import { startPostgresServer, startProxy } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import { afterAll, expect, test } from "vitest";
import { postgresChatStore, sessionKey } from "../src/index.ts";
import { hooksOf, sql } from "./hooks.ts";

// Without whole pages in the log, and without anybody who writes beside us, the bytes of a write are the same each time.
const quiet = { full_page_writes: "off", autovacuum: "off" };

await withEngine(
  () => startPostgresServer(quiet),
  async (engine) => {
    const { url } = engine;
    const proxy = await startProxy(url);
    afterAll(() => proxy.stop());
    const schema = "cost";
    const hooks = hooksOf(engine, proxy);
    const key = sessionKey({ user: "alice", conversation: "long" });
    const say = (id?: string) => ({ id, role: "user", content: "x".repeat(400) }) as const;
    const position = async () => {
      const [row] = await sql<{ bytes: string }>(
        url,
        "SELECT pg_current_wal_insert_lsn() - '0/0' AS bytes",
      );
      return Number(row?.bytes);
    };

    test("what operations cost does not creep up", async () => {
      await using store = postgresChatStore({ url: proxy.url, schema, pool: { max: 1 } });
      await store.setMessages(
        key,
        Array.from({ length: 2_000 }, (_, n) => say(`m${n}`)),
      );
      await sql(url, "VACUUM ANALYZE");
      /** Round trips, rows that are read, bytes of the log that are written. */
      const most: Record<string, [() => Promise<unknown>, number, number, number]> = {
        "append one": [() => store.addMessage(key, say()), 1, 2, 1_200],
        "append three": [() => store.addMessages(key, [say(), say(), say()]), 1, 4, 2_800],
        "newest 20": [() => store.getMessages(key, { last: 20 }), 1, 21, 0],
        "page of 20": [() => store.getMessages(key, { before: "m1000", limit: 20 }), 1, 22, 0],
        session: [() => store.getSession(key), 1, 1, 0],
        list: [() => store.listSessions({ user: "alice" }), 1, 1, 0],
      };
      for (const [name, [run, trips, rows, bytes]] of Object.entries(most)) {
        await run(); // which prepares it
        const made = await hooks.roundTrips?.(schema, run);
        expect.soft(made, `${name}: trips`).toBeLessThanOrEqual(trips);
        const read = await hooks.work?.(schema, run);
        expect.soft(read, `${name}: rows`).toBeLessThanOrEqual(rows);
        const before = await position();
        await run();
        const written = (await position()) - before;
        expect.soft(written, `${name}: bytes`).toBeLessThanOrEqual(bytes);
      }
    });
  },
);
