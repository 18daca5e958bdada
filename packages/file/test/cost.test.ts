import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { fileChatStore, sessionKey } from "../src/index.ts";

const dir = await mkdtemp(join(tmpdir(), "chatstore-file-cost-"));
afterAll(() => rm(dir, { recursive: true }));

const key = sessionKey({ user: "alice", conversation: "long" });
const say = (id?: string) => ({ id, role: "user", content: "x".repeat(400) }) as const;

/** Of this process, by the kernel. */
async function bytes(): Promise<{ readonly read: number; readonly written: number }> {
  const io = await readFile("/proc/self/io", "utf8");
  const field = (name: string) => Number(new RegExp(`^${name}: (\\d+)`, "m").exec(io)?.[1]);
  return { read: field("rchar"), written: field("wchar") };
}

test.skipIf(process.platform !== "linux")("what operations cost does not creep up", async () => {
  await using store = fileChatStore({ dir });
  await store.setMessages(
    key,
    Array.from({ length: 2_000 }, (_, n) => say(`m${n}`)),
  );
  const firstPages = async () => {
    const first = await store.getMessages(key, { limit: 20 });
    await store.getMessages(key, { after: first.at(-1)?.id, limit: 20 });
  };
  /** Bytes that are read, bytes that are written. */
  const most: Record<string, [() => Promise<unknown>, number, number]> = {
    "append one": [() => store.addMessage(key, say()), 500, 1_200],
    "append three": [() => store.addMessages(key, [say(), say(), say()]), 500, 2_300],
    "newest 20": [() => store.getMessages(key, { last: 20 }), 16_000, 100],
    // Before anything needs an index, whose scan would be seen here.
    "20 and the next 20": [firstPages, 40_000, 100],
    "page of 20": [() => store.getMessages(key, { before: "m1000", limit: 20 }), 12_000, 100],
    session: [() => store.getSession(key), 500, 100],
    list: [() => store.listSessions({ user: "alice" }), 5_000, 100],
  };
  for (const [name, [run, reads, writes]] of Object.entries(most)) {
    await run();
    // What the test runner tells its parent meanwhile is counted, too, now and then: the least is ours.
    const least = { read: Infinity, written: Infinity };
    for (let time = 0; time < 3; time++) {
      const before = await bytes();
      await run();
      const after = await bytes();
      least.read = Math.min(least.read, after.read - before.read);
      least.written = Math.min(least.written, after.written - before.written);
    }
    expect.soft(least.read, `${name}: read`).toBeLessThanOrEqual(reads);
    expect.soft(least.written, `${name}: written`).toBeLessThanOrEqual(writes);
  }
});
