/** Files that were cut, damaged, copied or made unreadable behind the store's back, in every method. */
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { type ChatStore, type ChatStoreError, fileChatStore, sessionKey } from "../dist/index.js";

const root = await mkdtemp(join(tmpdir(), "chatstore-damage-"));
afterAll(() => rm(root, { recursive: true }));

const key = sessionKey({ tenant: "acme", user: "alice", conversation: "support" });
const other = sessionKey({ tenant: "acme", user: "alice", conversation: "other" });
const copy = sessionKey({ tenant: "acme", user: "alice", conversation: "copy" });
const say = (id: string) => ({ id, role: "user", content: id }) as const;

let count = 0;
let dir: string;
let path: string;
let store: ChatStore;
beforeEach(async () => {
  dir = join(root, `dir${count++}`);
  path = join(dir, "acme", "alice", "support.jsonl");
  store = open();
  await store.addMessages(other, [say("other")]);
});

function open(): ChatStore {
  const opened = fileChatStore({ dir, survives: "process", onError: () => {} });
  onTestFinished(() => opened.close().catch(() => undefined));
  return opened;
}

const idsOf = (messages: readonly { readonly id: string }[]) => messages.map(({ id }) => id);

/** What a call did: its result, or that the session is damaged. Everything else fails the test. */
async function unlessCorrupt<T>(call: Promise<T>): Promise<T | "corrupt"> {
  return call.catch((error: ChatStoreError) => {
    if (error.code !== "CORRUPT_SESSION") throw error;
    expect(error.message).toContain(path);
    return "corrupt";
  });
}

/**
 * The ids of the messages that a file still holds, by its text alone: whole lines that a commit follows. In a batch that a
 * rewritten file begins with, a commit in front is enough.
 */
function heldBy(text: string): string[] | "corrupt" {
  const lines = text
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line.trim() || "{}"));
  const last = lines.findLastIndex((line) => "commit" in line);
  const counting = lines[last]?.of === undefined ? lines.slice(0, Math.max(last, 0)) : lines;
  const ids = counting.filter((line) => "id" in line).map(({ id }) => id);
  return ids.length === 0 ? "corrupt" : ids;
}

const sessions: readonly [string, write: () => Promise<unknown>][] = [
  [
    "a session that only grew",
    async () => {
      await store.addMessages(key, [say("a"), say("b")]);
      await store.setTitle(key, "Kittens");
      await store.addMessages(key, [say("c")]);
    },
  ],
  [
    "a session that was edited",
    async () => {
      for (const id of ["a", "b", "c"]) await store.addMessages(key, [say(id)]);
      await store.setState(key, { facts: ["likes kittens"] });
      await store.updateMessage(key, "b", { role: "user", content: "edited" });
    },
  ],
  [
    "one that grew since",
    async () => {
      await store.setMessages(key, [say("a"), say("b")]);
      await store.addMessages(key, [say("c")]);
    },
  ],
];

describe.each(sessions)("%s, cut anywhere,", (_, write) => {
  let whole: Buffer;
  beforeEach(async () => {
    await write();
    whole = await readFile(path);
  });
  /** For each length that is left. Writes sync: within a line, some lengths stand for all. */
  async function* cuts(which: "all" | "some" = "all") {
    for (let length = 0; length < whole.length; length++) {
      const isNearLineEnd = whole.subarray(length - 2, length + 2).includes("\n");
      if (which === "some" && length % 9 > 0 && !isNearLineEnd) continue;
      const left = whole.subarray(0, length);
      await writeFile(path, left);
      yield { left, held: heldBy(left.toString()), about: `${length} of ${whole.length} bytes` };
    }
  }

  test("gives what it holds to every reader, or says that it is damaged", async () => {
    let corrupt = 0;
    for await (const { left, held, about } of cuts()) {
      const found = await unlessCorrupt(store.readSession(key));
      expect(found === "corrupt" ? found : idsOf(found.messages), about).toEqual(held);
      if (found === "corrupt") corrupt++;
      else expect(found.session?.messageCount, about).toBe(held.length);
      const newest = await unlessCorrupt(store.getMessages(key, { last: 1 }));
      expect(newest === "corrupt" ? newest : idsOf(newest), about).toEqual(
        held === "corrupt" ? held : held.slice(-1),
      );
      const after = held !== "corrupt" && (await store.getMessages(key, { after: held[0] ?? "" }));
      if (after) expect(idsOf(after), about).toEqual(held.slice(1));
      const { sessions } = await store.listSessions({ tenant: "acme", user: "alice" });
      expect(
        sessions.map((one) => [one.key, one.unreadable ?? one.messageCount]).sort(),
        about,
      ).toEqual([
        [other, 1],
        [key, held === "corrupt" ? true : held.length],
      ]);
      expect([...(await store.getKeys())].sort(), about).toEqual([other, key]);
      expect(await store.purgeExpired()).toBe(0);
      expect((await readFile(path)).equals(left), about).toBe(true);
    }
    expect(corrupt).toBeGreaterThan(0);
    expect(corrupt).toBeLessThan(whole.length * 0.7);
  });

  const writes: Record<
    string,
    { write: () => Promise<unknown>; after: (held: string[]) => string[] }
  > = {
    addMessages: {
      write: () => store.addMessages(key, [say("new")]),
      after: (held) => [...held, "new"],
    },
    setTitle: { write: () => store.setTitle(key, "Cats"), after: (held) => held },
    updateMessage: {
      write: () => store.updateMessage(key, "a", { role: "user", content: "!" }),
      after: (held) => held,
    },
    deleteLastMessage: {
      write: () => store.deleteLastMessage(key),
      after: (held) => held.slice(0, -1),
    },
    setMessages: { write: () => store.setMessages(key, [say("new")]), after: () => ["new"] },
  };
  test.each(Object.keys(writes))("%s keeps what it holds, or leaves it alone", async (name) => {
    const { write, after } = writes[name] as (typeof writes)[string];
    for await (const { left, held, about } of cuts("some")) {
      const before = await store.getSession(key).catch(() => undefined);
      const result = await unlessCorrupt(write());
      expect(result === "corrupt", about).toBe(held === "corrupt");
      if (held === "corrupt") expect((await readFile(path)).equals(left), about).toBe(true);
      else {
        const { session, messages } = await store.readSession(key);
        expect(idsOf(messages), about).toEqual(after(held));
        expect(session?.state, about).toEqual(before?.state);
        expect(session?.title, about).toBe(name === "setTitle" ? "Cats" : before?.title);
      }
    }
  });

  test("can be copied as far as it can be read, and erased", async () => {
    for await (const { held, about } of cuts("some")) {
      const forked = await unlessCorrupt(store.forkSession(key, copy));
      expect(forked === "corrupt", about).toBe(held === "corrupt");
      if (held !== "corrupt") expect(idsOf(await store.getMessages(copy)), about).toEqual(held);
      await store.deleteMessages(copy);
      await store.deleteMessages(key);
      expect(await store.getMessages(key), about).toEqual([]);
      expect(await readdir(dirname(path)), about).toEqual(["other.jsonl"]);
    }
    await writeFile(path, whole.subarray(0, 10));
    expect(await store.deleteSessions({ tenant: "acme", user: "alice" })).toBe(2);
    expect(await readdir(dir)).toEqual([".chatstore"]);
  });

  test("is another version, so that nobody takes it for the whole", async () => {
    const versions = new Map<string, string>();
    for await (const { held, about } of cuts()) {
      const session = await store.getSession(key).catch(() => undefined);
      if (session === undefined) continue;
      const content = versions.get(session.version) ?? String(held);
      expect(content, about).toBe(String(held));
      versions.set(session.version, content);
    }
    expect(versions.size).toBeGreaterThan(1);
  });
});

test("a long history that was edited loses no more than its end", async () => {
  const ids = Array.from({ length: 2_000 }, (_, n) => `m${n}`);
  await store.setMessages(key, ids.map(say));
  await store.deleteMessage(key, 0);
  const whole = await readFile(path);
  for (const lost of [300, 100_000, 200_000]) {
    await writeFile(path, whole.subarray(0, -lost));
    const held = heldBy((await readFile(path)).toString());
    expect(idsOf(await open().getMessages(key))).toEqual(held);
    expect(idsOf(await open().getMessages(key, { last: 3 }))).toEqual(held.slice(-3));
    await open().addMessages(key, [say("new")]);
    expect(idsOf(await open().getMessages(key))).toEqual([...held, "new"]);
  }
});

describe("one that nobody can read does not keep the others from being listed", () => {
  const damages: readonly [string, damage: () => Promise<unknown>][] = [
    ["an empty file", () => writeFile(path, "")],
    ["another file", () => writeFile(path, "Dear diary\n")],
    [
      "a damaged title",
      async () => {
        await store.setTitle(key, "Kittens");
        await writeFile(path, (await readFile(path, "utf8")).replace("Kittens", "Mittens"));
      },
    ],
    ["a newer format", () => writeFile(path, '{"chatstore":9}\n')],
    [
      "a folder",
      async () => {
        await rm(path);
        await mkdir(path);
      },
    ],
    ["another session's file", () => copyFile(join(dirname(path), "other.jsonl"), path)],
  ];
  test.each(damages)("%s", async (_, damage) => {
    await store.addMessages(key, [say("a")]);
    await damage();
    for (const query of [{ tenant: "acme", user: "alice" }, { tenant: "acme" }, {}]) {
      const { sessions } = await store.listSessions(query);
      expect(sessions.map((one) => [one.key, one.unreadable ?? one.messageCount]).sort()).toEqual([
        [other, 1],
        [key, true],
      ]);
    }
    await expect(store.getMessages(key)).rejects.toMatchObject({
      code: expect.stringMatching(/^(CORRUPT_SESSION|UNSUPPORTED_FORMAT|BACKEND)$/),
      message: expect.stringContaining(path),
    });
  });

  test("what is no session's file is not listed", async () => {
    await copyFile(join(dirname(path), "other.jsonl"), join(dirname(path), "other copy.jsonl"));
    await writeFile(join(dirname(path), "Notes.jsonl"), "mine\n");
    expect([...(await store.getKeys())]).toEqual([other]);
  });
});
