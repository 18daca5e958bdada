/** A disk that is full: what is stored stays, and can be erased. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type ChatStore, type ChatStoreError, sessionKey, sqliteChatStore } from "../src/index.ts";

const shell = (command: string) => spawnSync("sh", ["-c", command]).status === 0;
const user = (n: number) => ({ tenant: "acme", user: `user${n}` });
const keyOf = (n: number) => sessionKey(user(n));

let disk: string;
let mounted: boolean;
let store: ChatStore;
beforeEach(() => {
  disk = mkdtempSync(join(tmpdir(), "chatstore-sqlite-full-"));
  mounted = shell(`mount -t tmpfs -o size=6m tmpfs "${disk}"`);
  store = sqliteChatStore({ path: join(disk, "chat.db"), onWarning: () => {} });
});
afterEach(async () => {
  await store.close();
  if (mounted) shell(`umount -l "${disk}"`);
  rmSync(disk, { recursive: true, force: true });
});

/** Append until the disk is full, to one session after the other. */
async function fill(): Promise<void> {
  for (let n = 0; ; n++) {
    const message = { role: "user", content: `canary${n % 20} ${"x".repeat(3_000)}` } as const;
    const error = await store.addMessage(keyOf(n % 20), message).then(
      () => undefined,
      (reason: ChatStoreError) => reason,
    );
    if (error === undefined) continue;
    expect(error).toMatchObject({ code: "BACKEND", outcome: "not-applied" });
    expect(error.message).toContain("free some space");
    return;
  }
}

test("whatever is asked for is erased, again and again, and there is room then", async (context) => {
  if (!mounted) return context.skip("needs the right to mount a tmpfs");
  const erasures: readonly (() => Promise<unknown>)[] = [
    () => store.deleteMessages(keyOf(1)),
    () => store.deleteSessions(user(2)),
    () => store.deleteLastMessage(keyOf(3)),
    async () => {
      const [first] = await store.getMessages(keyOf(4), { limit: 1 });
      await store.deleteMessagesAfter(keyOf(4), first?.id ?? "");
    },
  ];
  for (const erase of erasures) {
    await fill();
    await erase();
  }
  expect(await store.getMessages(keyOf(4))).toHaveLength(1);
  await fill();
  for (let n = 0; n < 20; n++) await store.deleteMessages(keyOf(n));
  for (const file of readdirSync(disk)) {
    expect(readFileSync(join(disk, file)).includes("canary"), file).toBe(false);
  }
  await store.addMessage(keyOf(1), { role: "user", content: "hello" });
  expect(await store.getMessages(keyOf(1))).toHaveLength(1);
});
