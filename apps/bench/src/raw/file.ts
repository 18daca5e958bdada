/**
 * The least that could work with files: a conversation is a file that is held open; a batch is one write at its end,
 * whose last line is the session's row, and one `fdatasync`.
 *
 * - Order: the file's, which a lock keeps between processes, as every engine does: a hard link that one alone can make. Unique
 *   ids: a UUID that was just made is; the ids that were read are in a map. Atomic: a batch without its last line does not count.
 * - Where a message is, for a page next to it, is kept in that map too, with what others have appended since.
 * - Small calls at once, reads and the sync by promises: a server must go on while the disk works.
 * - Left out: who died with the lock, checksums, digests, compare-and-set, expiry, state, title.
 */
import { randomUUID } from "node:crypto";
import { constants, fstatSync, linkSync, unlinkSync, writeFileSync, writeSync } from "node:fs";
import { type FileHandle, mkdir, open as openFile, readdir, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Contestant, Conversation, Filling, Message, Place } from "../contestant.js";
import { encode } from "./encoding.js";

/** A line is longer than its message by so much, about. */
const lineBytes = 640;

interface OpenFile {
  readonly handle: FileHandle;
  readonly lock: string;
  /** As far as it was looked at. */
  size: number;
  count: number;
  /** Where the line of a message begins. */
  readonly places: Map<string, number>;
}

export async function open({ at, namespace }: Place): Promise<Contestant> {
  const folder = join(at, namespace);
  await mkdir(folder, { recursive: true });
  const claim = join(folder, `${randomUUID()}.claim`);
  writeFileSync(claim, "");
  const files = new Map<string, Promise<OpenFile>>();
  const pathOf = ({ user, name }: Conversation) => join(folder, user, `${name}.jsonl`);
  const fileOf = (conversation: Conversation) => {
    const path = pathOf(conversation);
    let file = files.get(path);
    if (file === undefined) {
      file = load(path);
      files.set(path, file);
    }
    return file;
  };
  const write = (file: OpenFile, messages: readonly Message[]) => {
    let lines = "";
    const ids = messages.map(({ id }) => id ?? randomUUID());
    const ends = messages.map((message, index) => {
      const begin = lines.length;
      lines += `{"id":"${ids[index]}","created":${Date.now()},"data":${encode(message)}}\n`;
      return begin;
    });
    file.count += messages.length;
    lines += `{"version":"${randomUUID()}","count":${file.count},"updated":${Date.now()}}\n`;
    const bytes = Buffer.from(lines);
    const begin = file.size;
    file.size += bytes.length;
    // The texts are ASCII, so that a place in the string is one in the file.
    for (const [index, id] of ids.entries()) file.places.set(id, begin + (ends[index] as number));
    writeSync(file.handle.fd, bytes, 0, bytes.length, begin);
  };
  const before = async (file: OpenFile, end: number, count: number) => {
    for (let length = (count + 1) * lineBytes; ; length *= 2) {
      const begin = Math.max(0, end - length);
      const bytes = Buffer.allocUnsafe(end - begin);
      await file.handle.read(bytes, 0, bytes.length, begin);
      const lines = bytes.toString().split("\n");
      if (begin > 0) lines.shift();
      const found: Message[] = [];
      for (let index = lines.length - 1; index >= 0 && found.length < count; index--) {
        const line = lines[index] as string;
        if (isMessage(line)) found.push(decodeLine(line));
      }
      if (found.length === count || begin === 0) return found.reverse();
    }
  };
  return {
    durability: { survives: "host", settings: "fdatasync of each batch" },
    async fill(fillings: Iterable<Filling>) {
      for (const [conversation, messages] of fillings) {
        const file = await load(pathOf(conversation));
        await catchUp(file);
        write(file, messages);
        await file.handle.close();
      }
    },
    async append(conversation, messages) {
      const file = await fileOf(conversation);
      while (!isFirst(claim, file.lock)) await delay(1);
      try {
        if (hasGrown(file)) await catchUp(file);
        write(file, messages);
        await file.handle.datasync();
      } finally {
        unlinkSync(file.lock);
      }
    },
    async all(conversation) {
      const { handle } = await fileOf(conversation);
      const bytes = Buffer.allocUnsafe(fstatSync(handle.fd).size);
      await handle.read(bytes, 0, bytes.length, 0);
      return bytes.toString().split("\n").filter(isMessage).map(decodeLine);
    },
    async newest(conversation, count) {
      const file = await fileOf(conversation);
      return before(file, fstatSync(file.handle.fd).size, count);
    },
    async page(conversation, { id }, count) {
      const file = await fileOf(conversation);
      if (hasGrown(file)) await catchUp(file);
      return before(file, file.places.get(id) as number, count);
    },
    async list(user, count) {
      const names = await readdir(join(folder, user));
      const conversations = names.filter((name) => name.endsWith(".jsonl"));
      const sessions = conversations.map(async (name) => {
        const path = join(folder, user, name);
        const handle = await openFile(path);
        const { size } = await handle.stat();
        const tail = Buffer.alloc(Math.min(size, 200));
        await handle.read(tail, 0, tail.length, size - tail.length);
        await handle.close();
        const row = JSON.parse(tail.toString().trimEnd().split("\n").at(-1) as string);
        return { name: name.replace(/\.jsonl$/, ""), updated: row.updated as number };
      });
      const found = (await Promise.all(sessions)).sort((a, b) => b.updated - a.updated);
      return found.slice(0, count).map(({ name }) => name);
    },
    async close() {
      for (const file of files.values()) await (await file).handle.close();
      unlinkSync(claim);
    },
  };
}

async function load(path: string): Promise<OpenFile> {
  await mkdir(dirname(path), { recursive: true });
  // Whoever comes first makes it, and nobody empties it.
  const handle = await openFile(path, constants.O_RDWR | constants.O_CREAT);
  return { handle, lock: `${path}.lock`, size: 0, count: 0, places: new Map() };
}

function hasGrown({ handle, size }: OpenFile): boolean {
  return fstatSync(handle.fd).size > size;
}

/** Look at what was appended since. Not while somebody appends: the last line could be half there. */
async function catchUp(file: OpenFile): Promise<void> {
  const bytes = Buffer.allocUnsafe(fstatSync(file.handle.fd).size - file.size);
  await file.handle.read(bytes, 0, bytes.length, file.size);
  for (const line of bytes.toString().split("\n").slice(0, -1)) {
    if (isMessage(line)) {
      file.places.set(JSON.parse(line).id, file.size);
      file.count++;
    }
    file.size += Buffer.byteLength(line) + 1;
  }
}

function isFirst(claim: string, lock: string): boolean {
  try {
    linkSync(claim, lock);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

function isMessage(line: string): boolean {
  return line.startsWith('{"id"');
}

function decodeLine(line: string): Message {
  const { id, data } = JSON.parse(line);
  data.id = id;
  return data;
}

/** Bytes of all files. */
export async function bytes({ at, namespace }: Place): Promise<number> {
  const folder = join(at, namespace);
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile());
  const sizes = files.map(
    async ({ parentPath, name }) => (await stat(join(parentPath, name))).size,
  );
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
}
