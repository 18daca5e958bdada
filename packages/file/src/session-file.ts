/** One session's file: scanning it forwards and backwards, appending a batch, writing it anew. */
import { type FileHandle, open, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import {
  CorruptSessionError,
  type MessageRecord,
  TimeoutError,
  UnsupportedFormatError,
  type Version,
} from "@chatstore/core";
import {
  blank,
  type Commit,
  declaredFormat,
  formatVersion,
  type Header,
  type Line,
  parseLine,
  type Region,
} from "./format.js";
import { toFailure, unless } from "./fs-failure.js";
import { syncFolder } from "./store-folder.js";

const lineFeed = 0x0a;
/** More than the longest header needs. */
const headerBytes = 4 * 1024;
/** First step of a backward scan, which doubles it: mostly, the last batch is in it. */
const tailBytes = 16 * 1024;
/** Step of forward scans and copies, and the longest of a backward scan. */
const blockBytes = 1024 * 1024;
/** Looks at a file that changes under the reader's eyes. A writer is quicker once, not so often. */
const maxLooks = 10;

/** A line as it stands in the file, with its line feed. */
interface RawLine {
  readonly at: number;
  readonly bytes: Buffer;
}

/** A message as it stands in the file. */
interface MessageLine extends RawLine {
  readonly record: MessageRecord;
}

/** Where the messages of a session are. Costs one scan, and later only what was appended since. */
export interface SessionIndex {
  /** The last commit that the scan saw. */
  readonly version: Version;
  readonly commit: Region;
  /** Of each message, by its place in the session. */
  readonly offsets: number[];
  readonly digests: string[];
  readonly ordinals: Map<string, number>;
}

/** The indexes of the sessions that a handle used last. */
export class IndexCache {
  readonly #indexes = new Map<string, SessionIndex>();
  readonly #maxMessages: number;
  #messages = 0;

  /** @param maxMessages In all indexes; about 200 bytes each. */
  constructor(maxMessages: number) {
    this.#maxMessages = maxMessages;
  }

  /** Who takes an index may extend it; if that fails it is not put back. */
  take(path: string): SessionIndex | undefined {
    const index = this.#indexes.get(path);
    this.#indexes.delete(path);
    this.#messages -= index?.offsets.length ?? 0;
    return index;
  }

  put(path: string, index: SessionIndex): void {
    this.#indexes.set(path, index);
    this.#messages += index.offsets.length;
    for (const oldest of this.#indexes.keys()) {
      if (this.#messages <= this.#maxMessages || oldest === path) return;
      this.take(oldest);
    }
  }
}

/**
 * Look at a session's file.
 *
 * @param access A reader holds no lock and may meet a writer at work: when the file looks damaged, and has changed
 *   meanwhile, `look` runs again.
 * @param look Gets the file as of its last whole batch; `undefined` when there is none, and so no session.
 * @throws CorruptSessionError, UnsupportedFormatError; TimeoutError with outcome `not-applied` when the signal aborts a
 *   scan.
 */
export async function withSessionFile<T>(
  path: string,
  access: "read" | "write",
  signal: AbortSignal,
  look: (file: SessionFile | undefined) => Promise<T>,
): Promise<T> {
  for (let looks = 1; ; looks++) {
    const handle = await unless(["ENOENT"], open(path, access === "read" ? "r" : "r+"));
    if (handle === undefined) return look(undefined);
    try {
      const before = await handle.stat();
      try {
        return await look(await SessionFile.load(new Source(path, handle, signal), before.size));
      } catch (error) {
        if (access === "write" || !(error instanceof CorruptSessionError)) throw error;
        const now = await unless(["ENOENT"], stat(path));
        const unchanged = (["ino", "size", "mtimeMs"] as const).every(
          (name) => now?.[name] === before[name],
        );
        if (unchanged || looks === maxLooks) throw error;
      }
    } finally {
      await handle.close().catch((error: unknown) => {
        throw toFailure(error, path, "unknown");
      });
    }
  }
}

/** A session's file, open, as of its last whole batch. What is appended later is not seen. */
export class SessionFile {
  readonly header: Header;
  readonly commit: Commit;
  readonly #source: Source;
  /** With what an unfinished write left behind the last batch. */
  readonly #size: number;
  /** Where the last commit line is. */
  readonly #last: Region;

  private constructor(source: Source, size: number, header: Header, last: Region, commit: Commit) {
    this.#source = source;
    this.#size = size;
    this.#last = last;
    this.header = header;
    this.commit = commit;
  }

  static async load(source: Source, size: number): Promise<SessionFile | undefined> {
    const beginning = await source.read(0, Math.min(size, headerBytes));
    const first = beginning.subarray(0, beginning.indexOf(lineFeed) + 1);
    const format = declaredFormat(first);
    if (format !== undefined && format > formatVersion) {
      throw new UnsupportedFormatError(
        `${source.path} has format version ${format}, this @chatstore/file reads up to ${formatVersion}: upgrade it`,
      );
    }
    // A write that was cut short leaves whole lines and one that has no end. Every line that has one must be intact.
    for await (const line of source.linesBackwards(size)) {
      const parsed = parseLine(line.bytes) ?? (await source.refuse(line.at, wrongChecksum));
      if (parsed.kind !== "commit") continue;
      const header = parseLine(first);
      if (header?.kind !== "header") return source.refuse(0, "it is no header");
      const last = [line.at, line.bytes.length] as const;
      return new SessionFile(source, size, header.header, last, parsed.commit);
    }
    return undefined;
  }

  /** Where the next batch begins. */
  get end(): number {
    return endOf(this.#last);
  }

  async title(): Promise<string | null> {
    const { title } = this.commit;
    if (title === null) return null;
    const [line] = await this.#region(title);
    return line?.kind === "title" ? line.title : this.#source.refuse(title[0], "it is no title");
  }

  async state(): Promise<Record<string, string>> {
    const { state } = this.commit;
    if (state === null) return {};
    const entries: [string, string][] = [];
    for (const line of await this.#region(state)) {
      if (line.kind !== "state") return this.#source.refuse(state[0], "it is no state entry");
      entries.push([line.name, line.data]);
    }
    return Object.fromEntries(entries);
  }

  /** The messages between two offsets; all by default. */
  async *messages(from = 0, to = this.end): AsyncGenerator<MessageLine> {
    for await (const block of this.#source.blocks(from, to)) {
      for (const line of linesOf(block)) {
        const parsed = parseLine(line.bytes) ?? (await this.#source.refuse(line.at, wrongChecksum));
        if (parsed.kind === "message")
          yield { at: line.at, bytes: line.bytes, record: parsed.record };
      }
    }
  }

  /** The oldest so many messages, oldest first. */
  async oldest(limit: number): Promise<MessageRecord[]> {
    const records: MessageRecord[] = [];
    if (limit === 0) return records;
    for await (const { record } of this.messages()) {
      if (records.push(record) === limit) return records;
    }
    this.#checkCount(records.length);
    return records;
  }

  /** The newest so many messages, oldest first, at their own cost. */
  async newest(limit: number): Promise<MessageRecord[]> {
    if (limit >= this.commit.messageCount) return this.oldest(limit);
    const records: MessageRecord[] = [];
    if (limit === 0) return records;
    for await (const line of this.#source.linesBackwards(this.#last[0])) {
      const parsed = parseLine(line.bytes) ?? (await this.#source.refuse(line.at, wrongChecksum));
      if (parsed.kind === "message" && records.push(parsed.record) === limit) break;
    }
    return records.reverse();
  }

  /** The messages from one place in the session to before another, at their own cost. */
  async slice(index: SessionIndex, from: number, to: number): Promise<MessageRecord[]> {
    const records: MessageRecord[] = [];
    if (from >= Math.min(to, index.offsets.length)) return records;
    const messages = this.messages(index.offsets[from], index.offsets[to]);
    for await (const { record } of messages) records.push(record);
    return records;
  }

  /** The index of this file. `known` is used up: extended, if the file only grew since. */
  async index(known: SessionIndex | undefined): Promise<SessionIndex> {
    const { version } = this.commit;
    if (known?.version === version) return known;
    const { offsets, digests, ordinals, commit }: Omit<SessionIndex, "version"> =
      known !== undefined && (await this.#grewFrom(known))
        ? known
        : { offsets: [], digests: [], ordinals: new Map(), commit: [0, 0] };
    for await (const { at, record } of this.messages(endOf(commit))) {
      ordinals.set(record.id, offsets.length);
      offsets.push(at);
      digests.push(record.digest);
    }
    this.#checkCount(ordinals.size);
    return { version, commit: this.#last, offsets, digests, ordinals };
  }

  /**
   * Write a batch in one piece behind the last one, and cut off what an unfinished write left there. For the holder of the
   * lock.
   *
   * @throws BackendError, after cutting off what it wrote, if that can be done.
   */
  async append(batch: Buffer, durable: boolean): Promise<void> {
    const { handle, path } = this.#source;
    try {
      if (this.#size > this.end) await handle.truncate(this.end);
      await writeAt(handle, batch, this.end);
      if (durable) await handle.datasync();
    } catch (error) {
      try {
        await handle.truncate(this.end);
        await handle.datasync();
      } catch {
        throw toFailure(error, path, "unknown");
      }
      throw toFailure(error, path, "not-applied");
    }
  }

  /** Overwrite lines with blanks, for good. For the holder of the lock. */
  async erase(regions: readonly Region[]): Promise<void> {
    if (regions.length === 0) return;
    const { handle, path } = this.#source;
    try {
      for (const [offset, length] of regions) await writeAt(handle, blank(length), offset);
      await handle.datasync();
    } catch (error) {
      throw toFailure(error, path, "unknown");
    }
  }

  /** Do what the last writer may not have come to: erase what its batch replaced. For the holder of the lock. */
  async finishErasing(): Promise<void> {
    const { erase } = this.commit;
    for (const region of erase) {
      const bytes = await this.#source.read(...region);
      if (!bytes.equals(blank(bytes.length))) return this.erase(erase);
    }
  }

  /** Set the modification time, by which a user's sessions are listed. */
  async touch(time: number): Promise<void> {
    // Who may write a file but does not own it cannot. Then it keeps the time of the write, which is nearly the same.
    await setTime(this.#source.handle, time).catch(() => undefined);
  }

  /** Whether the file begins with what was scanned then: no version is ever stored twice. */
  async #grewFrom({ version, commit }: SessionIndex): Promise<boolean> {
    if (endOf(commit) > this.end) return false;
    const line = parseLine(await this.#source.read(...commit));
    return line?.kind === "commit" && line.commit.version === version;
  }

  async #region([at, length]: Region): Promise<Line[]> {
    const lines: Line[] = [];
    for (const line of linesOf({ at, bytes: await this.#source.read(at, length) })) {
      lines.push(parseLine(line.bytes) ?? (await this.#source.refuse(line.at, wrongChecksum)));
    }
    return lines;
  }

  #checkCount(found: number): void {
    const { messageCount } = this.commit;
    if (found === messageCount) return;
    throw new CorruptSessionError(
      `${this.#source.path} should hold ${messageCount} messages and holds ${found}: restore it from a backup`,
    );
  }
}

/** Collects the content of a new file, and writes it in large pieces. */
export class SessionWriter {
  /** Bytes so far. */
  offset = 0;
  readonly #handle: FileHandle;
  #pieces: Buffer[] = [];
  #written = 0;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  async write(text: string | Buffer): Promise<void> {
    const bytes = typeof text === "string" ? Buffer.from(text) : text;
    this.#pieces.push(bytes);
    this.offset += bytes.length;
    if (this.offset - this.#written >= blockBytes) await this.flush();
  }

  async flush(): Promise<void> {
    await writeAt(this.#handle, Buffer.concat(this.#pieces), this.#written);
    this.#pieces = [];
    this.#written = this.offset;
  }
}

/**
 * Write a session's file anew, in one step: a temporary file takes its place. For the holder of the lock, who alone may use
 * the temporary name.
 *
 * @param options `durable`: it survives a power failure once this resolves. `time`: its modification time.
 * @throws BackendError, after the temporary file is removed. ENOENT as it comes when the folder is missing.
 */
export async function replaceSessionFile(
  path: string,
  temporary: string,
  options: { readonly durable: boolean; readonly time: number },
  write: (writer: SessionWriter) => Promise<void>,
): Promise<void> {
  const handle = await open(temporary, "w", 0o600);
  try {
    try {
      const writer = new SessionWriter(handle);
      await write(writer);
      await writer.flush();
      await setTime(handle, options.time);
      if (options.durable) await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw toFailure(error, path, "not-applied");
  }
  if (!options.durable) return;
  try {
    await syncFolder(dirname(path));
  } catch (error) {
    throw toFailure(error, path, "unknown");
  }
}

/** @throws TimeoutError with outcome `not-applied`: for use before anything is written. */
export function refuseLate(signal: AbortSignal, path: string): void {
  if (!signal.aborted) return;
  throw new TimeoutError(`Out of time before ${path} was read or changed`, {
    outcome: "not-applied",
  });
}

/** An open file, read in pieces. */
class Source {
  readonly path: string;
  readonly handle: FileHandle;
  readonly #signal: AbortSignal;

  constructor(path: string, handle: FileHandle, signal: AbortSignal) {
    this.path = path;
    this.handle = handle;
    this.#signal = signal;
  }

  async read(offset: number, length: number): Promise<Buffer> {
    refuseLate(this.#signal, this.path);
    const bytes = Buffer.allocUnsafe(length);
    for (let done = 0; done < length; ) {
      const { bytesRead } = await this.handle.read(bytes, done, length - done, offset + done);
      if (bytesRead === 0) throw new CorruptSessionError(`${this.path} has become shorter`);
      done += bytesRead;
    }
    return bytes;
  }

  /** What is between two beginnings of lines, in blocks of whole lines. */
  async *blocks(from: number, to: number): AsyncGenerator<RawLine> {
    let size = blockBytes;
    for (let at = from; at < to; ) {
      const bytes = await this.read(at, Math.min(size, to - at));
      // A last line without an end is damaged, which its checksum will tell.
      const length = at + bytes.length === to ? bytes.length : bytes.lastIndexOf(lineFeed) + 1;
      if (length > 0) yield { at, bytes: bytes.subarray(0, length) };
      // A line that is longer than a block: once more, with a larger one.
      size = length > 0 ? blockBytes : size * 2;
      at += length;
    }
  }

  /** The lines before an offset, the last one first. One that has no end is none. */
  async *linesBackwards(offset: number): AsyncGenerator<RawLine> {
    let start = offset;
    let window: Buffer = Buffer.alloc(0);
    let ended = false;
    for (let step = tailBytes; start > 0; step = Math.min(step * 2, blockBytes)) {
      // At least as much again as a long line has taken so far, so that its bytes are copied a few times at most.
      const length = Math.min(start, Math.max(step, window.length));
      start -= length;
      window = Buffer.concat([await this.read(start, length), window]);
      if (!ended) {
        window = window.subarray(0, window.lastIndexOf(lineFeed) + 1);
        ended = window.length > 0;
      }
      while (window.length > 0) {
        const before = window.subarray(0, -1).lastIndexOf(lineFeed) + 1;
        if (before === 0 && start > 0) break;
        yield { at: start + before, bytes: window.subarray(before) };
        window = window.subarray(0, before);
      }
    }
  }

  /** Say that a line is damaged, by its number. */
  async refuse(offset: number, reason: string): Promise<never> {
    let number = 1;
    for await (const block of this.blocks(0, offset)) {
      for (const _ of linesOf(block)) number++;
    }
    throw new CorruptSessionError(
      `Line ${number} of ${this.path} is damaged (${reason}): restore the file from a backup, or salvage the rest with ` +
        '"npx chatstore doctor --repair"',
    );
  }
}

const wrongChecksum = "its checksum is wrong";

function* linesOf({ at, bytes }: RawLine): Generator<RawLine> {
  for (let start = 0; start < bytes.length; ) {
    const end = bytes.indexOf(lineFeed, start) + 1 || bytes.length;
    yield { at: at + start, bytes: bytes.subarray(start, end) };
    start = end;
  }
}

function endOf([offset, length]: Region): number {
  return offset + length;
}

async function writeAt(handle: FileHandle, bytes: Buffer, offset: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, offset + done);
    done += bytesWritten;
  }
}

async function setTime(handle: FileHandle, time: number): Promise<void> {
  const date = new Date(time); // a number below zero would mean now
  await handle.utimes(date, date);
}
