import {
  applyPatch,
  type ChatStoreBackend,
  type Edit,
  judgeAppend,
  judgeVersion,
  type Key,
  type ListQuery,
  type MessageRecord,
  type Outcome,
  type Patch,
  patchChanges,
  type Range,
  type Scope,
  type SessionRecord,
  unchanged,
  type Write,
} from "./backend.js";
import type { ChatStore } from "./chat-store.js";
import { createChatStore } from "./create.js";
import { decodeCursor, encodeCursor } from "./cursor.js";
import { InvalidOptionsError } from "./errors.js";
import type { ChatMessage } from "./messages.js";
import type { ChatStoreOptions } from "./store-types.js";

/** Options of {@link memoryChatStore}. */
export interface MemoryChatStoreOptions extends ChatStoreOptions {
  /** Stores of one name in one process share their data. Default: data of its own. */
  readonly name?: string | undefined;
  /** `memory:name`, for `openChatStore`. */
  readonly url?: string | undefined;
}

/**
 * A chat store in this process's memory: for tests and for trying things out. It forgets when the process ends.
 *
 * @example const store = memoryChatStore();
 */
export function memoryChatStore<Message extends object = ChatMessage>(
  options: MemoryChatStoreOptions = {},
): ChatStore<Message> {
  return createChatStore("memory", options, { name: true, url: true }, ({ name, url }) => {
    for (const given of [name, url]) {
      if (given === undefined || typeof given === "string") continue;
      throw new InvalidOptionsError("name and url must be strings");
    }
    return new MemoryBackend(name ?? url?.replace(/^memory:(\/\/)?/, ""));
  });
}

interface StoredSession extends SessionRecord {
  readonly parts: Key;
  readonly records: readonly MessageRecord[];
}

type Sessions = Map<string, StoredSession>;

const named = new Map<string, Sessions>();

/** The reference backend: says in the fewest words what every other one must do. All methods are atomic by being synchronous inside. */
export class MemoryBackend implements ChatStoreBackend {
  readonly name = "memory";
  readonly capabilities = {
    multiProcess: false,
    survives: "nothing",
    sweepsItself: false,
  } as const;
  readonly #sessions: Sessions;

  constructor(name?: string) {
    this.#sessions = (name ? named.get(name) : undefined) ?? new Map();
    if (name) named.set(name, this.#sessions);
  }

  async open() {
    return { warnings: [] };
  }

  async read(key: Key, range: Range) {
    const session = this.#find(key);
    if (session === undefined) return undefined;
    const records = select(session.records, range);
    return records === undefined ? ("missing" as const) : { session, records };
  }

  async append(
    key: Key,
    records: readonly MessageRecord[],
    patch: Patch | undefined,
    write: Write,
    signal: AbortSignal,
  ): Promise<Outcome> {
    signal.throwIfAborted();
    const session = this.#find(key);
    const ids = new Set(records.map(({ id }) => id));
    const present = new Map(
      (session?.records ?? [])
        .filter(({ id }) => ids.has(id))
        .map(({ id, digest }) => [id, digest]),
    );
    const verdict = judgeAppend(session, present, records, patch, write);
    if (verdict.status !== "insert") return verdict;
    return this.#store(key, [...(session?.records ?? []), ...verdict.records], patch, write);
  }

  async edit(key: Key, edit: Edit, write: Write, signal: AbortSignal): Promise<Outcome> {
    signal.throwIfAborted();
    const session = this.#find(key);
    const verdict = judgeVersion(session, write);
    if (verdict !== undefined) return verdict;
    const patch = edit.op === "replaceAfter" ? edit.patch : undefined;
    const records = session?.records ?? [];
    const edited = applyEdit(records, edit);
    if ("status" in edited) return edited;
    return edited === records && !patchChanges(session, patch)
      ? unchanged(session)
      : this.#store(key, edited, patch, write);
  }

  async replace(
    key: Key,
    records: readonly MessageRecord[],
    patch: Patch | undefined,
    write: Write & {
      readonly times?: Pick<SessionRecord, "createdAt" | "updatedAt" | "expiresAt">;
    },
    signal: AbortSignal,
  ): Promise<Outcome> {
    signal.throwIfAborted();
    return (
      judgeVersion(this.#find(key), write) ?? this.#store(key, records, patch, write, write.times)
    );
  }

  async erase(
    target: { readonly key: Key } | { readonly scope: Scope },
    signal: AbortSignal,
  ): Promise<number> {
    signal.throwIfAborted();
    let erased = 0;
    for (const [id, { parts }] of this.#sessions) {
      const hit = "key" in target ? id === target.key.id : inScope(parts, target.scope);
      if (!hit) continue;
      if (this.#find(parts) !== undefined) erased++;
      this.#sessions.delete(id);
    }
    return erased;
  }

  async list(query: ListQuery) {
    const sessions = [...this.#sessions.values()].filter(({ parts }) => this.#find(parts));
    const after = query.cursor;
    if ("scope" in query) {
      const [time, key] =
        after === undefined ? [Infinity, ""] : decodeCursor(after, ["number", "string"]);
      const page = sessions
        .filter(({ parts }) => inScope(parts, query.scope))
        .filter((one) => one.updatedAt < time || (one.updatedAt === time && one.key > key))
        .sort((a, b) => b.updatedAt - a.updatedAt || (a.key < b.key ? -1 : 1))
        .slice(0, query.limit);
      return cutPage(page, query.limit, (last) => [last.updatedAt, last.key]);
    }
    const [key] = after === undefined ? [""] : decodeCursor(after, ["string"]);
    const page = sessions
      .filter(({ parts }) => query.tenant === undefined || parts.tenant === query.tenant)
      .filter((one) => one.key > key)
      .sort((a, b) => (a.key < b.key ? -1 : 1))
      .slice(0, query.limit);
    return cutPage(page, query.limit, (last) => [last.key]);
  }

  async purge(): Promise<number> {
    const expired = [...this.#sessions.values()].filter(({ parts }) => !this.#find(parts));
    for (const { key } of expired) this.#sessions.delete(key);
    return expired.length;
  }

  async close() {}

  #find(key: Key): StoredSession | undefined {
    const session = this.#sessions.get(key.id);
    return session?.expiresAt != null && session.expiresAt <= Date.now() ? undefined : session;
  }

  #store(
    key: Key,
    records: readonly MessageRecord[],
    patch: Patch | undefined,
    write: Write,
    times?: Pick<SessionRecord, "createdAt" | "updatedAt" | "expiresAt">,
  ): Outcome {
    const now = Date.now();
    const current = this.#find(key);
    this.#sessions.set(key.id, {
      key: key.id,
      parts: key,
      version: write.next,
      messageCount: records.length,
      createdAt: current?.createdAt ?? now,
      updatedAt: now,
      expiresAt: write.ttlMs === undefined ? (current?.expiresAt ?? null) : now + write.ttlMs,
      ...applyPatch(current, patch),
      records,
      ...times,
    });
    return { status: "applied", version: write.next, messageCount: records.length };
  }
}

function inScope(key: Key, scope: Scope): boolean {
  return key.user === scope.user && key.tenant === scope.tenant;
}

function cutPage(
  page: readonly StoredSession[],
  limit: number,
  cursor: (last: StoredSession) => (string | number)[],
) {
  const last = page.at(-1);
  return page.length < limit || last === undefined
    ? { sessions: page }
    : { sessions: page, cursor: encodeCursor(cursor(last)) };
}

/** The records of a range, `undefined` when its anchor is not among them. */
function select(
  records: readonly MessageRecord[],
  range: Range,
): readonly MessageRecord[] | undefined {
  const { limit = records.length } = range;
  if ("from" in range) {
    return range.from === "start"
      ? records.slice(0, limit)
      : records.slice(Math.max(records.length - limit, 0));
  }
  const anchor = records.findIndex(
    ({ id }) => id === ("before" in range ? range.before : range.after),
  );
  if (anchor < 0) return undefined;
  return "before" in range
    ? records.slice(Math.max(anchor - limit, 0), anchor)
    : records.slice(anchor + 1, anchor + 1 + limit);
}

/** The messages after an edit: the very same array when it changes nothing. */
function applyEdit(
  records: readonly MessageRecord[],
  edit: Edit,
): readonly MessageRecord[] | Outcome {
  if (edit.op === "remove") {
    const ids = new Set(edit.ids);
    const kept = records.filter(({ id }) => !ids.has(id));
    return kept.length === records.length ? records : kept;
  }
  const index = records.findIndex(({ id }) => id === edit.id);
  const found = records[index];
  if (found === undefined) return { status: "missing", ids: [edit.id] };
  if (edit.op === "replaceAfter") {
    const kept = records.slice(0, index + 1);
    const keptIds = new Set(kept.map(({ id }) => id));
    const ids = edit.records.map(({ id }) => id).filter((id) => keptIds.has(id));
    if (ids.length > 0) return { status: "duplicate", ids };
    return kept.length === records.length && edit.records.length === 0
      ? records
      : [...kept, ...edit.records];
  }
  if (found.digest === edit.digest) return records;
  const { id, digest, data, createdAt } = edit;
  return records.with(index, { id, digest, data, createdAt: createdAt ?? found.createdAt });
}
