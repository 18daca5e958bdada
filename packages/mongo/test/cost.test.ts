import { randomBytes } from "node:crypto";
import { startMongoServer } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import type { Document } from "mongodb";
import { expect, test } from "vitest";
import { sessionKey } from "../src/index.ts";
import { countCommands, documentsSeen, statsOf } from "./hooks.ts";
import { beside, openStore } from "./store.ts";

/** Text that hardly compresses. */
const say = (id?: string) =>
  ({ id, role: "user", content: randomBytes(300).toString("base64") }) as const;

/** Of the journal. */
const bytesWritten = ({ wiredTiger }: Document) => Number(wiredTiger["log"]["log bytes written"]);

await withEngine(startMongoServer, ({ url }) => {
  test.each([200, 20_000])("what operations cost does not creep up: %i messages", async (count) => {
    const db = beside(url).db("chatstore");
    const collection = `cost${count}`;
    const look = async () => {
      const status = await db.command({ serverStatus: 1 });
      const documents = documentsSeen(await statsOf(db, collection));
      return { commands: countCommands(status), documents, bytes: bytesWritten(status) };
    };
    const store = openStore({ url, collection });
    const key = sessionKey({ user: "alice", conversation: "long" });
    await store.setMessages(
      key,
      Array.from({ length: count }, (_, n) => say(`m${n}`)),
    );
    const middle = `m${count / 2}`;
    /** Commands, documents that are read (one that changes, twice), bytes of the journal that are written. */
    const most: Record<string, [() => Promise<unknown>, number, number, number]> = {
      "64 appends, which seal twice": [
        async () => {
          for (let n = 0; n < 64; n++) await store.addMessage(key, say());
        },
        64 + 2 * 3,
        64 * 2 + 2 * 4,
        64 * 32_000,
      ],
      "append one": [() => store.addMessage(key, say()), 1, 2, 32_000],
      "append three": [() => store.addMessages(key, [say(), say(), say()]), 1, 2, 32_000],
      "append one's own id": [() => store.addMessage(key, say("own")), 2, 3, 32_000],
      "newest 20": [() => store.getMessages(key, { last: 20 }), 1, 1, 0],
      "newest 50": [() => store.getMessages(key, { last: 50 }), 1, 2, 0],
      "page before": [() => store.getMessages(key, { before: middle, limit: 20 }), 1, 3, 0],
      "page after": [() => store.getMessages(key, { after: middle, limit: 20 }), 1, 3, 0],
      "what is new": [() => store.getMessages(key, { after: "own" }), 1, 1, 0],
      session: [() => store.getSession(key), 1, 1, 0],
      list: [() => store.listSessions({ user: "alice" }), 1, 2, 0],
    };
    for (const [name, [run, commands, documents, bytes]] of Object.entries(most)) {
      const bounds = { commands, documents, bytes };
      const before = await look();
      await run();
      const after = await look();
      for (const unit of ["commands", "documents", "bytes"] as const) {
        const cost = after[unit] - before[unit];
        expect.soft(cost, `${name}: ${unit}`).toBeLessThanOrEqual(bounds[unit]);
      }
    }
  });
});
