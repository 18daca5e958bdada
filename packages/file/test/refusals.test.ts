/** What the system refuses: too many open files, a missing right. Typed, and nothing half written. */
import { spawnSync } from "node:child_process";
import { chmod, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeEach, expect, test } from "vitest";
import { type ChatStore, fileChatStore, sessionKey } from "../dist/index.js";

const root = await mkdtemp(join(tmpdir(), "chatstore-refusals-"));
afterAll(() => rm(root, { recursive: true }));

const key = sessionKey({ tenant: "acme", user: "alice", conversation: "support" });
let count = 0;
let dir: string;
let path: string;
beforeEach(async () => {
  dir = join(root, `dir${count++}`);
  path = join(dir, "acme", "alice", "support.jsonl");
  await using store = fileChatStore({ dir });
  await store.addMessages(key, [{ role: "user", content: "before" }]);
});

const texts = async (store: ChatStore) =>
  (await store.getMessages(key)).map(({ content }) => content);

/** Run with a store in another process, which prints what it has found out. */
function elsewhere(script: string): unknown {
  const module = new URL("../dist/index.js", import.meta.url).href;
  const { stdout, stderr } = spawnSync(
    process.execPath,
    [
      "--input-type=module",
      "--eval",
      `import { closeSync, openSync } from "node:fs";
      import { fileChatStore } from "${module}";
      const key = ${JSON.stringify(key)};
      const say = (content) => [{ role: "user", content }];
      const store = fileChatStore({ dir: ${JSON.stringify(dir)}, timeout: 300, onWarning: () => {}, onError: () => {} });
      const calls = {
        append: () => store.addMessages(key, say("x")),
        edit: () => store.deleteLastMessage(key),
        replace: () => store.setMessages(key, say("x")),
        title: () => store.setTitle(key, "x"),
        read: () => store.getMessages(key),
        list: () => store.listSessions({ tenant: "acme", user: "alice" }),
        keys: () => store.getKeys(),
        erase: () => store.deleteMessages(key),
        eraseUser: () => store.deleteSessions({ tenant: "acme", user: "alice" }),
        purge: () => store.purgeExpired(),
      };
      const failures = async () => {
        const found = {};
        for (const [name, call] of Object.entries(calls)) {
          found[name] = await call().then(() => "done", ({ code, outcome, message }) => ({ code, outcome, message }));
        }
        return found;
      };
      ${script}`,
    ],
    { encoding: "utf8" },
  );
  expect(stderr).toBe("");
  return JSON.parse(stdout);
}

test("no more open files: every call says so, and all goes on when there are some", async () => {
  const before = await readFile(path);
  const found = elsewhere(`
    await store.getMessages(key);
    const open = [];
    try {
      for (;;) open.push(openSync("/dev/null", "r"));
    } catch {}
    const refused = await failures();
    for (const fd of open) closeSync(fd);
    await store.addMessages(key, say("after"));
    console.log(JSON.stringify(refused));`) as Record<string, unknown>;
  for (const [name, failure] of Object.entries(found)) {
    expect({ name, failure }).toEqual({
      name,
      failure: {
        code: "BACKEND",
        // Tried again until time is over, perhaps in the middle of an attempt.
        outcome: expect.stringMatching(/^(not-applied|unknown)$/),
        message: expect.stringMatching(/too many files open.*E[MN]FILE/),
      },
    });
  }
  expect((await readFile(path)).subarray(0, before.length)).toEqual(before);
  expect(await readdir(dirname(path))).toEqual(["support.jsonl"]);
  await using store = fileChatStore({ dir });
  expect(await texts(store)).toEqual(["before", "after"]);
});

test.skipIf(process.platform === "win32")(
  "a missing right is named, and nothing is changed",
  async () => {
    const before = await readFile(path);
    for (
      let folder = dirname(path);
      folder.length >= tmpdir().length + 2;
      folder = dirname(folder)
    ) {
      await chmod(folder, 0o755);
    }
    // Root may do everything: the child becomes nobody.
    const found = elsewhere(`
    if (process.getuid() === 0) process.setuid(65534);
    console.log(JSON.stringify(await failures()));`) as Record<string, unknown>;
    for (const [name, failure] of Object.entries(found)) {
      expect({ name, failure }).toEqual({
        name,
        failure: {
          code: "BACKEND",
          outcome: "not-applied",
          message: expect.stringContaining("lacks the permission"),
        },
      });
    }
    expect(await readFile(path)).toEqual(before);
  },
);

test("a process that forgot close() ends all the same", () => {
  expect(
    elsewhere(`
    await store.addMessages(key, say("x"));
    await store.getMessages(key);
    console.log(JSON.stringify("done"));`),
  ).toBe("done");
});
