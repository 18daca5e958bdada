/** One session's file: scanning it forwards and backwards, appending a batch, writing it anew. */
import type { Stats } from "node:fs";
import { rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import {
  CorruptSessionError,
  type MessageRecord,
  UnsupportedFormatError,
  type Version,
} from "@chatstore/core";
import {
  type BatchEnd,
  Block,
  type BlockLine,
  blank,
  type Commit,
  declaredFormat,
  extended,
  formatVersion,
  type Header,
  type Line,
  parseLine,
  type Region,
} from "./format.js";
import { toFailure, unless } from "./fs-failure.js";
import { largeBytes, lineFeed, OpenFile } from "./open-file.js";
import { syncFolder } from "./store-folder.js";

/** More than the longest header needs. */
const headerBytes = 2 * 1024;
/** First step of the search for the last commit: mostly, the last batch is in it. */
const tailBytes = 2 * 1024;
/** Looks at a file that changes under the reader's eyes. A writer is quicker once, not so often. */
const maxLooks = 10;

/** Messages that were read together, and where they stand in their block. */
interface MessageBlock {
  readonly block: Block;
  readonly messages: readonly BlockLine[];
}

/** The end of a file as of a batch. A file that still ends with this very line is unchanged: no version is ever stored twice. */
export interface Tail {
  readonly header: Header;
  readonly commit: Commit;
  /** Where the commit line is. */
  readonly last: Region;
  readonly line: string;
  /** Behind the last message line: where the commit line begins, or, in a file that lost its end, behind it. */
  readonly messagesEnd: number;
}

/** A file as it was once: as long as it only grows, what is known of it holds. */
interface Known {
  /** Of the last commit then. */
  readonly version: Version;
  readonly commit: Region;
}

/** Where a page ended, for who reads on from there: all of a session can be read page by page without an index. */
export interface PageEnd extends Known {
  readonly id: string;
  readonly offset: number;
}

/** Where the messages of a session are. Costs one scan, and later only what was appended since. */
export interface SessionIndex extends Known {
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
 * @param at Where it is, and how it ended when somebody last looked, which is kept up to date.
 * @param access A reader holds no lock and may meet a writer at work: when the file looks damaged, and has changed
 *   meanwhile, `look` runs again.
 * @param look Gets the file as of its last whole batch; `undefined` when there is none.
 * @throws CorruptSessionError, UnsupportedFormatError; TimeoutError with outcome `not-applied` when the signal aborts a
 *   scan.
 */
export async function withSessionFile<T>(
  at: { readonly path: string; tail?: Tail | undefined },
  access: "read" | "write",
  signal: AbortSignal,
  look: (file: SessionFile | undefined) => Promise<T>,
): Promise<T> {
  const { path } = at;
  for (let looks = 1; ; looks++) {
    const file = OpenFile.ifPresent(path, access === "read" ? "r" : "r+", signal);
    if (file === undefined) return look(undefined);
    try {
      let before: Stats | undefined;
      try {
        let found = at.tail && SessionFile.confirm(file, at.tail);
        if (found === undefined) {
          before = file.stats();
          found = await SessionFile.load(file, before.size);
          at.tail = found.tail;
        }
        return await look(found);
      } catch (error) {
        if (access === "write" || !(error instanceof CorruptSessionError)) throw error;
        at.tail = undefined;
        const now = await unless(["ENOENT"], () => stat(path));
        const unchanged = (["ino", "size", "mtimeMs"] as const).every(
          (name) => before !== undefined && now?.[name] === before[name],
        );
        if (unchanged || looks === maxLooks) throw error;
      }
    } finally {
      file.close();
    }
  }
}

/** A session's file, open, as of its last whole batch. What is appended later is not seen. */
export class SessionFile {
  readonly tail: Tail;
  readonly #file: OpenFile;
  /** With what an unfinished write left behind the last batch. */
  readonly #size: number;

  private constructor(file: OpenFile, size: number, tail: Tail) {
    this.#file = file;
    this.#size = size;
    this.tail = tail;
  }

  /** The file, if it still ends so. */
  static confirm(file: OpenFile, tail: Tail): SessionFile | undefined {
    const [at, length] = tail.last;
    // With room for one byte that should not be there.
    const found = file.readNow(at, length + 1).toString("latin1");
    return found === tail.line && tail.commit.of === null
      ? new SessionFile(file, endOf(tail.last), tail)
      : undefined;
  }

  static async load(file: OpenFile, size: number): Promise<SessionFile> {
    const beginning = await file.read(0, Math.min(size, headerBytes));
    const bytes = beginning.subarray(0, beginning.indexOf(lineFeed) + 1);
    const first = parseLine(bytes);
    const format = first?.kind === "header" ? first.header.format : declaredFormat(bytes);
    if (format !== undefined && format > formatVersion) {
      throw new UnsupportedFormatError(
        `${file.path} has format version ${format}, this @chatstore/file reads up to ${formatVersion}: upgrade it`,
      );
    }
    // A write that was cut short leaves whole lines and one that has no end. Every line that has one must be intact.
    let block = await file.blockBefore(size, tailBytes);
    let messages = 0;
    let linesEnd: number | undefined;
    for (; block !== undefined; block = await file.blockBefore(block.at, 2 * block.bytes.length)) {
      linesEnd ??= block.at + block.bytes.length;
      for (const line of block.backwards()) {
        const { begin, end, kind } = line;
        if (kind === "message") messages++;
        if (kind !== "commit" && kind !== undefined) continue;
        const commit = kind && block.commit(line);
        if (commit === undefined) return refuseLine(file, block.at + begin);
        if (first?.kind !== "header") return refuseLine(file, 0, "it is no header");
        const isWhole = commit.of === null;
        if (!isWhole && commit.messageCount + messages === 0) return refuseShort(file);
        return new SessionFile(file, size, {
          header: first.header,
          // The file was whole when it was put here: every line behind this one was committed.
          commit: isWhole ? commit : extended(commit, messages),
          last: [block.at + begin, end - begin],
          line: block.bytes.toString("latin1", begin, end),
          messagesEnd: isWhole ? block.at + begin : linesEnd,
        });
      }
    }
    return refuseShort(file);
  }

  get header(): Header {
    return this.tail.header;
  }

  get commit(): Commit {
    return this.tail.commit;
  }

  /** Modification time, ms since 1970. */
  get time(): number {
    return Math.round(this.#file.stats().mtimeMs);
  }

  /** What is known of the file from now on. */
  get known(): Known {
    return { version: this.commit.version, commit: this.tail.last };
  }

  /** Where the next batch begins. */
  get end(): number {
    return this.isWhole ? endOf(this.tail.last) : this.tail.messagesEnd;
  }

  /** Whether it still has its end. One that has not is rewritten, so that no batch follows a part of one. */
  get isWhole(): boolean {
    return this.commit.of === null;
  }

  async title(): Promise<string | null> {
    const { title } = this.commit;
    if (title === null) return null;
    const [line] = await this.#region(title);
    return line?.kind === "title" ? line.title : refuseLine(this.#file, title[0], "it is no title");
  }

  async state(): Promise<Record<string, string>> {
    const { state } = this.commit;
    if (state === null) return {};
    const entries: [string, string][] = [];
    for (const line of await this.#region(state)) {
      if (line.kind !== "state") return refuseLine(this.#file, state[0], "it is no state entry");
      entries.push([line.name, line.data]);
    }
    return Object.fromEntries(entries);
  }

  /**
   * The messages between two offsets; all by default.
   *
   * @param firstBytes How much to read first, when it is likely to be enough.
   */
  async *messages(from = 0, to = this.end, firstBytes?: number): AsyncGenerator<MessageBlock> {
    for await (const block of this.#file.blocks(from, to, firstBytes)) {
      const lines = block.lines();
      const damaged = lines.find(({ kind }) => kind === undefined);
      if (damaged !== undefined) return refuseLine(this.#file, block.at + damaged.begin);
      yield { block, messages: lines.filter(({ kind }) => kind === "message") };
    }
  }

  /** So many messages from the line at an offset on, oldest first, at their own cost; and where the last of them is. */
  async from(offset: number, limit: number): Promise<{ records: MessageRecord[]; last: number }> {
    const records: MessageRecord[] = [];
    let last = offset;
    if (limit === 0) return { records, last };
    for await (const { block, messages } of this.messages(offset, this.end, this.#bytesOf(limit))) {
      for (const message of messages) {
        last = block.at + message.begin;
        if (records.push(block.record(message)) === limit) return { records, last };
      }
    }
    if (offset === 0) this.#checkCount(records.length);
    return { records, last };
  }

  /** The newest so many messages, oldest first, at their own cost. */
  async newest(limit: number): Promise<MessageRecord[]> {
    if (limit >= this.commit.messageCount) return (await this.from(0, limit)).records;
    const records: MessageRecord[] = [];
    if (limit === 0) return records;
    const file = this.#file;
    let block = await file.blockBefore(this.tail.messagesEnd, this.#bytesOf(limit));
    for (; block !== undefined; block = await file.blockBefore(block.at, 2 * block.bytes.length)) {
      for (const line of block.backwards()) {
        if (line.kind === undefined) return refuseLine(file, block.at + line.begin);
        if (line.kind === "message" && records.push(block.record(line)) === limit) {
          return records.reverse();
        }
      }
    }
    return records.reverse();
  }

  /** The messages from one place in the session to before another, at their own cost. */
  async slice(index: SessionIndex, from: number, to: number): Promise<MessageRecord[]> {
    const records: MessageRecord[] = [];
    if (from >= Math.min(to, index.offsets.length)) return records;
    for await (const page of this.messages(index.offsets[from], index.offsets[to])) {
      for (const message of page.messages) records.push(page.block.record(message));
    }
    return records;
  }

  /** The index of this file. `known` is used up: extended, if the file only grew since. */
  async index(known: SessionIndex | undefined): Promise<SessionIndex> {
    if (known?.version === this.commit.version) return known;
    const { offsets, digests, ordinals, commit }: Omit<SessionIndex, "version"> =
      known !== undefined && (await this.grewFrom(known))
        ? known
        : { offsets: [], digests: [], ordinals: new Map(), commit: [0, 0] };
    for await (const { block, messages } of this.messages(endOf(commit))) {
      for (const message of messages) {
        const { id, digest } = block.record(message);
        ordinals.set(id, offsets.length);
        offsets.push(block.at + message.begin);
        digests.push(ownCopy(digest));
      }
    }
    this.#checkCount(ordinals.size);
    return { ...this.known, offsets, digests, ordinals };
  }

  /**
   * Write a batch in one piece behind the last one, and cut off what an unfinished write left there. For the holder of the
   * lock.
   *
   * @param lines What comes before the batch's end.
   * @returns How the file ends now.
   * @throws BackendError, after cutting off what it wrote, if that can be done.
   */
  async append(lines: string, { before, commit, line }: BatchEnd, durable: boolean): Promise<Tail> {
    const file = this.#file;
    const batch = Buffer.from(lines + before + line);
    try {
      if (this.#size > this.end) file.truncate(this.end);
      await file.write(batch, this.end);
      if (durable) await file.datasync();
      const length = Buffer.byteLength(line);
      const messagesEnd = this.end + batch.length - length;
      return { header: this.header, commit, last: [messagesEnd, length], line, messagesEnd };
    } catch (error) {
      try {
        file.truncate(this.end);
        await file.datasync();
      } catch {
        throw toFailure(error, file.path, "unknown");
      }
      throw toFailure(error, file.path, "not-applied");
    }
  }

  /** Overwrite lines with blanks, for good. For the holder of the lock. */
  async erase(regions: readonly Region[]): Promise<void> {
    const file = this.#file;
    try {
      for (const [offset, length] of regions) await file.write(blank(length), offset);
      await file.datasync();
    } catch (error) {
      throw toFailure(error, file.path, "unknown");
    }
  }

  /** Do what the last writer may not have come to: erase what its batch replaced. For the holder of the lock. */
  async finishErasing(): Promise<void> {
    const { erase } = this.commit;
    for (const region of erase) {
      const bytes = await this.#file.read(...region);
      if (!bytes.equals(blank(bytes.length))) return this.erase(erase);
    }
  }

  /** Set the modification time, by which a user's sessions are listed. */
  touch(time: number): void {
    try {
      this.#file.setTime(time);
    } catch {
      // Who may write a file but does not own it cannot. Then it keeps the time of the write, which is nearly the same.
    }
  }

  /** Whether the file begins with what was scanned then: no version is ever stored twice. */
  async grewFrom({ version, commit }: Known): Promise<boolean> {
    if (version === this.commit.version) return true;
    if (endOf(commit) > this.end) return false;
    const line = parseLine(await this.#file.read(...commit));
    return line?.kind === "commit" && line.commit.version === version;
  }

  async #region([at, length]: Region): Promise<Line[]> {
    const lines: Line[] = [];
    const block = new Block(at, await this.#file.read(at, length));
    for (const line of block.lines()) {
      lines.push(block.parse(line) ?? (await refuseLine(this.#file, at + line.begin)));
    }
    return lines;
  }

  /** What so many messages take, most likely. */
  #bytesOf(messages: number): number {
    return Math.ceil((this.end / this.commit.messageCount) * (messages + 1) * 1.25);
  }

  #checkCount(found: number): void {
    const { messageCount } = this.commit;
    if (found === messageCount) return;
    throw new CorruptSessionError(
      `${this.#file.path} should hold ${messageCount} messages and holds ${found}: ${advice}`,
    );
  }
}

/** Collects the content of a new file, and writes it in large pieces. */
export class SessionWriter {
  /** Bytes so far. */
  offset = 0;
  readonly #file: OpenFile;
  #pieces: Buffer[] = [];
  #written = 0;

  constructor(file: OpenFile) {
    this.#file = file;
  }

  async write(text: string | Buffer): Promise<void> {
    const bytes = typeof text === "string" ? Buffer.from(text) : text;
    this.#pieces.push(bytes);
    this.offset += bytes.length;
    if (this.offset - this.#written >= largeBytes) await this.flush();
  }

  async flush(): Promise<void> {
    await this.#file.write(Buffer.concat(this.#pieces), this.#written);
    this.#pieces = [];
    this.#written = this.offset;
  }
}

/**
 * Write a session's file anew, in one step: a temporary file takes its place. For the holder of the lock, who alone may use
 * the temporary name.
 *
 * @param options `durable`: it survives a power failure once this resolves; otherwise it may be gone then, but is never
 *   there in part. `time`: its modification time.
 * @throws BackendError, after the temporary file is removed. ENOENT as it comes when the folder is missing.
 */
export async function replaceSessionFile(
  path: string,
  temporary: string,
  options: {
    readonly durable: boolean;
    readonly time: number;
    readonly signal: AbortSignal;
  },
  write: (writer: SessionWriter) => Promise<void>,
): Promise<void> {
  const file = new OpenFile(temporary, "w", options.signal);
  try {
    try {
      const writer = new SessionWriter(file);
      await write(writer);
      await writer.flush();
      file.setTime(options.time);
      await file.sync();
    } finally {
      file.close();
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

const advice = "restore it from a backup, or erase the session (deleteMessages) to begin it anew";

/** A file is put in its place whole, so it can only have been cut. */
function refuseShort(file: OpenFile): never {
  throw new CorruptSessionError(`${file.path} has lost its end, and all messages: ${advice}`);
}

/** Whether it concerns one file, of which nobody knows what it says. */
export function isUnreadable(error: unknown): boolean {
  return error instanceof CorruptSessionError || error instanceof UnsupportedFormatError;
}

/** Say that a line is damaged, by its number. */
async function refuseLine(
  file: OpenFile,
  offset: number,
  reason = "its checksum is wrong",
): Promise<never> {
  let number = 1;
  for await (const block of file.blocks(0, offset)) {
    for (const _ of block.lines()) number++;
  }
  throw new CorruptSessionError(`Line ${number} of ${file.path} is damaged (${reason}): ${advice}`);
}

function endOf([offset, length]: Region): number {
  return offset + length;
}

/** Of a string that is a part of a block's text, and would keep all of it in memory. */
function ownCopy(text: string): string {
  return Buffer.from(text, "latin1").toString("latin1");
}
