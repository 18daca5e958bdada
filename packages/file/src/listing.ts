/** Lists of sessions: a user's, newest first, and all, in the order of folders and files. */
import { randomUUID } from "node:crypto";
import { type Stats, statSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import {
  decodeCursor,
  encodeCursor,
  type ListQuery,
  type Scope,
  type SessionRecord,
} from "@chatstore/core";
import { type Commit, folderOf, isAt, keyAt, type Place } from "./format.js";
import { failedWith } from "./fs-failure.js";
import type { Locks } from "./lock.js";
import { isUnreadable, type SessionFile, withSessionFile } from "./session-file.js";
import type { StoreFolder } from "./store-folder.js";

/** Sessions that a list looks at together. */
const listedTogether = 16;
/** Lists that are remembered for who reads on. */
const maxLists = 16;
/** Files whose times are looked at between two turns of the event loop. */
const filesPerTurn = 1_000;

/** A session's file, as its user's folder shows it. */
interface Listed {
  readonly name: string;
  /** Modification time. */
  readonly time: number;
}

/** What the first page found out, kept for the pages behind it: each costs its own size then, in the same handle. */
class Remembered<T> {
  readonly #lists = new Map<string, { readonly of: string; readonly list: T }>();

  /**
   * Used once: a page that is asked for again finds out anew.
   *
   * @param of Whose list it is: who comes with somebody else's cursor gets nothing that was kept for them.
   */
  take(id: string | undefined, of: string): T | undefined {
    const kept = this.#lists.get(id ?? "");
    if (kept?.of !== of) return undefined;
    this.#lists.delete(id ?? "");
    return kept.list;
  }

  /** @returns what a cursor names it by. */
  put(list: T, of: string): string {
    const id = randomUUID();
    this.#lists.set(id, { of, list });
    const [oldest] = this.#lists.keys();
    if (this.#lists.size > maxLists && oldest !== undefined) this.#lists.delete(oldest);
    return id;
  }
}

export class Listing {
  readonly #folder: StoreFolder;
  readonly #locks: Locks;
  readonly #users = new Remembered<readonly Listed[]>();
  readonly #walks = new Remembered<AsyncGenerator<Place>>();

  constructor(folder: StoreFolder, locks: Locks) {
    this.#folder = folder;
    this.#locks = locks;
  }

  /** By modification time, which writers set to `updatedAt`: only the sessions of the page are opened. */
  async ofUser(query: ListQuery & { readonly scope: Scope }, signal: AbortSignal) {
    const { limit, cursor } = query;
    const [lastTime, lastKey, id] =
      cursor === undefined
        ? [Infinity, "", undefined]
        : decodeCursor(cursor, ["number", "string", "string"]);
    const folder = folderOf(query.scope);
    const now = await this.#locks.now();
    const all = this.#users.take(id, folder.join("/")) ?? (await this.#files(folder));
    const files = all.slice(firstUpTo(all, lastTime));
    const sessions: SessionRecord[] = [];
    for (let start = 0, end = 0; start < files.length; start = end) {
      // Sessions of one instant stay together: the key orders them, and only their files know it.
      end = Math.min(start + listedTogether, files.length);
      while (end < files.length && files[end]?.time === files[end - 1]?.time) end++;
      const group = await Promise.all(
        files.slice(start, end).map(async ({ name, time }) => {
          const seen = cursor === undefined ? undefined : time;
          const record = await this.#record([...folder, name], now, signal, seen);
          return record && { time, record };
        }),
      );
      const page = group
        .filter((one) => one !== undefined)
        .filter(({ time, record }) => time < lastTime || record.key > lastKey)
        .sort((a, b) => b.time - a.time || (a.record.key < b.record.key ? -1 : 1));
      for (const { time, record } of page) {
        if (sessions.push(record) < limit) continue;
        const kept = this.#users.put(all, folder.join("/"));
        return { sessions, cursor: encodeCursor([time, record.key, kept]) };
      }
    }
    return { sessions };
  }

  /** In the order of folders and files. */
  async ofAll(query: ListQuery & { readonly tenant?: string }, signal: AbortSignal) {
    const { limit, cursor, tenant } = query;
    const [id, ...after] =
      cursor === undefined
        ? [undefined]
        : decodeCursor(cursor, ["string", "string", "string", "string"]);
    const places =
      this.#walks.take(id, JSON.stringify([tenant])) ??
      this.#folder.places(tenant, id === undefined ? undefined : (after as unknown as Place));
    const now = await this.#locks.now();
    const sessions: SessionRecord[] = [];
    for (let last: Place | undefined; ; ) {
      const group: Place[] = [];
      while (group.length < Math.min(listedTogether, limit - sessions.length)) {
        const { done, value } = await places.next();
        if (done) break;
        group.push(value);
      }
      last = group.at(-1);
      if (last === undefined) return { sessions };
      const records = await Promise.all(group.map((place) => this.#record(place, now, signal)));
      sessions.push(...records.filter((record) => record !== undefined));
      if (sessions.length === limit) {
        return {
          sessions,
          cursor: encodeCursor([this.#walks.put(places, JSON.stringify([tenant])), ...last]),
        };
      }
    }
  }

  /** A user's files, the newest first. */
  async #files([tenant, user]: readonly [string, string]): Promise<readonly Listed[]> {
    const files: Listed[] = [];
    for (const [n, name] of (await this.#folder.sessions(tenant, user)).entries()) {
      if (n % filesPerTurn === filesPerTurn - 1) await setImmediate();
      const stats = statsOf(this.#folder.path([tenant, user, name]));
      if (stats !== undefined) files.push({ name, time: Math.round(stats.mtimeMs) });
    }
    return files.sort((a, b) => b.time - a.time);
  }

  /**
   * A session as it is listed, without state; `undefined` when it is gone or has expired.
   *
   * @param time What its modification time was, for a page behind the first: one that has changed since belongs before it.
   */
  async #record(
    place: Place,
    now: number,
    signal: AbortSignal,
    time?: number,
  ): Promise<SessionRecord | undefined> {
    const path = this.#folder.path(place);
    try {
      return await withSessionFile({ path }, "read", signal, async (file) => {
        if (file === undefined || isExpired(file.commit, now)) return undefined;
        if (time !== undefined && file.time !== time) return undefined;
        // A copy under another name is no session.
        if (!isAt(place, file.header.key)) return this.#unreadable(place);
        return { ...recordOf(file), title: await file.title() };
      });
    } catch (error) {
      // Who reads it hears of the damage; it must not keep the others from being listed.
      if (!isUnreadable(error) && !failedWith(error, "EACCES", "EIO", "EISDIR", "ELOOP", "EPERM")) {
        throw error;
      }
      return this.#unreadable(place);
    }
  }

  /** What its place says of a session; `undefined` when that is nothing. */
  #unreadable(place: Place): SessionRecord | undefined {
    const key = keyAt(place);
    const stats = key && statsOf(this.#folder.path(place));
    if (!key || !stats) return undefined;
    const time = Math.round(stats.mtimeMs);
    const times = { createdAt: time, updatedAt: time, expiresAt: null };
    return { key, version: "", messageCount: 0, ...times, ...nothingAbout, unreadable: true };
  }
}

/** Of files, the newest first, the first one that is not newer than a time. */
function firstUpTo(files: readonly Listed[], time: number): number {
  let [low, high] = [0, files.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((files[middle] as Listed).time <= time) high = middle;
    else low = middle + 1;
  }
  return low;
}

function statsOf(path: string): Stats | undefined {
  return statSync(path, { throwIfNoEntry: false });
}

/** Without title and state, which stand elsewhere in the file. */
export function recordOf({ header, commit }: SessionFile): SessionRecord {
  const { version, messageCount, createdAt, updatedAt, expiresAt } = commit;
  const times = { createdAt, updatedAt, expiresAt };
  return { key: header.key, version, messageCount, ...times, ...nothingAbout };
}

export const nothingAbout: Pick<SessionRecord, "title" | "state"> = { title: null, state: {} };

export function isExpired({ expiresAt }: Commit, now: number): boolean {
  return expiresAt !== null && expiresAt <= now;
}
