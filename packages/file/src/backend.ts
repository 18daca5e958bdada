import { hash, randomUUID } from "node:crypto";
import {
  access,
  mkdir,
  readdir,
  readFile,
  rename,
  rmdir,
  stat,
  statfs,
  writeFile,
} from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual } from "node:util";
import {
  applyPatch,
  BackendError,
  type Capabilities,
  type ChatStoreBackend,
  CorruptSessionError,
  decodeCursor,
  type Edit,
  encodeCursor,
  InvalidOptionsError,
  judgeAppend,
  judgeVersion,
  type Key,
  type ListQuery,
  type MessageRecord,
  type MigrateMode,
  type Outcome,
  type Patch,
  type Range,
  SchemaError,
  type Scope,
  type SessionRecord,
  TimeoutError,
  UnsupportedFormatError,
  unchanged,
  type Write,
} from "@chatstore/core";
import {
  type Commit,
  closeBatch,
  declaredFormat,
  folderOf,
  formatVersion,
  headerLine,
  internalFolder,
  messageLine,
  type Place,
  placeOf,
  sessionExtension,
  temporaryExtension,
  tenantFolder,
} from "./format.js";
import { failedWith, removeFile, toFailure, unless } from "./fs-failure.js";
import type { FileChatStoreOptions } from "./index.js";
import { Locks } from "./lock.js";
import {
  replaceSessionFile,
  type SessionFile,
  type SessionIndex,
  type SessionWriter,
  syncFolder,
  withSessionFile,
} from "./session-file.js";

/** In all indexes that a handle keeps; about 200 bytes each. */
const maxIndexedMessages = 250_000;
/** A file is rewritten when this much of it, and half of it, was erased. */
const minErasedBytes = 1024 * 1024;
/** Sessions that a list looks at together. */
const listedTogether = 16;

type Times = Pick<SessionRecord, "createdAt" | "updatedAt" | "expiresAt">;
type About = Pick<SessionRecord, "title" | "state">;
/** Message lines. */
type Lines = Iterable<string> | AsyncIterable<string | Buffer>;

/** A session while its lock is held. */
interface Locked {
  readonly key: Key;
  readonly place: Place;
  readonly path: string;
  /** `undefined`: absent, or expired. */
  readonly file: SessionFile | undefined;
  readonly now: number;
  readonly signal: AbortSignal;
}

/** Stores each session in a file of its own. */
export class FileBackend implements ChatStoreBackend {
  readonly name = "file";
  readonly capabilities: Capabilities;
  readonly #dir: string;
  readonly #durable: boolean;
  readonly #locks: Locks;
  readonly #indexes = new IndexCache();
  /** How far a purge came that ran out of time. */
  #purgedTo: Place | undefined;

  /** @throws InvalidOptionsError for options that are missing, wrong, or contradict each other. */
  constructor(options: FileChatStoreOptions) {
    const { survives = "host" } = options;
    if (survives !== "host" && survives !== "process") {
      throw new InvalidOptionsError(`survives is ${survives}; it must be "host" or "process"`);
    }
    this.#dir = directoryOf(options);
    this.#durable = survives === "host";
    this.#locks = new Locks(join(this.#dir, internalFolder, "locks"));
    this.capabilities = { multiProcess: true, survives, sweepsItself: false };
  }

  async open({ migrate, signal }: { readonly migrate: MigrateMode; readonly signal: AbortSignal }) {
    return guard(this.#dir, async () => {
      if (migrate !== "off") await this.#checkFormat(migrate);
      // Shows that we may write here, before anything depends on it.
      await this.#locks.now();
      await this.#locks.sweep(signal);
      return { warnings: await warningsOf(this.#dir) };
    });
  }

  async read(key: Key, range: Range, signal: AbortSignal) {
    const path = this.#path(placeOf(key));
    return guard(path, () =>
      withSessionFile(path, "read", async (file) => {
        signal.throwIfAborted();
        if (file === undefined) await this.#checkPresent();
        if (file === undefined || (await this.#hasExpired(file))) return undefined;
        refuseOther(file, key, path);
        const records = await this.#select(file, path, range);
        if (records === undefined) return "missing" as const;
        return { session: { ...recordOf(file), ...(await aboutOf(file)) }, records };
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
      const { file, path } = session;
      const before = file && patch ? await aboutOf(file) : nothingAbout;
      const present = file ? await this.#digests(file, path, records) : new Map<string, string>();
      const current = file && { ...recordOf(file), ...before };
      const verdict = judgeAppend(current, present, records, patch, write);
      if (verdict.status !== "insert") return verdict;

      const added = verdict.records.map(messageLine);
      const messageCount = (file?.commit.messageCount ?? 0) + added.length;
      const after = applyPatch(before, patch);
      if (file === undefined) return this.#rewrite(session, added, messageCount, after, write);

      const { title, state } = file.commit;
      const changed = {
        ...(after.title !== before.title && { title: after.title }),
        ...(!isDeepStrictEqual(after.state, before.state) && { state: after.state }),
      };
      const erase = [
        ...("title" in changed && title !== null ? [title] : []),
        ...("state" in changed && state !== null ? [state] : []),
      ];
      const erased = erase.reduce((sum, [, length]) => sum + length, file.commit.erased);
      if (erase.length > 0 && erased > Math.max(minErasedBytes, file.end / 2)) {
        const messages = extendedLines(file, added);
        return this.#rewrite(session, messages, messageCount, after, write);
      }
      const commit = { ...commitOf(session, messageCount, write), title, state, erase, erased };
      const text = added.join("");
      const end = closeBatch(file.end + Buffer.byteLength(text), changed, commit);
      await file.append(Buffer.from(text + end), this.#durable);
      if (erase.length > 0) await removeFile(temporaryOf(path));
      await file.erase(erase);
      await file.touch(commit.updatedAt);
      return applied(commit);
    });
  }

  async edit(key: Key, edit: Edit, write: Write, signal: AbortSignal): Promise<Outcome> {
    return this.#write(key, signal, async (session) => {
      const { file, path } = session;
      const verdict = judgeVersion(file?.commit, write);
      if (verdict !== undefined) return verdict;
      if (file === undefined) {
        return edit.op === "remove" ? unchanged(undefined) : { status: "missing", ids: [edit.id] };
      }
      const plan = planOf(edit, await this.#index(file, path));
      if (plan === "unchanged") return unchanged(file.commit);
      if ("missing" in plan) return { status: "missing", ids: [plan.missing] };
      const messages = editedLines(file, plan.change);
      return this.#rewrite(session, messages, plan.messageCount, await aboutOf(file), write);
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
      return this.#rewrite(session, linesFor(records), records.length, about, write, write.times);
    });
  }

  async erase(target: { readonly key: Key } | { readonly scope: Scope }, signal: AbortSignal) {
    const [tenant, user, session] =
      "key" in target ? placeOf(target.key) : [...folderOf(target.scope), undefined];
    return guard(join(this.#dir, tenant, user), async () => {
      // A user's session that begins from now on is not meant.
      const now = await this.#locks.now();
      const sessions = session === undefined ? await this.#sessionsIn(tenant, user) : [session];
      const spare = (file: SessionFile | undefined) =>
        session === undefined && file !== undefined && file.header.since > now;
      let erased = 0;
      for (const name of sessions) {
        if ((await this.#remove([tenant, user, name], signal, spare)) === "living") erased++;
      }
      await this.#tidy(tenant, user);
      return erased;
    });
  }

  async list(query: ListQuery, signal: AbortSignal) {
    return guard(this.#dir, async () => {
      await this.#checkPresent();
      const now = await this.#locks.now();
      return "scope" in query
        ? this.#listUser(query, now, signal)
        : this.#listAll(query, now, signal);
    });
  }

  async purge(signal: AbortSignal) {
    return guard(this.#dir, async () => {
      await this.#locks.sweep(signal);
      let purged = 0;
      // Where there are too many sessions for one call, the next one goes on.
      const from = this.#purgedTo === undefined ? [undefined] : [this.#purgedTo, undefined];
      for (const after of from) {
        for await (const place of this.#places(undefined, after)) {
          signal.throwIfAborted();
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

  /**
   * Change a session under its lock.
   *
   * @throws TimeoutError with outcome `not-applied` when the signal aborts before anything is written.
   */
  async #write(
    key: Key,
    signal: AbortSignal,
    change: (session: Locked) => Promise<Outcome>,
  ): Promise<Outcome> {
    const place = placeOf(key);
    const path = this.#path(place);
    return guard(path, () =>
      this.#locks.hold(lockOf(place), signal, () =>
        withSessionFile(path, "write", async (found) => {
          if (found !== undefined) refuseOther(found, key, path);
          const now = await this.#locks.now();
          const file = found === undefined || isExpired(found.commit, now) ? undefined : found;
          // What the last writer replaced, and perhaps died before it could erase it.
          await file?.erase(file.commit.erase);
          refuseLate(signal, path);
          return change({ key, place, path, file, now, signal });
        }),
      ),
    );
  }

  /** Write a session anew: it begins, or text has to leave the file. */
  async #rewrite(
    session: Locked,
    messages: Lines,
    messageCount: number,
    about: About,
    write: Write,
    times?: Times,
  ): Promise<Outcome> {
    const { key, place, path, file, now, signal } = session;
    const commit = { ...commitOf(session, messageCount, write), ...times };
    const since = file?.header.since ?? now;
    // A power failure may take what is new, if the user wants it so, but never what was there before.
    const options = { durable: this.#durable || file !== undefined, time: commit.updatedAt };
    const content = async (writer: SessionWriter) => {
      await writer.write(headerLine({ format: formatVersion, key: key.id, since }));
      for await (const line of messages) await writer.write(line);
      await writer.write(closeBatch(writer.offset, about, commit));
    };
    for (;;) {
      try {
        await replaceSessionFile(path, temporaryOf(path), options, content);
        return applied(commit);
      } catch (error) {
        if (!failedWith(error, "ENOENT")) throw error;
      }
      // The folder is not there yet, or somebody who erased the user's last session removes it just now.
      refuseLate(signal, path);
      await this.#makeFolders(place);
    }
  }

  /**
   * Remove a session and what a dead writer left of it.
   *
   * @param spare Whether to leave it; gets `undefined` for one that cannot be read.
   * @returns What it was; one that cannot be read counts as living.
   */
  async #remove(
    place: Place,
    signal: AbortSignal,
    spare: (file: SessionFile | undefined, now: number) => boolean,
  ): Promise<"absent" | "expired" | "living" | "spared"> {
    const path = this.#path(place);
    return this.#locks.hold(lockOf(place), signal, async () => {
      refuseLate(signal, path);
      const now = await this.#locks.now();
      const judge = async (file: SessionFile | undefined) => {
        if (file === undefined) return "absent";
        if (spare(file, now)) return "spared";
        return isExpired(file.commit, now) ? "expired" : "living";
      };
      const found = await withSessionFile(path, "read", judge).catch((error: unknown) => {
        if (!isUnreadable(error)) throw error;
        return spare(undefined, now) ? "spared" : "living";
      });
      await removeFile(temporaryOf(path));
      if (found !== "spared") await removeFile(path);
      return found;
    });
  }

  /** Remove a session that has expired, and what a dead writer left. Returns whether there was one that had. */
  async #purgeSession(place: Place, signal: AbortSignal): Promise<boolean> {
    const path = this.#path(place);
    const expired = await withSessionFile(
      path,
      "read",
      async (file) => file !== undefined && this.#hasExpired(file),
    ).catch((error: unknown) => {
      // Who reads it hears of the damage; it must not keep the others from being purged.
      if (!isUnreadable(error)) throw error;
      return false;
    });
    const leftover = await unless(["ENOENT"], stat(temporaryOf(path)));
    if (!expired && leftover === undefined) return false;
    const spare = (file: SessionFile | undefined, now: number) =>
      file === undefined || !isExpired(file.commit, now);
    const found = await this.#remove(place, signal, spare);
    if (found === "expired") await this.#tidy(place[0], place[1]);
    return found === "expired";
  }

  /** By modification time, which writers set to `updatedAt`: only the sessions of the page are opened. */
  async #listUser(query: ListQuery & { readonly scope: Scope }, now: number, signal: AbortSignal) {
    const { limit, cursor } = query;
    const [lastTime, lastKey] =
      cursor === undefined ? [Infinity, ""] : decodeCursor(cursor, ["number", "string"]);
    const [tenant, user] = folderOf(query.scope);
    const names = await this.#sessionsIn(tenant, user);
    const found = await Promise.all(
      names.map(async (name) => {
        const place: Place = [tenant, user, name];
        const stats = await unless(["ENOENT"], stat(this.#path(place)));
        return stats && { place, time: Math.round(stats.mtimeMs) };
      }),
    );
    const files = found
      .filter((file) => file !== undefined)
      .filter(({ time }) => time <= lastTime)
      .sort((a, b) => b.time - a.time);
    const sessions: SessionRecord[] = [];
    for (let start = 0, end = 0; start < files.length; start = end) {
      signal.throwIfAborted();
      // Sessions of one instant stay together: the key orders them, and only their files know it.
      end = Math.min(start + listedTogether, files.length);
      while (end < files.length && files[end]?.time === files[end - 1]?.time) end++;
      const group = await Promise.all(
        files.slice(start, end).map(async ({ place, time }) => {
          const record = await this.#record(place, now);
          return record && { time, record };
        }),
      );
      const page = group
        .filter((one) => one !== undefined)
        .filter(({ time, record }) => time < lastTime || record.key > lastKey)
        .sort((a, b) => b.time - a.time || (a.record.key < b.record.key ? -1 : 1));
      for (const { time, record } of page) {
        if (sessions.push(record) < limit) continue;
        return { sessions, cursor: encodeCursor([time, record.key]) };
      }
    }
    return { sessions };
  }

  /** In the order of folders and files. */
  async #listAll(
    query: ListQuery & { readonly tenant?: string },
    now: number,
    signal: AbortSignal,
  ) {
    const { limit, cursor, tenant } = query;
    const after = cursor && decodeCursor(cursor, ["string", "string", "string"]);
    const sessions: SessionRecord[] = [];
    let group: Place[] = [];
    const readGroup = async () => {
      const records = await Promise.all(group.map((place) => this.#record(place, now)));
      sessions.push(...records.filter((record) => record !== undefined));
      group = [];
    };
    for await (const place of this.#places(tenant, after || undefined)) {
      signal.throwIfAborted();
      if (group.push(place) < Math.min(listedTogether, limit - sessions.length)) continue;
      await readGroup();
      if (sessions.length === limit) return { sessions, cursor: encodeCursor(place) };
    }
    await readGroup();
    return { sessions };
  }

  /** A session as it is listed, without state; `undefined` when there is none, or none any more. */
  async #record(place: Place, now: number): Promise<SessionRecord | undefined> {
    return withSessionFile(this.#path(place), "read", async (file) => {
      if (file === undefined || isExpired(file.commit, now)) return undefined;
      return { ...recordOf(file), title: await file.title() };
    });
  }

  async #select(
    file: SessionFile,
    path: string,
    range: Range,
  ): Promise<MessageRecord[] | undefined> {
    const { limit = file.commit.messageCount } = range;
    if ("from" in range) return range.from === "start" ? file.oldest(limit) : file.newest(limit);
    const index = await this.#index(file, path);
    const at = index.ordinals.get("before" in range ? range.before : range.after);
    if (at === undefined) return undefined;
    return "before" in range
      ? file.slice(index, Math.max(at - limit, 0), at)
      : file.slice(index, at + 1, at + 1 + limit);
  }

  /** Of those of the records' ids that are stored. Ids that core has just made cannot be. */
  async #digests(
    file: SessionFile,
    path: string,
    records: readonly MessageRecord[],
  ): Promise<Map<string, string>> {
    const digests = new Map<string, string>();
    if (records.every(({ fresh }) => fresh)) return digests;
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

  #path([tenant, user, session]: Place): string {
    return join(this.#dir, tenant, user, session + sessionExtension);
  }

  /** All places, of one tenant or of all, in a stable order, from behind one of them. */
  async *#places(tenant?: string, after: Place = ["", "", ""]): AsyncGenerator<Place> {
    const tenants = tenant === undefined ? await this.#foldersIn("") : [tenantFolder(tenant)];
    for (const inTenant of tenants.filter((name) => name >= after[0])) {
      const atTenant = inTenant === after[0];
      for (const user of await this.#foldersIn(inTenant)) {
        if (atTenant && user < after[1]) continue;
        const atUser = atTenant && user === after[1];
        for (const session of await this.#sessionsIn(inTenant, user)) {
          if (!atUser || session > after[2]) yield [inTenant, user, session];
        }
      }
    }
  }

  async #foldersIn(tenant: string): Promise<string[]> {
    const names = await namesIn(join(this.#dir, tenant));
    return names.filter((name) => !name.startsWith(".")).sort();
  }

  /** Sessions, and what dead writers left of some. */
  async #sessionsIn(tenant: string, user: string): Promise<string[]> {
    const names = new Set<string>();
    for (const file of await namesIn(join(this.#dir, tenant, user))) {
      for (const extension of [temporaryExtension, sessionExtension]) {
        if (file.endsWith(extension)) names.add(file.slice(0, -extension.length));
      }
    }
    return [...names].sort();
  }

  async #makeFolders([tenant, user]: Place): Promise<void> {
    const inTenant = join(this.#dir, tenant);
    const make = async (path: string) => {
      const made = await unless(
        ["EEXIST"],
        mkdir(path, { mode: 0o700 }).then(() => true),
      );
      if (made && this.#durable) await syncFolder(dirname(path));
    };
    await make(inTenant);
    // Removed meanwhile: our caller will come again.
    await unless(["ENOENT"], make(join(inTenant, user)));
  }

  /** After a removal: make it last, and leave no empty folder behind, whose name is the user's. */
  async #tidy(tenant: string, user: string): Promise<void> {
    const inTenant = join(this.#dir, tenant);
    const inUse = ["ENOENT", "ENOTEMPTY", "EEXIST"];
    await unless(["ENOENT"], syncFolder(join(inTenant, user)));
    await unless(inUse, rmdir(join(inTenant, user)));
    await unless(["ENOENT"], syncFolder(inTenant));
    await unless(inUse, rmdir(inTenant));
  }

  /** An absent session must not be a disk that is not mounted. */
  async #checkPresent(): Promise<void> {
    await access(this.#formatFile());
  }

  #formatFile(): string {
    return join(this.#dir, internalFolder, "format");
  }

  async #checkFormat(migrate: MigrateMode): Promise<void> {
    const text = await unless(["ENOENT"], readFile(this.#formatFile()));
    if (text === undefined) {
      if (migrate === "auto") return this.#create();
      throw new SchemaError(
        `${this.#dir} is no chat store: check the path, or open it once with migrate: "auto"`,
      );
    }
    const format = declaredFormat(text);
    if (format === undefined) {
      throw new CorruptSessionError(`${this.#formatFile()} does not tell the format version`);
    }
    if (format > formatVersion) {
      throw new UnsupportedFormatError(
        `${this.#dir} has format version ${format}, this @chatstore/file reads up to ${formatVersion}: upgrade it`,
      );
    }
  }

  /** Many processes may do this at once: all write the same. */
  async #create(): Promise<void> {
    const parent = dirname(this.#dir);
    try {
      await mkdir(this.#dir, { mode: 0o700 });
      await unless(["EACCES"], syncFolder(parent));
    } catch (error) {
      if (failedWith(error, "ENOENT")) {
        throw new BackendError(
          `${this.#dir} cannot be created, since ${parent} does not exist: create that, or choose another \`dir\``,
          { retryable: false, outcome: "not-applied", cause: error },
        );
      }
      if (!failedWith(error, "EEXIST")) throw error;
    }
    const file = this.#formatFile();
    await unless(["EEXIST"], mkdir(dirname(file), { mode: 0o700 }));
    const temporary = `${file}.${randomUUID()}`;
    const text = `${JSON.stringify({ chatstore: formatVersion })}\n`;
    await writeFile(temporary, text, { mode: 0o600, flush: true });
    await rename(temporary, file);
    await syncFolder(dirname(file));
    await syncFolder(this.#dir);
  }
}

/** The indexes of the sessions that were used last. */
class IndexCache {
  readonly #indexes = new Map<string, SessionIndex>();
  #messages = 0;

  /** An index that is being extended is nobody else's, and is not put back if that fails. */
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
      if (this.#messages <= maxIndexedMessages || oldest === path) return;
      this.take(oldest);
    }
  }
}

/** What an edit does to each message, by its place; or why it does nothing. */
type Plan =
  | "unchanged"
  | { readonly missing: string }
  | { readonly messageCount: number; readonly change: Change };
type Change = (ordinal: number, record: MessageRecord) => MessageRecord | "keep" | "drop";

function planOf(edit: Edit, { ordinals, digests }: SessionIndex): Plan {
  const count = digests.length;
  if (edit.op === "remove") {
    const dropped = new Set(
      edit.ids.map((id) => ordinals.get(id)).filter((at) => at !== undefined),
    );
    if (dropped.size === 0) return "unchanged";
    const change: Change = (ordinal) => (dropped.has(ordinal) ? "drop" : "keep");
    return { messageCount: count - dropped.size, change };
  }
  const at = ordinals.get(edit.id);
  if (at === undefined) return { missing: edit.id };
  if (edit.op === "truncateAfter") {
    if (at === count - 1) return "unchanged";
    return { messageCount: at + 1, change: (ordinal) => (ordinal <= at ? "keep" : "drop") };
  }
  const { id, digest, data, createdAt } = edit;
  if (digests[at] === digest) return "unchanged";
  const change: Change = (ordinal, record) =>
    ordinal === at ? { id, digest, data, createdAt: createdAt ?? record.createdAt } : "keep";
  return { messageCount: count, change };
}

async function* editedLines(file: SessionFile, change: Change): AsyncGenerator<string | Buffer> {
  let ordinal = 0;
  for await (const { bytes, record } of file.messages()) {
    const result = change(ordinal++, record);
    if (result === "keep") yield bytes;
    else if (result !== "drop") yield messageLine(result);
  }
}

async function* extendedLines(file: SessionFile, added: readonly string[]) {
  for await (const { bytes } of file.messages()) yield bytes;
  yield* added;
}

function* linesFor(records: readonly MessageRecord[]): Generator<string> {
  for (const record of records) yield messageLine(record);
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
  };
}

function applied({ version, messageCount }: Commit): Outcome {
  return { status: "applied", version, messageCount };
}

/** Without title and state, which stand elsewhere in the file. */
function recordOf({ header, commit }: SessionFile): SessionRecord {
  const { version, messageCount, createdAt, updatedAt, expiresAt } = commit;
  const times = { createdAt, updatedAt, expiresAt };
  return { key: header.key, version, messageCount, ...times, ...nothingAbout };
}

const nothingAbout: About = { title: null, state: {} };

async function aboutOf(file: SessionFile): Promise<About> {
  return { title: await file.title(), state: await file.state() };
}

function isExpired({ expiresAt }: Commit, now: number): boolean {
  return expiresAt !== null && expiresAt <= now;
}

function isUnreadable(error: unknown): boolean {
  return error instanceof CorruptSessionError || error instanceof UnsupportedFormatError;
}

function refuseOther({ header }: SessionFile, key: Key, path: string): void {
  if (header.key === key.id) return;
  throw new CorruptSessionError(
    `${path} holds the session ${header.key}, not ${key.id}: it was copied or renamed; move it back`,
  );
}

function refuseLate(signal: AbortSignal, path: string): void {
  if (!signal.aborted) return;
  throw new TimeoutError(`Too late to change ${path}`, { outcome: "not-applied" });
}

/** Lock names say nothing about the session. */
function lockOf(place: Place): string {
  return hash("sha256", place.join("/")).slice(0, 40);
}

/** Next to the session's file, so that it can take its place. Used by the holder of the lock only. */
function temporaryOf(path: string): string {
  return path.slice(0, -sessionExtension.length) + temporaryExtension;
}

async function namesIn(path: string): Promise<string[]> {
  return (await unless(["ENOENT", "ENOTDIR"], readdir(path))) ?? [];
}

/** Every failure of the file system as a `BackendError`. Where a write may have taken effect, it is one already. */
async function guard<T>(path: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw toFailure(error, path, "not-applied");
  }
}

function directoryOf({ dir, url }: FileChatStoreOptions): string {
  if (dir !== undefined && url !== undefined) {
    throw new InvalidOptionsError("Give either `dir` or `url`, not both");
  }
  const path = url === undefined ? dir : pathOfUrl(url);
  if (typeof path !== "string" || path === "" || path.includes("\0")) {
    throw new InvalidOptionsError(
      'Where to keep the sessions? Give a folder, as in { dir: "./chats" } or { url: "file:./chats" }',
    );
  }
  return resolve(path);
}

function pathOfUrl(url: string): string {
  const relative = /^file:(?!\/\/)([^?#]*)$/i.exec(url)?.[1];
  try {
    if (relative !== undefined) return decodeURIComponent(relative);
    const { search, hash } = new URL(url);
    if (search === "" && hash === "") return fileURLToPath(url);
  } catch (cause) {
    throw new InvalidOptionsError(badUrl(url), { cause });
  }
  throw new InvalidOptionsError(badUrl(url));
}

function badUrl(url: string): string {
  return (
    `${JSON.stringify(url)} names no folder: write "file:./chats" or "file:///var/lib/app/chats", ` +
    'percent-encoded ("?" is %3F, "#" is %23)'
  );
}

const network =
  "is on a network file system: use it from one host only, and mind that a sync may not reach the disk";
const memory = "is in memory: a restart of the machine loses everything";
/** By the magic numbers of Linux's statfs: NFS, SMB (three of it), tmpfs, ramfs. */
const doubtfulFileSystems: ReadonlyMap<number, string> = new Map([
  ...[0x6969, 0x517b, 0xfe534d42, 0xff534d42].map((type) => [type, network] as const),
  ...[0x01021994, 0x858458f6].map((type) => [type, memory] as const),
]);

async function warningsOf(dir: string): Promise<string[]> {
  if (process.platform !== "linux") return [];
  const doubt = doubtfulFileSystems.get((await statfs(dir)).type);
  return doubt === undefined ? [] : [`${dir} ${doubt}`];
}
