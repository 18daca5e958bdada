import {
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  rmdir,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { testChatStore } from "@chatstore/core/conformance";
import { afterAll } from "vitest";
import { messageLine, parseLine } from "../src/format.ts";

const root = await mkdtemp(join(tmpdir(), "chatstore-file-"));
afterAll(() => rm(root, { recursive: true }));

testChatStore({
  name: "file",
  module: new URL("../dist/index.js", import.meta.url),
  factory: "fileChatStore",
  options: (namespace) => ({ dir: join(root, namespace) }),
  unreachable: { dir: join(root, "missing", "chats") },
  hooks: { dump, tamper, outage, drop, ...(process.platform === "linux" && { work, connections }) },
  readable: true,
});

/** All names and all contents. */
async function dump(namespace: string): Promise<string> {
  const entries = await filesOf(namespace);
  const texts = entries.map(async (path) => `${path}\n${await readFile(path, "utf8")}`);
  return (await Promise.all(texts)).join("\n");
}

/** Damages lines; what is still JSON gets a checksum, as a newer version would have written it. */
async function tamper(namespace: string, search: string, replacement: string): Promise<void> {
  for (const path of await filesOf(namespace)) {
    const lines = (await readFile(path, "utf8")).split(/(?<=\n)/);
    const changed = lines.map((line) => {
      if (!line.includes(search)) return line;
      const parsed = parseLine(Buffer.from(line));
      const data = parsed?.kind === "message" && parsed.record.data.replace(search, replacement);
      return data && isJson(data)
        ? messageLine({ ...parsed.record, data })
        : line.replace(search, replacement);
    });
    await writeFile(path, changed.join(""));
  }
}

/** A disk that is not mounted for a while. */
async function outage(namespace: string, during: () => Promise<unknown>): Promise<void> {
  const dir = join(root, namespace);
  await rename(dir, `${dir} away`);
  await mkdir(dir);
  try {
    await during();
  } finally {
    await rmdir(dir);
    await rename(`${dir} away`, dir);
  }
}

/** Files of the store that this process has open. */
async function connections(namespace: string): Promise<number> {
  const open = await readdir("/proc/self/fd");
  const targets = await Promise.all(
    open.map((name) => readlink(`/proc/self/fd/${name}`).catch(() => "")),
  );
  return targets.filter((target) => target.startsWith(join(root, namespace, "/"))).length;
}

async function drop(namespace: string): Promise<void> {
  await rm(join(root, namespace), { recursive: true, force: true });
}

/** Bytes that this process reads. */
async function work(_: string, run: () => Promise<unknown>): Promise<number> {
  const read = async () =>
    Number(/rchar: (\d+)/.exec(await readFile("/proc/self/io", "utf8"))?.[1]);
  const before = await read();
  await run();
  return (await read()) - before;
}

async function filesOf(namespace: string): Promise<string[]> {
  const entries = await readdir(join(root, namespace), { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name));
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
