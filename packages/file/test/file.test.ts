import { spawn, spawnSync } from "node:child_process";
import type { NoParamCallback } from "node:fs";
import {
  appendFile,
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, describe, expect, onTestFinished, test, vi } from "vitest";
import {
  type BackendError,
  type ChatStore,
  type FileChatStoreOptions,
  fileChatStore,
  openChatStore,
  sessionKey,
} from "../dist/index.js";
import { messageLine } from "../src/format.ts";

/** Counts what has reached the disk. */
const synced = vi.hoisted(() => ({ times: 0 }));
vi.mock("node:fs", async (load) => {
  const fs = await load<typeof import("node:fs")>();
  const fdatasync = (fd: number, callback: NoParamCallback) =>
    fs.fdatasync(fd, (error) => {
      if (error === null) synced.times++;
      callback(error);
    });
  return { ...fs, fdatasync };
});

const root = await mkdtemp(join(tmpdir(), "chatstore-file-"));
afterAll(() => rm(root, { recursive: true }));

let count = 0;
const newDir = () => join(root, `dir${count++}`);
const key = sessionKey({ tenant: "acme", user: "alice", conversation: "support" });
const pathIn = (dir: string) => join(dir, "acme", "alice", "support.jsonl");
const say = (content: string, id?: string) =>
  ({ role: "user", content, ...(id && { id }) }) as const;

function open(options: FileChatStoreOptions): ChatStore {
  const store = fileChatStore({
    onWarning: () => {},
    onError: () => {},
    timeout: 2_000,
    ...options,
  });
  onTestFinished(() => store.close().catch(() => undefined));
  return store;
}

async function texts(store: ChatStore): Promise<unknown[]> {
  return (await store.getMessages(key)).map(({ content }) => content);
}

function shell(command: string): number | null {
  return spawnSync("sh", ["-c", command]).status;
}

/** Of a promise that must reject. */
async function failure(promise: Promise<unknown>): Promise<BackendError> {
  return promise.then(
    () => expect.unreachable("it resolved"),
    (error: BackendError) => error,
  );
}

describe("what a killed writer left at the end", () => {
  const record = {
    id: "torn",
    createdAt: 1,
    digest: "d",
    data: '{"v":1,"role":"user","content":"torn"}',
  };
  const line = messageLine(record);
  test.each([
    ["a part of a line", line.slice(0, 30)],
    ["lines without their commit", line + line],
    ["lines, and a part of one", line + line.slice(0, -1)],
    ["the zeros of a file that grew before a power failure", "\0".repeat(5_000)],
    ["a megabyte of a single line", line.slice(0, -40) + "x".repeat(1_200_000)],
  ])("%s: no reader sees it, the next writer cuts it off", async (_, rest) => {
    const dir = newDir();
    const store = open({ dir });
    await store.addMessages(key, [say("a"), say("b")]);
    const whole = await readFile(pathIn(dir), "utf8");
    await appendFile(pathIn(dir), rest);
    for (const reader of [store, open({ dir })]) {
      expect(await texts(reader)).toEqual(["a", "b"]);
      expect((await reader.getMessages(key, { last: 1 })).length).toBe(1);
      expect((await reader.getSession(key))?.messageCount).toBe(2);
      expect((await reader.listSessions({ tenant: "acme", user: "alice" })).sessions.length).toBe(
        1,
      );
    }
    // A reader must leave it alone: it may be a write in flight.
    expect(await readFile(pathIn(dir), "utf8")).toBe(whole + rest);
    await open({ dir }).addMessages(key, [say("c")]);
    expect(await texts(store)).toEqual(["a", "b", "c"]);
    const content = await readFile(pathIn(dir), "utf8");
    expect(content.startsWith(whole)).toBe(true);
    expect(content).not.toContain("torn");
    expect(content).not.toContain("\0");
  });

  test("an unfinished rewrite is nobody's session, and is swept", async () => {
    const dir = newDir();
    const store = open({ dir });
    await store.addMessages(key, [say("a")]);
    const left = join(dirname(pathIn(dir)), "support.jsonl.tmp");
    const orphan = join(dirname(pathIn(dir)), "begun.jsonl.tmp");
    for (const path of [left, orphan]) await writeFile(path, messageLine(record));
    expect([...(await store.getKeys())]).toEqual([key]);
    expect(await store.purgeExpired()).toBe(0);
    expect(await readdir(dirname(pathIn(dir)))).toEqual(["support.jsonl"]);
    for (const path of [left, orphan]) await writeFile(path, messageLine(record));
    expect(await store.deleteSessions({ tenant: "acme", user: "alice" })).toBe(1);
    expect(await readdir(dir)).toEqual([".chatstore"]);
  });

  test("replaced text that it did not come to erase goes with the next write", async () => {
    const dir = newDir();
    const store = open({ dir });
    await store.setTitle(key, "canary");
    const before = await readFile(pathIn(dir));
    await store.setTitle(key, "new");
    const after = await readFile(pathIn(dir));
    // As it was between the commit and the erasure.
    await writeFile(pathIn(dir), Buffer.concat([before, after.subarray(before.length)]));
    expect((await store.getSession(key))?.title).toBe("new");
    await open({ dir }).addMessages(key, [say("x")]);
    expect(await readFile(pathIn(dir), "utf8")).not.toContain("canary");
    expect((await store.getSession(key))?.title).toBe("new");
  });
});

describe("a damaged file", () => {
  const damages: readonly [string, line: number, change: (line: string) => string][] = [
    ["the header", 1, (line) => line.replace("alice", "alicf")],
    ["a message", 4, (line) => line.replace("two", "TWO")],
    ["a message that is no JSON", 4, (line) => line.replace('"', "")],
    ["the last commit", 7, (line) => line.replace(":3,", ":2,")],
  ];
  test.each(damages)("%s: the error names file and line", async (_, number, change) => {
    const dir = newDir();
    const store = open({ dir });
    await store.addMessages(key, [say("one"), say("two")]);
    await store.addMessages(key, [say("three")]);
    const lines = (await readFile(pathIn(dir), "utf8")).split("\n");
    lines[number - 1] = change(lines[number - 1] ?? "");
    const damaged = lines.join("\n");
    await writeFile(pathIn(dir), damaged);
    for (const call of [
      () => store.getMessages(key),
      () => open({ dir }).getMessages(key),
      () => open({ dir }).addMessages(key, [say("four", "four")]),
      () => open({ dir }).deleteMessage(key, 0),
    ]) {
      const error = await failure(call());
      expect(error).toMatchObject({ code: "CORRUPT_SESSION", retryable: false });
      expect(error.message).toContain(`Line ${number} of ${pathIn(dir)} `);
    }
    expect(await readFile(pathIn(dir), "utf8")).toBe(damaged);
    // It can still be erased.
    await store.deleteMessages(key);
    expect(await texts(store)).toEqual([]);
  });

  test("wherever one byte is wrong, nobody gets other messages, or fewer", async () => {
    const dir = newDir();
    const writer = open({ dir });
    for (const id of ["a", "b"]) await writer.addMessages(key, [say(id, id)]);
    await writer.setTitle(key, "title");
    const bytes = await readFile(pathIn(dir));
    const whole = JSON.stringify(await writer.readSession(key));
    const newest = JSON.stringify(await writer.getMessages(key, { last: 1 }));
    const wrong = [0x00, 0x0a, 0x20, 0x31];
    const reader = open({ dir });
    let refused = 0;
    // A last line without its end is a write that was cut short.
    for (let at = 0; at < bytes.length - 1; at++) {
      const damaged = Buffer.from(bytes);
      damaged[at] = wrong.at((at + Number(damaged[at] === wrong.at(at % 4))) % 4) as number;
      await writeFile(pathIn(dir), damaged);
      const reads = [reader.readSession(key), reader.getMessages(key, { last: 1 })] as const;
      for (const [index, read] of (await Promise.allSettled(reads)).entries()) {
        if (read.status === "fulfilled") {
          expect(JSON.stringify(read.value), `byte ${at}`).toBe([whole, newest][index]);
        } else {
          refused++;
          expect(read.reason.code).toMatch(/^(CORRUPT_SESSION|UNSUPPORTED_FORMAT)$/);
        }
      }
    }
    expect(refused).toBeGreaterThan(bytes.length);
  });

  test("a file under another's name is refused", async () => {
    const dir = newDir();
    const store = open({ dir });
    await store.addMessages(key, [say("hers")]);
    await copyFile(pathIn(dir), join(dirname(pathIn(dir)), "other.jsonl"));
    const other = sessionKey({ tenant: "acme", user: "alice", conversation: "other" });
    const error = await failure(store.getMessages(other));
    expect(error.code).toBe("CORRUPT_SESSION");
    expect(error.message).toContain(`${key}, not ${other}`);
    expect((await failure(store.addMessages(other, [say("x")]))).code).toBe("CORRUPT_SESSION");
  });

  test("one damaged session does not keep others from being purged", async () => {
    const dir = newDir();
    const store = open({ dir, ttl: 1 });
    const other = sessionKey({ tenant: "acme", user: "bob" });
    await store.addMessages(key, [say("x")]);
    await store.addMessages(other, [say("x")]);
    await writeFile(pathIn(dir), "damaged\n");
    await writeFile(`${pathIn(dir)}.tmp`, "left by a dead writer");
    expect(await store.purgeExpired()).toBe(1);
    expect(await readdir(dirname(pathIn(dir)))).toEqual(["support.jsonl"]);
    expect(await readFile(pathIn(dir), "utf8")).toBe("damaged\n");
  });
});

describe("a newer format", () => {
  test("of a file is refused and left alone", async () => {
    const dir = newDir();
    const store = open({ dir });
    await store.addMessages(key, [say("x")]);
    const content = `{"chatstore":2,"what":"ever"}\nbinary\0`;
    await writeFile(pathIn(dir), content);
    for (const call of [() => store.getMessages(key), () => store.addMessages(key, [say("y")])]) {
      expect(await failure(call())).toMatchObject({ code: "UNSUPPORTED_FORMAT" });
    }
    expect((await store.listSessions({})).sessions).toMatchObject([{ key, unreadable: true }]);
    expect(await store.purgeExpired()).toBe(0);
    expect(await readFile(pathIn(dir), "utf8")).toBe(content);
    expect(await store.deleteSessions({ tenant: "acme", user: "alice" })).toBe(1);
  });

  test("of the folder is refused at opening", async () => {
    const dir = newDir();
    await open({ dir }).open();
    await writeFile(join(dir, ".chatstore", "format"), '{"chatstore":2}\n');
    const error = await failure(open({ dir }).open());
    expect(error.code).toBe("UNSUPPORTED_FORMAT");
    expect(error.message).toContain(dir);
  });
});

describe("options", () => {
  test.each([
    [{}, "Give a folder"],
    [{ dir: "" }, "Give a folder"],
    [{ dir: "a\0b" }, "Give a folder"],
    [{ dir: 5 as unknown as string }, "Give a folder"],
    [{ dir: "a", url: "file:b" }, "not both"],
    [{ dir: "file:./chats" }, "give it as `url`"],
    [{ dir: "/" }, "is the root directory"],
    [{ url: "file:///" }, "Write file:./chats"],
    [{ url: "file:/" }, "is the root directory"],
    [{ url: "file:" }, "Write file:./chats"],
    [{ url: "file://chats" }, "Write file:./chats"],
    [{ url: "file://host/chats" }, "Write file:./chats"],
    [{ url: "file://./chats" }, "Write file:./chats"],
    // By the rules of URLs these would be in the root directory.
    [{ url: "file:///./chats" }, "Write file:./chats"],
    [{ url: "file:///../chats" }, "Write file:./chats"],
    [{ url: "file:///%2E/chats" }, "Write file:./chats"],
    [{ url: " file:./chats" }, "Write file:./chats"],
    [{ url: "file:./chats " }, "Write file:./chats"],
    [{ url: "file:./chats\n" }, "Write file:./chats"],
    [{ url: "file:./chats?x=1" }, "Write file:./chats"],
    [{ url: "file:///chats#x" }, "Write file:./chats"],
    [{ url: "file:./%zz" }, "Write file:./chats"],
    [{ url: "file:./a%2fb" }, "Write file:./chats"],
    [{ url: "redis://x" }, "Write file:./chats"],
    [{ url: 5 as unknown as string }, "Write file:./chats"],
    [{ dir: "a", survives: "anything" as "host" }, "survives is anything"],
  ])("%o are refused", (options, reason) => {
    expect(() => fileChatStore(options)).toThrow(
      expect.objectContaining({
        code: "INVALID_OPTIONS",
        message: expect.stringContaining(reason),
      }),
    );
  });

  test("dir and url mean the same folder", async () => {
    const dir = join(root, "an ü? folder");
    await open({ dir }).addMessages(key, [say("x")]);
    const relative = encodeURI(dir).replace("?", "%3F");
    for (const url of [pathToFileURL(dir).href, `file:${relative}`]) {
      expect(await texts(open({ url }))).toEqual(["x"]);
      const store = await openChatStore({
        backend: join(import.meta.dirname, "../dist/index.js"),
        url,
      });
      expect(await texts(store)).toEqual(["x"]);
      await store.close();
    }
  });

  test("declare what a write survives", () => {
    const dir = newDir();
    expect(open({ dir }).capabilities.survives).toBe("host");
    expect(open({ dir, survives: "process" }).capabilities.survives).toBe("process");
  });

  test("migrate: only auto creates, and the parent never", async () => {
    const dir = newDir();
    expect((await failure(open({ dir, migrate: "check" }).open())).code).toBe("SCHEMA");
    const off = open({ dir, migrate: "off" });
    expect((await failure(off.addMessages(key, [say("x")]))).code).toBe("BACKEND");
    expect(await readdir(root)).not.toContain(dir);
    await open({ dir }).open();
    await open({ dir, migrate: "check" }).open();
    await open({ dir, migrate: "off" }).addMessages(key, [say("x")]);

    const error = await failure(open({ dir: join(root, "no", "chats") }).open());
    expect(error).toMatchObject({ code: "BACKEND", retryable: false, outcome: "not-applied" });
    expect(error.message).toContain(`${join(root, "no")} does not exist: create that`);
  });
});

describe("the disk", () => {
  test.each([
    ["host", 1],
    ["process", 0],
  ] as const)(
    "survives: %s syncs each append %i times before it resolves",
    async (survives, syncs) => {
      const store = open({ dir: newDir(), survives });
      await store.addMessages(key, [say("a")]);
      const before = synced.times;
      for (let n = 1; n <= 3; n++) {
        await store.addMessages(key, [say("b")]);
        expect(synced.times - before).toBe(n * syncs);
      }
    },
  );

  test("files and folders are their owner's alone", async () => {
    const dir = newDir();
    await open({ dir }).addMessages(key, [say("x")]);
    for (const name of ["", ...(await readdir(dir, { recursive: true }))]) {
      const stats = await stat(join(dir, name));
      expect((stats.mode & 0o777).toString(8), name).toBe(stats.isDirectory() ? "700" : "600");
    }
  });

  test("a file where a folder should be", async () => {
    const dir = newDir();
    await writeFile(dir, "");
    for (const path of [dir, join(dir, "chats")]) {
      const error = await failure(open({ dir: path }).open());
      expect(error).toMatchObject({ code: "BACKEND", retryable: false, outcome: "not-applied" });
      expect(error.message).toContain(`${path}: a file stands where a folder should be`);
    }
  });

  test("a disk that is not mounted is no empty store, and is named", async () => {
    const dir = newDir();
    const store = open({ dir, timeout: 200 });
    await store.addMessages(key, [say("x")]);
    await rename(dir, `${dir} away`);
    await mkdir(dir);
    for (const call of [
      () => store.getMessages(key),
      () => store.getKeys(),
      () => store.listSessions({ user: "alice" }),
      () => store.addMessages(key, [say("y")]),
      () => store.deleteMessages(key),
    ]) {
      const error = await failure(call());
      expect(error).toMatchObject({ code: "BACKEND", retryable: true });
      expect(error.message).toContain(dir);
      expect(error.message).toContain("was the folder removed, or is its disk not mounted?");
    }
    expect(await readdir(dir)).toEqual([]);
  });

  test("a file that may not grow: the torn batch is cut off, the store goes on", async () => {
    const dir = newDir();
    await open({ dir }).addMessages(key, [say("small")]);
    // 64 KiB for each file of that process.
    const script = `
      import { fileChatStore } from "${new URL("../dist/index.js", import.meta.url).href}";
      const store = fileChatStore({ dir: ${JSON.stringify(dir)}, onWarning: () => {} });
      const outcomes = [];
      for (const size of [1_000, 100_000, 1_000]) {
        const batch = Array.from({ length: 5 }, () => ({ role: "user", content: "x".repeat(size) }));
        const error = await store.addMessages(${JSON.stringify(key)}, batch).then(() => null, (error) => error);
        outcomes.push(error && { ...error, message: error.message, cause: error.cause.code });
      }
      console.log(JSON.stringify(outcomes));`;
    const limited = spawnSync(
      "bash",
      ["-c", 'ulimit -f 64 && exec "$0" --input-type=module --eval "$1"', process.execPath, script],
      { encoding: "utf8" },
    );
    const [first, second, third] = JSON.parse(limited.stdout);
    expect([first, third]).toEqual([null, null]);
    expect(second).toMatchObject({
      code: "BACKEND",
      retryable: false,
      outcome: "not-applied",
      cause: "EFBIG",
      message: expect.stringContaining(`${pathIn(dir)}: `),
    });
    const lengths = (await open({ dir }).getMessages(key)).map(({ content }) => content.length);
    expect(lengths).toEqual([5, ...Array(10).fill(1_000)]);
  });

  const mounted = async (options: string) => {
    const path = newDir();
    await mkdir(path);
    if (shell(`mount -t tmpfs -o ${options} tmpfs "${path}"`) !== 0) return undefined;
    onTestFinished(() => void shell(`umount -l "${path}"`));
    return path;
  };

  test("a full disk: the session stays whole, and grows again when there is room", async (context) => {
    const disk = await mounted("size=256k");
    if (disk === undefined) return context.skip("needs the right to mount a tmpfs");
    const dir = join(disk, "chats");
    const store = open({ dir });
    await store.addMessages(key, [say("a"), say("b")]);
    const before = await readFile(pathIn(dir));
    for (const call of [
      () => store.addMessages(key, [say("c"), say("x".repeat(400_000))]),
      () => store.setMessages(key, [say("x".repeat(400_000))]),
    ]) {
      const error = await failure(call());
      expect(error).toMatchObject({ code: "BACKEND", retryable: false, outcome: "not-applied" });
      expect(error.message).toContain(`${pathIn(dir)}: the disk is full: free some space (ENOSPC)`);
      expect(await readFile(pathIn(dir))).toEqual(before);
      expect(await readdir(dirname(pathIn(dir)))).toEqual(["support.jsonl"]);
    }
    await store.addMessages(key, [say("c")]);
    expect(await texts(store)).toEqual(["a", "b", "c"]);
  });

  test("a read-only disk is refused at opening, by name", async (context) => {
    const disk = await mounted("size=256k");
    if (disk === undefined) return context.skip("needs the right to mount a tmpfs");
    const dir = join(disk, "chats");
    const before = open({ dir });
    await before.addMessages(key, [say("a")]);
    await before.close(); // no disk becomes read-only under an open file
    const remount = (how: string) => shell(`mount -o remount,${how} "${disk}"`);
    expect(remount("ro")).toBe(0);
    for (const path of [dir, join(disk, "new")]) {
      const error = await failure(open({ dir: path }).open());
      expect(error).toMatchObject({ code: "BACKEND", retryable: false, outcome: "not-applied" });
      expect(error.message).toContain(`${path}: the disk is read-only`);
    }
    const store = open({ dir });
    expect(await failure(store.addMessages(key, [say("b")]))).toMatchObject({ code: "BACKEND" });
    expect(remount("rw")).toBe(0);
    await store.addMessages(key, [say("b")]);
    expect(await texts(store)).toEqual(["a", "b"]);
  });

  test("a disk in memory is a warning", async (context) => {
    const disk = await mounted("size=256k");
    if (disk === undefined) return context.skip("needs the right to mount a tmpfs");
    const store = open({ dir: join(disk, "chats") });
    await store.open();
    expect(store.warnings).toEqual([expect.stringContaining("is in memory")]);
  });
});

describe("the file's size", () => {
  test("an append does not write the state again", async () => {
    const dir = newDir();
    const store = open({ dir });
    await store.setState(key, { facts: "x".repeat(200_000) });
    const before = (await stat(pathIn(dir))).size;
    for (let n = 0; n < 20; n++) await store.addMessages(key, [say("hi")]);
    expect((await stat(pathIn(dir))).size - before).toBeLessThan(20 * 600);
  });

  test("state that changes for ever does not make it grow for ever", async () => {
    const dir = newDir();
    const store = open({ dir });
    await store.addMessages(key, [say("a"), say("b")]);
    await store.setTitle(key, "Kittens");
    let largest = 0;
    for (let n = 0; n < 60; n++) {
      await store.setState(key, { facts: `${n} ${"x".repeat(100_000)}` });
      largest = Math.max(largest, (await stat(pathIn(dir))).size);
    }
    expect(largest).toBeLessThan(2_500_000);
    const { session, messages } = await open({ dir }).readSession(key);
    expect(session?.title).toBe("Kittens");
    expect(String(session?.state["facts"])).toMatch(/^59 x+$/);
    expect(messages.map(({ content }) => content)).toEqual(["a", "b"]);
  });
});

test("a reader is not confused by another process that replaces state under its eyes", async () => {
  const dir = newDir();
  const reader = open({ dir });
  await reader.addMessages(key, [say("a")]);
  const script = `
    import { fileChatStore } from "${new URL("../dist/index.js", import.meta.url).href}";
    const store = fileChatStore({ dir: ${JSON.stringify(dir)}, survives: "process", onWarning: () => {} });
    for (let n = 100; n < 900; n++) await store.setState("${key}", { facts: String(n).repeat(20_000) });
    await store.close();`;
  const writer = spawn(process.execPath, ["--input-type=module", "--eval", script]);
  let exitCode: number | null | undefined;
  writer.on("exit", (code) => {
    exitCode = code;
  });
  const seen = new Set<string>();
  while (exitCode === undefined) {
    const { session, messages } = await reader.readSession(key);
    const facts = String(session?.state["facts"] ?? "");
    expect(facts).toBe(facts.slice(0, 3).repeat(20_000));
    expect(messages.length).toBe(1);
    seen.add(facts.slice(0, 3));
  }
  expect(exitCode).toBe(0);
  expect(seen.size).toBeGreaterThan(10);
});

test("a disk that is slow gives the same history, and the event loop its turns", async () => {
  const store = open({ dir: newDir() });
  const told = Array.from({ length: 6_000 }, (_, n) => `${n} ${"x".repeat(400)}`);
  await store.setMessages(
    key,
    told.map((text) => say(text)),
  );
  const read = async () => {
    let turns = 0;
    const counting = setInterval(() => turns++, 0);
    const found = await texts(store).finally(() => clearInterval(counting));
    return { found, turns };
  };
  const quick = await read();
  // Every look at the clock finds it later than a quick read takes.
  const clock = performance.now.bind(performance);
  let late = 0;
  const now = vi.spyOn(performance, "now").mockImplementation(() => clock() + 2 * late++);
  const slow = await read().finally(() => now.mockRestore());
  expect(quick.found).toEqual(told);
  expect(slow.found).toEqual(told);
  expect(Math.min(quick.turns, slow.turns)).toBeGreaterThan(0);
});

test("sessions erased and begun in one folder by many do not get into each other's way", async () => {
  const dir = newDir();
  const stores = Array.from({ length: 4 }, () => open({ dir, timeout: 20_000 }));
  const keyOf = (n: number) => sessionKey({ tenant: "acme", user: "alice", conversation: `${n}` });
  await Promise.all(
    stores.map(async (store, n) => {
      for (let round = 0; round < 25; round++) {
        await store.addMessages(keyOf(n), [say("x")]);
        await store.deleteMessages(keyOf(n));
      }
      await store.addMessages(keyOf(n), [say("last")]);
    }),
  );
  const { sessions } = await open({ dir }).listSessions({ tenant: "acme", user: "alice" });
  expect(sessions.map((session) => session.key).sort()).toEqual([0, 1, 2, 3].map(keyOf));
  expect(sessions.map(({ messageCount }) => messageCount)).toEqual([1, 1, 1, 1]);
});
