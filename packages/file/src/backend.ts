import { hash } from "node:crypto";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import {
  applyPatch,
  type Capabilities,
  type ChatStoreBackend,
  CorruptSessionError,
  type Edit,
  InvalidOptionsError,
  judgeAppend,
  judgeVersion,
  type Key,
  type ListQuery,
  type MessageRecord,
  type MigrateMode,
  type Outcome,
  type Patch,
  patchChanges,
  type Range,
  type Scope,
  type SessionRecord,
  unchanged,
  type Write,
} from "@chatstore/core";
import { extendedLines, linesFor, planOf } from "./edits.js";
import {
  type Commit,
  closeBatch,
  commitLine,
  folderOf,
  formatVersion,
  headerLine,
  messageLine,
  type Place,
  partOf,
  placeOf,
} from "./format.js";
import { failedWith, removeFile, toFailure, unless } from "./fs-failure.js";
import type { FileChatStoreOptions } from "./index.js";
import { isExpired, Listing, nothingAbout, recordOf } from "./listing.js";
import { directoryOf } from "./location.js";
import { Locks } from "./lock.js";
import { refuseLate } from "./open-file.js";
import {
  IndexCache,
  isUnreadable,
  type PageEnd,
  replaceSessionFile,
  type SessionFile,
  type SessionIndex,
  type SessionWriter,
  type Tail,
  withSessionFile,
} from "./session-file.js";
import { StoreFolder } from "./store-folder.js";

const maxIndexedMessages = 250_000;
/** So many sessions are remembered. */
const maxRecent = 1_000;
/** A file is rewritten when this much of it, and half of it, was erased. */
const minErasedBytes = 1024 * 1024;
/** So far apart are the commits within a batch that a new file begins with. */
const partBytes = 64 * 1024;

/** Milliseconds by which two processes may read the file system's clock differently. */
const clockTolerance = 1_000;

type Times = Pick<SessionRecord, "createdAt" | "updatedAt" | "expiresAt">;
type About = Pick<SessionRecord, "title" | "state">;

/** What is remembered of a session. Nothing of it is believed before the file has confirmed it. */
interface Recent {
  readonly place: Place;
  readonly path: string;
  /** The lock's name. */
  readonly lock: string;
  /** How the file ended. */
  tail?: Tail | undefined;
  /** Of the page that was read last. */
  pageEnd?: PageEnd;
}

/** A session while its lock is held. */
interface Locked {
  readonly key: Key;
  readonly recent: Recent;
  /** `undefined`: absent, or expired. */
  readonly file: SessionFile | undefined;
  readonly now: number;
  readonly signal: AbortSignal;
}

/** What a session's file is to hold. */
interface Content extends About {
  /** Of all messages. */
  readonly lines: Iterable<string> | AsyncIterable<string | Buffer>;
  readonly messageCount: number;
  /** Instead of those that the write would give it. */
  readonly times?: Times | undefined;
}

/** Stores each session in a file of its own. */
export class FileBackend implements ChatStoreBackend {
  readonly name = "file";
  readonly capabilities: Capabilities;
  readonly #folder: StoreFolder;
  readonly #locks: Locks;
  readonly #listing: Listing;
  readonly #indexes = new IndexCache(maxIndexedMessages);
  /** By key, of the sessions that were used last. */
  readonly #recent = new Map<string, Recent>();
  readonly #durable: boolean;
  /** How far a purge came that ran out of time. */
  #purgedTo: Place | undefined;

  /** @throws InvalidOptionsError for options that are missing, wrong, or contradict each other. */
  constructor(options: FileChatStoreOptions) {
    const { survives = "host" } = options;
    if (survives !== "host" && survives !== "process") {
      throw new InvalidOptionsError(`survives is ${survives}; it must be "host" or "process"`);
    }
    this.#folder = new StoreFolder(directoryOf(options));
    this.#locks = new Locks(this.#folder.locks);
    this.#listing = new Listing(this.#folder, this.#locks);
    this.#durable = survives === "host";
    this.capabilities = { multiProcess: true, survives, sweepsItself: false };
  }

  async open({ migrate }: { readonly migrate: MigrateMode }) {
    return guard(this.#folder.dir, async () => {
      await this.#folder.open(migrate);
      // Shows that we may write here, before anything depends on it.
      await this.#locks.now();
      await this.#locks.sweep();
      return { warnings: await this.#folder.warnings() };
    });
  }

  async read(key: Key, range: Range, signal: AbortSignal) {
    const recent = this.#recall(key);
    const { path } = recent;
    return guard(path, () =>
      withSessionFile(recent, "read", signal, async (file) => {
        if (file === undefined) await this.#folder.checkPresent();
        if (file === undefined || (await this.#hasExpired(file))) return undefined;
        refuseOther(file, key, path);
        // First what a writer may erase at any moment.
        const about = await aboutOf(file);
        const records = await this.#select(file, recent, range);
        if (records === undefined) return "missing" as const;
        return { session: { ...recordOf(file), ...about }, records };
      }),
    );
  }

  async append(
    key: Key,
    records: readonly MessageRecord[],
    patch: Patch | undefined,
    write: Write,
    signal: AbortSignal,
  ): Promise<Outcome> {
    return this.#write(key, signal, async (session) => {
      const { file, recent } = session;
      const before = file && patch ? await aboutOf(file) : nothingAbout;
      // An id that core has just made cannot be stored.
      const areNew = file === undefined || records.every(({ fresh }) => fresh);
      const present = areNew ? noDigests : await this.#digests(file, recent.path, records);
      const current = file && { ...recordOf(file), ...before };
      const verdict = judgeAppend(current, present, records, patch, write);
      return verdict.status === "insert"
        ? this.#extend(session, before, verdict.records, patch, write)
        : verdict;
    });
  }

  async edit(key: Key, edit: Edit, write: Write, signal: AbortSignal): Promise<Outcome> {
    return this.#write(key, signal, async (session) => {
      const { file, recent } = session;
      const verdict = judgeVersion(file?.commit, write);
      if (verdict !== undefined) return verdict;
      if (file === undefined) {
        return edit.op === "remove" ? unchanged(undefined) : { status: "missing", ids: [edit.id] };
      }
      const plan = planOf(edit, await this.#index(file, recent.path));
      if ("status" in plan) return plan;
      const { messageCount, change, added = [], patch } = plan;
      const about = await aboutOf(file);
      if (change === undefined) {
        return added.length > 0 || patchChanges(about, patch)
          ? this.#extend(session, about, added, patch, write)
          : unchanged(file.commit);
      }
      const lines = extendedLines(file, change, added);
      return this.#rewrite(session, { lines, messageCount, ...applyPatch(about, patch) }, write);
    });
  }

  async replace(
    key: Key,
    records: readonly MessageRecord[],
    patch: Patch | undefined,
    write: Write & { readonly times?: Times },
    signal: AbortSignal,
  ): Promise<Outcome> {
    return this.#write(key, signal, async (session) => {
      const { file } = session;
      const verdict = judgeVersion(file?.commit, write);
      if (verdict !== undefined) return verdict;
      const about = applyPatch(file && (await aboutOf(file)), patch);
      const lines = linesFor(records);
      const messageCount = records.length;
      return this.#rewrite(session, { lines, messageCount, ...about, times: write.times }, write);
    });
  }

  async erase(target: { readonly key: Key } | { readonly scope: Scope }, signal: AbortSignal) {
    if ("key" in target) {
      const place = placeOf(target.key);
      return guard(this.#folder.path(place), async () => {
        const found = await this.#remove(place, signal, () => false);
        await this.#folder.tidy(place, this.#durable);
        return found === "living" ? 1 : 0;
      });
    }
    const [tenant, user] = folderOf(target.scope);
    return guard(join(this.#folder.dir, tenant, user), async () => {
      await this.#folder.checkPresent();
      // A session that begins from now on is not meant. In case of doubt it is.
      const latest = (await this.#locks.now()) + clockTolerance;
      const spare = (file: SessionFile | undefined) =>
        file !== undefined && file.header.since > latest;
      let erased = 0;
      for (const session of await this.#folder.sessions(tenant, user)) {
        const found = await this.#remove([tenant, user, session], signal, spare);
        if (found === "living") erased++;
      }
      await this.#folder.tidy([tenant, user], this.#durable);
      return erased;
    });
  }

  async list(query: ListQuery, signal: AbortSignal) {
    return guard(this.#folder.dir, async () => {
      await this.#folder.checkPresent();
      return "scope" in query
        ? this.#listing.ofUser(query, signal)
        : this.#listing.ofAll(query, signal);
    });
  }

  async purge(signal: AbortSignal) {
    return guard(this.#folder.dir, async () => {
      await this.#locks.sweep();
      let purged = 0;
      // With more sessions than one call has time for, the next call goes on where this one stopped.
      const starts = this.#purgedTo === undefined ? [undefined] : [this.#purgedTo, undefined];
      for (const start of starts) {
        for await (const place of this.#folder.places(undefined, start)) {
          if (await this.#purgeSession(place, signal)) purged++;
          this.#purgedTo = place;
        }
        this.#purgedTo = undefined;
      }
      return purged;
    });
  }

  async close() {
    await this.#locks.close();
  }

  /** Change a session under its lock. */
  async #write(
    key: Key,
    signal: AbortSignal,
    change: (session: Locked) => Promise<Outcome>,
  ): Promise<Outcome> {
    const recent = this.#recall(key);
    const { path, lock } = recent;
    return guard(path, () =>
      this.#locks.hold(lock, signal, (now) =>
        withSessionFile(recent, "write", signal, async (found) => {
          if (found !== undefined) refuseOther(found, key, path);
          const file = found === undefined || isExpired(found.commit, now) ? undefined : found;
          if (file !== undefined && file.commit.erase.length > 0) await file.finishErasing();
          refuseLate(signal, path);
          return change({ key, recent, file, now, signal });
        }),
      ),
    );
  }

  /** Add a batch to a session, which may be absent. `before`: its title and state, where there is a patch. */
  async #extend(
    session: Locked,
    before: About,
    records: readonly MessageRecord[],
    patch: Patch | undefined,
    write: Write,
  ): Promise<Outcome> {
    const { file, recent } = session;
    const added = records.map(messageLine);
    const messageCount = (file?.commit.messageCount ?? 0) + added.length;
    const after = patch === undefined ? before : applyPatch(before, patch);
    if (file === undefined) {
      return this.#rewrite(session, { lines: added, messageCount, ...after }, write);
    }
    if (!file.isWhole) {
      const about = applyPatch(await aboutOf(file), patch);
      const lines = extendedLines(file, undefined, records);
      return this.#rewrite(session, { lines, messageCount, ...about }, write);
    }
    const { title, state } = file.commit;
    const changed = {
      ...(after.title !== before.title && { title: after.title }),
      ...(patch?.state && !isDeepStrictEqual(after.state, before.state) && { state: after.state }),
    };
    const erase = [
      ...("title" in changed && title !== null ? [title] : []),
      ...("state" in changed && state !== null ? [state] : []),
    ];
    const erased = erase.reduce((sum, [, length]) => sum + length, file.commit.erased);
    if (erase.length > 0 && erased > Math.max(minErasedBytes, file.end / 2)) {
      const lines = extendedLines(file, undefined, records);
      return this.#rewrite(session, { lines, messageCount, ...after }, write);
    }
    const commit = { ...commitOf(session, messageCount, write), title, state, erase, erased };
    const lines = added.join("");
    const end = closeBatch(file.end + Buffer.byteLength(lines), changed, commit);
    // What a dead writer left may hold the text, too.
    if (erase.length > 0) await this.#removeTemporary(recent.place);
    recent.tail = await file.append(lines, end, this.#durable);
    if (erase.length > 0) await file.erase(erase);
    file.touch(commit.updatedAt);
    return applied(commit);
  }

  /** Write a session anew: it begins, or text has to leave the file. */
  async #rewrite(session: Locked, content: Content, write: Write): Promise<Outcome> {
    const { key, recent, file, now, signal } = session;
    const { place, path } = recent;
    const { lines, messageCount, title, state, times } = content;
    const commit = { ...commitOf(session, messageCount, write), ...times };
    const since = file?.header.since ?? now;
    // A power failure may take what is new, if the user chose that, but never what was there before.
    const durable = this.#durable || file !== undefined;
    const options = { durable, time: commit.updatedAt, signal };
    const writeContent = async (writer: SessionWriter) => {
      await writer.write(headerLine({ format: formatVersion, key: key.id, since }));
      const about = closeBatch(writer.offset, { title, state }, commit);
      await writer.write(about.before);
      let written = 0;
      let nextPart = writer.offset;
      for await (const line of lines) {
        // A single message is all or nothing in any case.
        if (writer.offset >= nextPart && messageCount > 1) {
          await writer.write(commitLine(partOf(about.commit, written)));
          nextPart = writer.offset + partBytes;
        }
        await writer.write(line);
        written++;
      }
      await writer.write(about.line);
    };
    const temporary = this.#folder.temporaryPath(place);
    for (;;) {
      try {
        await replaceSessionFile(path, temporary, options, writeContent);
        return applied(commit);
      } catch (error) {
        if (!failedWith(error, "ENOENT")) throw error;
      }
      // Its folder is not there yet, or is being removed by somebody who erased the user's last session.
      refuseLate(signal, path);
      await this.#folder.make(place, this.#durable);
    }
  }

  /**
   * Remove a session, and what a dead writer left of it.
   *
   * @param spare Whether to leave it; gets `undefined` for one that cannot be read.
   * @returns What it was; one that cannot be read counts as living.
   */
  async #remove(
    place: Place,
    signal: AbortSignal,
    spare: (file: SessionFile | undefined, now: number) => boolean,
  ): Promise<"absent" | "expired" | "living" | "spared"> {
    const path = this.#folder.path(place);
    return this.#locks.hold(lockOf(place), signal, async (now) => {
      const found = await withSessionFile({ path }, "read", signal, async (file) => {
        if (file === undefined) return "absent";
        if (spare(file, now)) return "spared";
        return isExpired(file.commit, now) ? "expired" : "living";
      }).catch((error: unknown) => {
        if (!isUnreadable(error)) throw error;
        return spare(undefined, now) ? "spared" : "living";
      });
      await this.#removeTemporary(place);
      if (found !== "spared") await removeFile(path);
      return found;
    });
  }

  /** Returns whether there was a session that had expired. */
  async #purgeSession(place: Place, signal: AbortSignal): Promise<boolean> {
    const path = this.#folder.path(place);
    const expired = await withSessionFile({ path }, "read", signal, async (file) => {
      return file !== undefined && this.#hasExpired(file);
    }).catch((error: unknown) => {
      // Who reads it hears of the damage; it must not keep the others from being purged.
      if (!isUnreadable(error)) throw error;
      return false;
    });
    const leftover = await unless(["ENOENT"], () => stat(this.#folder.temporaryPath(place)));
    if (!expired && leftover === undefined) return false;
    const spare = (file: SessionFile | undefined, now: number) =>
      file === undefined || !isExpired(file.commit, now);
    const found = await this.#remove(place, signal, spare);
    // Without a sync: after a power failure it is still expired.
    if (found !== "spared") await this.#folder.tidy(place, false);
    return found === "expired";
  }

  async #removeTemporary(place: Place): Promise<void> {
    await removeFile(this.#folder.temporaryPath(place));
  }

  /** The records of a range; `undefined` when the message that it names is not there. */
  async #select(file: SessionFile, recent: Recent, range: Range) {
    const { path } = recent;
    const { limit = file.commit.messageCount } = range;
    if ("before" in range) {
      const index = await this.#index(file, path);
      const at = index.ordinals.get(range.before);
      return at === undefined ? undefined : file.slice(index, Math.max(at - limit, 0), at);
    }
    if ("from" in range && range.from === "end") return file.newest(limit);
    const page =
      "after" in range
        ? await this.#pageAfter(file, recent, range.after, limit)
        : await file.from(0, limit);
    const id = page?.records.at(-1)?.id;
    if (page !== undefined && id !== undefined) {
      recent.pageEnd = { ...file.known, id, offset: page.last };
    }
    return page?.records;
  }

  async #pageAfter(file: SessionFile, recent: Recent, id: string, limit: number) {
    const { path, pageEnd: end } = recent;
    if (end?.id === id && (await file.grewFrom(end))) {
      const { records, last } = await file.from(end.offset, limit + 1);
      return { records: records.slice(1), last };
    }
    const index = await this.#index(file, path);
    const at = index.ordinals.get(id);
    if (at === undefined) return undefined;
    const records = await file.slice(index, at + 1, at + 1 + limit);
    return { records, last: index.offsets[at + records.length] as number };
  }

  #recall(key: Key): Recent {
    let recent = this.#recent.get(key.id);
    if (recent === undefined) {
      const place = placeOf(key);
      recent = { place, path: this.#folder.path(place), lock: lockOf(place) };
      const [oldest] = this.#recent.keys();
      if (this.#recent.size >= maxRecent && oldest !== undefined) this.#recent.delete(oldest);
    }
    this.#recent.delete(key.id);
    this.#recent.set(key.id, recent);
    return recent;
  }

  /** Of those of the records' ids that are stored. */
  async #digests(
    file: SessionFile,
    path: string,
    records: readonly MessageRecord[],
  ): Promise<ReadonlyMap<string, string>> {
    const digests = new Map<string, string>();
    const index = await this.#index(file, path);
    for (const { id } of records) {
      const digest = index.digests[index.ordinals.get(id) ?? -1];
      if (digest !== undefined) digests.set(id, digest);
    }
    return digests;
  }

  async #index(file: SessionFile, path: string): Promise<SessionIndex> {
    const index = await file.index(this.#indexes.take(path));
    this.#indexes.put(path, index);
    return index;
  }

  async #hasExpired(file: SessionFile): Promise<boolean> {
    // Most sessions never expire, and need no clock.
    return file.commit.expiresAt !== null && isExpired(file.commit, await this.#locks.now());
  }
}

function commitOf({ file, now }: Locked, messageCount: number, write: Write): Commit {
  const { next: version, ttlMs } = write;
  return {
    version,
    messageCount,
    createdAt: file?.commit.createdAt ?? now,
    updatedAt: now,
    expiresAt: ttlMs === undefined ? (file?.commit.expiresAt ?? null) : now + ttlMs,
    title: null,
    state: null,
    erase: [],
    erased: 0,
    of: null,
  };
}

function applied({ version, messageCount }: Commit): Outcome {
  return { status: "applied", version, messageCount };
}

const noDigests: ReadonlyMap<string, string> = new Map();

async function aboutOf(file: SessionFile): Promise<About> {
  return { title: await file.title(), state: await file.state() };
}

function refuseOther({ header }: SessionFile, key: Key, path: string): void {
  if (header.key === key.id) return;
  throw new CorruptSessionError(
    `${path} holds the session ${header.key}, not ${key.id}: it was copied or renamed; move it back`,
  );
}

/** Lock names say nothing about the session. */
function lockOf(place: Place): string {
  return hash("sha256", place.join("/")).slice(0, 40);
}

/** Every failure of the file system as a `BackendError`. Where a write may have taken effect, it is one already. */
async function guard<T>(path: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw toFailure(error, path, "not-applied");
  }
}
