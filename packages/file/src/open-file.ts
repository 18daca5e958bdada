import {
  closeSync,
  fdatasync,
  fstatSync,
  fsync,
  ftruncateSync,
  futimesSync,
  openSync,
  read,
  readSync,
  type Stats,
  write,
  writeSync,
} from "node:fs";
import { setImmediate } from "node:timers/promises";
import { promisify } from "node:util";
import { CorruptSessionError, TimeoutError } from "@chatstore/core";
import { Block } from "./format.js";
import { failedWith, toFailure } from "./fs-failure.js";

const inThread = {
  read: promisify(read),
  write: promisify(write),
  datasync: promisify(fdatasync),
  sync: promisify(fsync),
};

/** Pieces up to this many bytes are read and written at once. */
const smallBytes = 64 * 1024;
/**
 * What a scan reads at once where the disk is slow, unless a line is longer, and between two turns of the event loop where
 * it is not. Decoded in small pieces, for which memory is at hand.
 */
export const largeBytes = 1024 * 1024;
/** Milliseconds for a small piece that is not in the system's memory, probably. */
const slowRead = 1;
export const lineFeed = 0x0a;

/**
 * An open file. What is small is done synchronously: that takes a few microseconds, and the way to a thread and back many.
 * What may keep the event loop waiting, which is large pieces and every sync to disk, is done in a thread.
 */
export class OpenFile {
  readonly path: string;
  readonly #fd: number;
  readonly #signal: AbortSignal;

  /** @param flags As of `fs.open`. A new file is its owner's alone. */
  constructor(path: string, flags: "r" | "r+" | "w", signal: AbortSignal) {
    this.path = path;
    this.#fd = openSync(path, flags, 0o600);
    this.#signal = signal;
  }

  static ifPresent(path: string, flags: "r" | "r+", signal: AbortSignal): OpenFile | undefined {
    try {
      return new OpenFile(path, flags, signal);
    } catch (error) {
      if (failedWith(error, "ENOENT")) return undefined;
      throw error;
    }
  }

  stats(): Stats {
    return fstatSync(this.#fd);
  }

  /** At most so many bytes, which are few: those that are there. */
  readNow(offset: number, length: number): Buffer {
    const bytes = Buffer.allocUnsafe(length);
    return bytes.subarray(0, readSync(this.#fd, bytes, 0, length, offset));
  }

  /** @throws CorruptSessionError when it is not that long; TimeoutError when the signal has aborted. */
  async read(offset: number, length: number): Promise<Buffer> {
    refuseLate(this.#signal, this.path);
    const bytes = Buffer.allocUnsafe(length);
    for (let done = 0; done < length; ) {
      const rest = [bytes, done, length - done, offset + done] as const;
      const count =
        length <= smallBytes
          ? readSync(this.#fd, ...rest)
          : (await inThread.read(this.#fd, ...rest)).bytesRead;
      if (count === 0) throw new CorruptSessionError(`${this.path} has become shorter`);
      done += count;
    }
    return bytes;
  }

  async write(bytes: Buffer, offset: number): Promise<void> {
    const { length } = bytes;
    for (let done = 0; done < length; ) {
      const rest = [bytes, done, length - done, offset + done] as const;
      done +=
        length <= smallBytes
          ? writeSync(this.#fd, ...rest)
          : (await inThread.write(this.#fd, ...rest)).bytesWritten;
    }
  }

  /** Of what was written, and of the length. */
  async datasync(): Promise<void> {
    await inThread.datasync(this.#fd);
  }

  async sync(): Promise<void> {
    await inThread.sync(this.#fd);
  }

  truncate(length: number): void {
    ftruncateSync(this.#fd, length);
  }

  /** @param time Modification time, ms since 1970. */
  setTime(time: number): void {
    const date = new Date(time); // a number below zero would mean now
    futimesSync(this.#fd, date, date);
  }

  /** @throws BackendError with outcome `unknown`: it concerns what was written. */
  close(): void {
    try {
      closeSync(this.#fd);
    } catch (error) {
      throw toFailure(error, this.path, "unknown");
    }
  }

  /**
   * What is between two beginnings of lines. In small pieces, at once, as long as they come from the system's memory.
   *
   * @param firstBytes How much to read first, when it is likely to be enough.
   */
  async *blocks(from: number, to: number, firstBytes = smallBytes): AsyncGenerator<Block> {
    let usual = smallBytes;
    let size = Math.min(firstBytes, usual);
    let turnAt = from + largeBytes;
    for (let at = from; at < to; ) {
      if (at > turnAt) {
        await setImmediate();
        turnAt = at + largeBytes;
      }
      const begun = performance.now();
      const bytes = await this.read(at, Math.min(size, to - at));
      if (performance.now() - begun > slowRead) usual = largeBytes;
      const isLast = at + bytes.length === to;
      let begin = 0;
      for (let end: number; begin < bytes.length; begin = end) {
        end = bytes.indexOf(lineFeed, begin + smallBytes) + 1 || bytes.lastIndexOf(lineFeed) + 1;
        // A last line without an end is damaged, which its checksum will tell.
        if (end <= begin && isLast) end = bytes.length;
        if (end <= begin) break;
        yield new Block(at + begin, bytes.subarray(begin, end));
      }
      // A line that is longer than what was read: once more, with more.
      size = begin > 0 ? usual : size * 2;
      at += begin;
    }
  }

  /**
   * The block that ends before an offset; `undefined` when no line does. A last line that has no end is left out.
   *
   * @param bytes How much to read. More, when not a single line is in it.
   */
  async blockBefore(offset: number, bytes: number): Promise<Block | undefined> {
    for (let size = Math.min(bytes, largeBytes); ; size *= 2) {
      const at = Math.max(offset - size, 0);
      const found = await this.read(at, offset - at);
      const begin = at === 0 ? 0 : found.indexOf(lineFeed) + 1;
      const end = found.lastIndexOf(lineFeed) + 1;
      if (begin < end) return new Block(at + begin, found.subarray(begin, end));
      if (at === 0) return undefined;
    }
  }
}

/** @throws TimeoutError with outcome `not-applied`: for use before anything is written. */
export function refuseLate(signal: AbortSignal, path: string): void {
  if (!signal.aborted) return;
  throw new TimeoutError(`Out of time before ${path} was read or changed`, {
    outcome: "not-applied",
  });
}
