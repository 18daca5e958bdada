/**
 * The stored format, version 1: where a session's file is, and what its lines say.
 *
 * A session is `tenant/user/conversation.jsonl`. Each line is a JSON object that ends with a checksum of what stands
 * before it in the line. The first line is the header. Then come batches: message lines, a title line or state lines if
 * these changed, and, last, the commit line, which holds the session's metadata as of this batch. Only what stands before
 * a commit line counts, so a batch is there whole or not at all. A line of spaces is where text was erased.
 */
import { hash } from "node:crypto";
import { crc32 } from "node:zlib";
import type { Key, MessageRecord, Scope, Version } from "@chatstore/core";

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
}

/** One line, parsed. */
export type Line =
  | { readonly kind: "blank" }
  | { readonly kind: "header"; readonly header: Header }
  | { readonly kind: "message"; readonly record: MessageRecord }
  | { readonly kind: "title"; readonly title: string }
  | { readonly kind: "state"; readonly name: string; readonly data: string }
  | { readonly kind: "commit"; readonly commit: Commit };

export function headerLine({ format, key, since }: Header): string {
  return seal({ chatstore: format, key, since });
}

export function messageLine({ id, createdAt, digest, data }: MessageRecord): string {
  return seal({ id, createdAt, digest }, data);
}

/** The end of a batch: lines for what changed of title and state, and the commit line with their places. */
export function closeBatch(
  offset: number,
  changed: { readonly title?: string | null; readonly state?: Readonly<Record<string, string>> },
  commit: Commit,
): string {
  const { title, state } = changed;
  const titleLines = title === undefined || title === null ? "" : seal({ title });
  const stateLines = Object.entries(state ?? {})
    .map(([name, data]) => seal({ state: name }, data))
    .join("");
  const afterTitle = offset + Buffer.byteLength(titleLines);
  const { version, ...rest } = {
    ...commit,
    ...(title !== undefined && { title: regionOf(offset, titleLines) }),
    ...(state !== undefined && { state: regionOf(afterTitle, stateLines) }),
  };
  return titleLines + stateLines + seal({ commit: version, ...rest });
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
/** Cannot stand inside a JSON string, where a quote has a backslash before it. */
const dataMember = ',"data":';

/** A line with its line feed; `undefined` when it is damaged. */
export function parseLine(bytes: Buffer): Line | undefined {
  if (isBlank(bytes)) return { kind: "blank" };
  const end = bytes.length - sealLength;
  if (end <= 0) return undefined;
  const open = bytes.subarray(0, end);
  if (bytes.toString("latin1", end) !== sealOf(crc32(open))) return undefined;
  const dataAt = open.indexOf(dataMember);
  const members = parseJson(`${open.toString("utf8", 0, dataAt < 0 ? end : dataAt)}}`);
  if (members === undefined) return undefined;
  const data = dataAt < 0 ? "" : open.toString("utf8", dataAt + dataMember.length);
  // The checksum says that we wrote it, so its shape is taken at its word.
  if ("id" in members) {
    const { id, createdAt, digest } = members;
    return { kind: "message", record: { id, createdAt, digest, data } };
  }
  if ("commit" in members) {
    const { commit: version, ...rest } = members;
    return { kind: "commit", commit: { version, ...rest } };
  }
  if ("state" in members) return { kind: "state", name: members.state, data };
  if ("title" in members) return { kind: "title", title: members.title };
  const { chatstore: format, key, since } = members;
  return { kind: "header", header: { format, key, since } };
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

function isBlank(bytes: Buffer): boolean {
  return bytes[0] === 0x20 && bytes.equals(blank(bytes.length));
}
