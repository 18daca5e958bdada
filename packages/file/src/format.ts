/**
 * The stored format, version 1: where a session's file is, and what its lines say.
 *
 * A session is `tenant/user/conversation.jsonl`. Each line is a JSON object that ends with a checksum of what stands
 * before it in the line. The first line is the header. Then come batches: message lines, a title line or state lines if
 * these changed, and, last, the commit line, which holds the session's metadata as of this batch. Only what stands before
 * a commit line counts, so a batch is there whole or not at all. A line of spaces is where text was erased.
 *
 * A file is put in its place whole, when a session begins or is rewritten. Its first batch has title and state in front and,
 * between its messages, commits that say how many there are `of` all. So what a file that lost its end still holds of its
 * first batch was committed, and is not lost with it.
 */
import { isAscii } from "node:buffer";
import { hash } from "node:crypto";
import { crc32 } from "node:zlib";
import {
  type Key,
  type MessageRecord,
  parseSessionKey,
  type Scope,
  sessionKey,
  type Version,
} from "@chatstore/core";

export const formatVersion = 1;

/** Holds what is no session. No tenant's folder begins with a dot. */
export const internalFolder = ".chatstore";
export const sessionExtension = ".jsonl";
/** A rewritten session before it takes the place of the old one. */
export const temporaryExtension = ".jsonl.tmp";

/** Where a session is: the names of its two folders, and of its file without extension. */
export type Place = readonly [tenant: string, user: string, session: string];

/** For what a key leaves out. No encoded name holds an `@`. */
const noTenant = "@no-tenant";
const rawKeys = "@raw";
const noConversation = "@default";

/** Short enough for every file system, with the extension. */
const longestName = 96;
const reservedOnWindows = /^(?:con|prn|aux|nul|com\d|lpt\d)$/;

/** The place of a session. Found by the key alone; two keys never share one, on any disk. */
export function placeOf(key: Key): Place {
  if (key.user === "") return [noTenant, rawKeys, encodeName(key.id.replace(/^raw:/, ""))];
  const [tenant, user] = folderOf(key);
  return [tenant, user, key.conversation === "" ? noConversation : encodeName(key.conversation)];
}

/** The inverse of `placeOf`; `undefined` for names that it does not give, and for those that hold only a hash. */
export function keyAt(place: Place): string | undefined {
  const [tenant, user, session] = place;
  const partOfName = (name: string, none: string) =>
    name === none ? undefined : decodeURIComponent(name);
  try {
    const key =
      user === rawKeys
        ? `raw:${decodeURIComponent(session)}`
        : sessionKey({
            tenant: partOfName(tenant, noTenant),
            user: decodeURIComponent(user),
            conversation: partOfName(session, noConversation),
          });
    return isAt(place, key) ? key : undefined;
  } catch {
    return undefined;
  }
}

/** Whether it is the place of a key, given as text. */
export function isAt(place: Place, id: string): boolean {
  try {
    const parsed = parseSessionKey(id);
    const { tenant = "", user = "", conversation = "" } = "raw" in parsed ? {} : parsed;
    const names = placeOf({ id, tenant, user, conversation });
    return names.every((name, level) => name === place[level]);
  } catch {
    return false;
  }
}

/** The folder of a user. */
export function folderOf({ tenant, user }: Scope): readonly [tenant: string, user: string] {
  return [tenantFolder(tenant), encodeName(user)];
}

export function tenantFolder(tenant: string): string {
  return tenant === "" ? noTenant : encodeName(tenant);
}

/**
 * Any text as a file name of `[a-z0-9_-]`, with `%xx` for every other byte; injective. Upper case is encoded too: a disk
 * may not tell it from lower case. Too long for a file name: the beginning, a dot and the SHA-256.
 */
function encodeName(text: string): string {
  const name = text.replace(/[^a-z0-9_-]/gu, escaped);
  if (reservedOnWindows.test(name)) return name.replace(/^./, escaped);
  if (name.length <= longestName) return name;
  const digest = hash("sha256", text);
  return `${name.slice(0, longestName - digest.length - 1)}.${digest}`;
}

function escaped(character: string): string {
  return Buffer.from(character).toString("hex").replace(/../g, "%$&");
}

/** A part of the file: `[offset, length]` in bytes, of whole lines. */
export type Region = readonly [offset: number, length: number];

/** The first line. Written once: it stays when the file is rewritten. */
export interface Header {
  readonly format: number;
  /** The session's canonical key: a file name may hold only its hash. */
  readonly key: string;
  /** When the session began to exist here, by the file system's clock. An imported one says otherwise of itself. */
  readonly since: number;
}

/** The session's metadata as of a batch. */
export interface Commit {
  readonly version: Version;
  readonly messageCount: number;
  readonly createdAt: number;
  readonly updatedAt: number;
  readonly expiresAt: number | null;
  /** The title's line. `null`: no title. */
  readonly title: Region | null;
  /** The lines of all state entries. `null`: none. */
  readonly state: Region | null;
  /** Old title and state that this batch replaces. Who writes next erases them first: the process may have died before. */
  readonly erase: readonly Region[];
  /** Bytes of the file that were erased. Many of them, and the file is worth rewriting. */
  readonly erased: number;
  /** How many messages the batch has that goes on behind this line. `null`: it ends here. */
  readonly of: number | null;
}

/** One line, parsed. */
export type Line =
  | { readonly kind: "blank" }
  | { readonly kind: "header"; readonly header: Header }
  | { readonly kind: "message"; readonly record: MessageRecord }
  | { readonly kind: "title"; readonly title: string }
  | { readonly kind: "state"; readonly name: string; readonly data: string }
  | { readonly kind: "commit"; readonly commit: Commit };

const messageBeginning = '{"id":';
/** How lines begin; all but blank ones. */
const beginnings: readonly (readonly [Line["kind"], string])[] = [
  ["message", messageBeginning],
  ["commit", '{"commit":'],
  ["state", '{"state":'],
  ["title", '{"title":'],
  ["header", '{"chatstore":'],
];

export function headerLine({ format, key, since }: Header): string {
  return seal({ chatstore: format, key, since });
}

export function messageLine({ id, createdAt, digest, data }: MessageRecord): string {
  return seal({ id, createdAt, digest }, data);
}

/** What closes a batch. */
export interface BatchEnd {
  /** Lines for what changed of title and state. */
  readonly before: string;
  readonly commit: Commit;
  /** The commit's line. */
  readonly line: string;
}

/** The end of a batch, with the places of what changed of title and state in its commit. */
export function closeBatch(
  offset: number,
  changed: { readonly title?: string | null; readonly state?: Readonly<Record<string, string>> },
  about: Commit,
): BatchEnd {
  const { title, state } = changed;
  const titleLines = title === undefined || title === null ? "" : seal({ title });
  const stateLines = Object.entries(state ?? {})
    .map(([name, data]) => seal({ state: name }, data))
    .join("");
  const afterTitle = offset + Buffer.byteLength(titleLines);
  const commit = {
    ...about,
    ...(title !== undefined && { title: regionOf(offset, titleLines) }),
    ...(state !== undefined && { state: regionOf(afterTitle, stateLines) }),
  };
  return { before: titleLines + stateLines, commit, line: commitLine(commit) };
}

/** A commit for the first so many messages of a batch that goes on. No other content of a session has its version. */
export function partOf(commit: Commit, messageCount: number): Commit {
  const version = `${commit.version}.${messageCount}`;
  return { ...commit, version, messageCount, of: commit.messageCount };
}

/** The same commit, for more of its batch: for what stands behind it. */
export function extended(commit: Commit, messages: number): Commit {
  const version = commit.version.slice(0, commit.version.lastIndexOf("."));
  const messageCount = commit.messageCount + messages;
  return { ...commit, version: `${version}.${messageCount}`, messageCount };
}

/** What a commit says when nothing is written of it. */
const unsaid = {
  expiresAt: null,
  title: null,
  state: null,
  erase: [],
  erased: 0,
  of: null,
} as const;

export function commitLine(commit: Commit): string {
  const { version, messageCount, createdAt, updatedAt } = commit;
  const { expiresAt, title, state, erase, erased, of } = commit;
  return seal({
    commit: version,
    messageCount,
    createdAt,
    updatedAt,
    ...(expiresAt !== null && { expiresAt }),
    ...(title !== null && { title }),
    ...(state !== null && { state }),
    ...(erase.length > 0 && { erase }),
    ...(erased > 0 && { erased }),
    ...(of !== null && { of }),
  });
}

function regionOf(offset: number, lines: string): Region | null {
  return lines === "" ? null : [offset, Buffer.byteLength(lines)];
}

/** A line, with its checksum. `data` is JSON text that is kept to the byte. */
function seal(members: object, data?: string): string {
  const open = JSON.stringify(members).slice(0, -1) + (data === undefined ? "" : dataMember + data);
  return open + sealOf(crc32(open));
}

function sealOf(checksum: number): string {
  return `,"crc":"${checksum.toString(16).padStart(8, "0")}"}\n`;
}

const sealLength = sealOf(0).length;
const sealBegin = ',"crc":"';
const sealEnd = '"}\n';

/** The inverse of `sealOf`, to the letter: a damaged seal may still hold the number. `-1` when it is none. */
function checksumIn(text: string, sealAt: number): number {
  const end = sealAt + sealLength - sealEnd.length;
  if (!text.startsWith(sealBegin, sealAt) || !text.startsWith(sealEnd, end)) return -1;
  let checksum = 0;
  for (let place = sealAt + sealBegin.length; place < end; place++) {
    const code = text.charCodeAt(place);
    const isDigit = code >= 0x30 && code <= 0x39;
    if (!isDigit && (code < 0x61 || code > 0x66)) return -1;
    checksum = checksum * 16 + code - (isDigit ? 0x30 : 0x57);
  }
  return checksum;
}

/** None can stand inside a JSON string, where a quote has a backslash before it. */
const createdAtMember = ',"createdAt":';
const digestMember = ',"digest":';
const dataMember = ',"data":';

/**
 * Too few bytes for a commit and a message. There may be a commit behind each message, and who reads messages asks nothing of
 * it: that no message is lost in its line shows without a checksum, which would cost as much as the message's.
 */
const loneCommit = 200;

/** A line where it stands in its block. */
export interface BlockLine {
  readonly begin: number;
  /** Behind its line feed. */
  readonly end: number;
  /** `undefined`: it is damaged. A commit may be damaged all the same: who asks what it says hears of it. */
  readonly kind: Line["kind"] | undefined;
}

/**
 * Whole lines, decoded together: a call costs more than the bytes of a line. What a line says is parsed when it is asked
 * for. `data` and digests are parts of the block's text, and keep all of it in memory.
 */
export class Block {
  /** Where it begins in the file. */
  readonly at: number;
  readonly bytes: Buffer;
  /** With a character for each byte, so that places are the same. */
  readonly #text: string;
  readonly #isAscii: boolean;

  constructor(at: number, bytes: Buffer) {
    this.at = at;
    this.bytes = bytes;
    this.#text = bytes.toString("latin1");
    this.#isAscii = isAscii(bytes);
  }

  lines(): BlockLine[] {
    const { length } = this.bytes;
    const lines: BlockLine[] = [];
    for (let begin = 0, end = 0; begin < length; begin = end) {
      end = this.#text.indexOf("\n", begin) + 1 || length;
      lines.push({ begin, end, kind: this.#kind(begin, end) });
    }
    return lines;
  }

  /** The last line first. */
  *backwards(): Generator<BlockLine> {
    for (let end = this.bytes.length, begin = end; end > 0; end = begin) {
      // Strings are searched backwards more slowly. A negative place would count from the end.
      begin = end < 2 ? 0 : this.bytes.lastIndexOf(0x0a, end - 2) + 1;
      yield { begin, end, kind: this.#kind(begin, end) };
    }
  }

  /** The checksum says that we wrote it, so its shape is taken at its word. */
  #kind(begin: number, end: number): Line["kind"] | undefined {
    const text = this.#text;
    if (text[begin] === " ") {
      const bytes = this.bytes.subarray(begin, end);
      return bytes.equals(blank(bytes.length)) ? "blank" : undefined;
    }
    for (const [kind, beginning] of beginnings) {
      if (!text.startsWith(beginning, begin)) continue;
      const isLone = kind === "commit" && end - begin < loneCommit;
      return isLone || this.#isIntact(begin, end) ? kind : undefined;
    }
    return undefined;
  }

  #isIntact(begin: number, end: number): boolean {
    const length = end - sealLength - begin;
    if (length <= 0) return false;
    const { buffer, byteOffset } = this.bytes;
    // Made faster than a subarray, and there are many lines.
    const open = new Uint8Array(buffer, byteOffset + begin, length);
    return checksumIn(this.#text, begin + length) === crc32(open);
  }

  /**
   * Of a message's line. Most lines are, so the parser gets the id alone, and makes a copy: a part of the block's text would
   * keep all of it in memory for as long as the message is there.
   */
  record({ begin, end }: BlockLine): MessageRecord {
    const text = this.#text;
    const idEnd = text.indexOf(createdAtMember, begin);
    const createdAt = idEnd + createdAtMember.length;
    // Of a number, and of a digest, which has no quotes in it.
    const createdAtEnd = text.indexOf(",", createdAt);
    const digest = createdAtEnd + digestMember.length + 1;
    const digestEnd = text.indexOf('"', digest);
    const data = digestEnd + 1;
    return {
      id: JSON.parse(this.#slice(begin + messageBeginning.length, idEnd)),
      createdAt: Number(text.slice(createdAt, createdAtEnd)),
      digest: text.slice(digest, digestEnd),
      data: this.#slice(data + dataMember.length, end - sealLength),
    };
  }

  /** Of a commit line; `undefined` when it is damaged. */
  commit(line: BlockLine): Commit | undefined {
    if (!this.#isIntact(line.begin, line.end)) return undefined;
    const { commit: version, ...rest } = this.#members(line);
    return { version, ...unsaid, ...rest };
  }

  parse(line: BlockLine): Line | undefined {
    const { begin, end, kind } = line;
    switch (kind) {
      case undefined:
        return undefined;
      case "blank":
        return { kind };
      case "message":
        return { kind, record: this.record(line) };
      case "commit": {
        const commit = this.commit(line);
        return commit && { kind, commit };
      }
      case "title":
        return { kind, title: this.#members(line).title };
      case "header": {
        const { chatstore: format, key, since } = this.#members(line);
        return { kind, header: { format, key, since } };
      }
      case "state": {
        const dataAt = this.#text.indexOf(dataMember, begin);
        const { state: name } = parseJson(`${this.#slice(begin, dataAt)}}`);
        return { kind, name, data: this.#slice(dataAt + dataMember.length, end - sealLength) };
      }
    }
  }

  // biome-ignore lint/suspicious/noExplicitAny: JSON that we wrote
  #members({ begin, end }: BlockLine): any {
    return parseJson(`${this.#slice(begin, end - sealLength)}}`);
  }

  #slice(begin: number, end: number): string {
    return this.#isAscii ? this.#text.slice(begin, end) : this.bytes.toString("utf8", begin, end);
  }
}

/** A line with its line feed; `undefined` when it is damaged. */
export function parseLine(bytes: Buffer): Line | undefined {
  const block = new Block(0, bytes);
  for (const line of block.lines()) return block.parse(line);
  return undefined;
}

/** The format version that a first line declares, whatever else a newer format may put there. */
export function declaredFormat(line: Buffer): number | undefined {
  const version: unknown = parseJson(line.toString())?.chatstore;
  return typeof version === "number" ? version : undefined;
}

// biome-ignore lint/suspicious/noExplicitAny: JSON, and its callers say why they trust it
function parseJson(text: string): any {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** What takes the place of erased lines: one line of spaces. */
export function blank(length: number): Buffer {
  const bytes = Buffer.alloc(length, " ");
  bytes[length - 1] = 0x0a;
  return bytes;
}
