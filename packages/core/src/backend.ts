/**
 * What a backend implements. A backend stores; it validates nothing, encodes nothing and retries
 * nothing: `ChatStore` has done that before it calls.
 *
 * `docs/adding-a-backend.md` walks through an implementation; `@chatstore/core/conformance` proves one.
 */
import type { FailureOutcome } from "./errors.js";

/** Opaque; compared for equality only; made by core for each write; never repeated. */
export type Version = string;

/**
 * A canonical session key and its decoded parts. A part that is absent is the empty string (no real
 * part is empty), so `(tenant, user)` can be an ordinary not-null index. A raw key has only an `id`.
 */
export interface Key {
  /** At most 512 bytes of UTF-8 without control characters or lone surrogates. */
  readonly id: string;
  readonly tenant: string;
  readonly user: string;
  readonly conversation: string;
}

/** A user within a tenant. `tenant: ""` means the user's keys without a tenant. */
export interface Scope {
  readonly tenant: string;
  readonly user: string;
}

/** One message, ready to be stored. All strings are well-formed Unicode without NUL. */
export interface MessageRecord {
  /** At most 512 bytes of UTF-8. Unique within its session, not beyond it. */
  readonly id: string;
  /** 22 ASCII characters. The only comparison of content (G5): never computed by a backend. */
  readonly digest: string;
  /** A JSON object on one line; must come back byte for byte. `recordDigest(data)` is its digest. */
  readonly data: string;
  /** Core's clock, ms since 1970: for people, never for order. */
  readonly createdAt: number;
  /**
   * Core made this id just now and this is the first attempt, so it cannot be stored yet: the history
   * need not be searched for it. Never stored.
   */
  readonly fresh?: boolean;
}

/** One session as it is stored. Times are the engine's clock, ms since 1970. */
export interface SessionRecord {
  /** The `id` of its {@link Key}. */
  readonly key: string;
  readonly version: Version;
  readonly messageCount: number;
  readonly createdAt: number;
  /** Time of the last change. */
  readonly updatedAt: number;
  readonly expiresAt: number | null;
  readonly title: string | null;
  /** Encoded JSON documents by entry name; names match `[A-Za-z][A-Za-z0-9_-]{0,63}`. `list()` may leave it empty. */
  readonly state: Readonly<Record<string, string>>;
  /** Only in `list()`: nothing but the key is known, since what is stored is damaged or newer. Reading it says why. */
  readonly unreadable?: true;
}

/** Merged into the session in the same atomic step as the messages. `null` removes; absent leaves alone. */
export interface Patch {
  readonly title?: string | null;
  readonly state?: Readonly<Record<string, string | null>>;
}

/** Every write is atomic, durable once resolved, and serialised per session over all processes. */
export interface Write {
  /**
   * Stored as the session's new version. Already stored: this write has happened, and the outcome is `unchanged`, of `version:
   * next`. So it is where others have written since and the engine remembers that `next` once was the version.
   */
  readonly next: Version;
  /** The version the session must have; `null`: it must be absent; absent: any. */
  readonly ifVersion?: Version | null;
  /** The session's new expiry is the engine's now + `ttlMs`. Absent: expiry stays as it is. */
  readonly ttlMs?: number;
}

/** What a write did. A failing engine is a thrown `BackendError`; everything else is an outcome. */
export type Outcome =
  /**
   * `version` is the one that this write made; when there was nothing to do, the session's, `null` when it is absent.
   * `messageCount` is what this write left, or, where others have written since, the session's now.
   */
  | {
      readonly status: "applied" | "unchanged";
      readonly version: Version | null;
      readonly messageCount: number;
    }
  /** Nothing written: the session's version (`null`: absent) is not `ifVersion`. */
  | { readonly status: "conflict"; readonly version: Version | null }
  /** Nothing written: these ids hold other content (`duplicate`) or are not there (`missing`). */
  | { readonly status: "duplicate" | "missing"; readonly ids: readonly string[] };

/** A change of stored messages. */
export type Edit =
  /** Replace one message; it keeps its place. An equal digest is `unchanged`. An absent id is `missing`. */
  | {
      readonly op: "update";
      readonly id: string;
      readonly digest: string;
      readonly data: string;
      /** `null`: the message's time stays as it is. */
      readonly createdAt: number | null;
    }
  /** Absent ids are ignored; all absent is `unchanged`. */
  | { readonly op: "remove"; readonly ids: readonly string[] }
  /**
   * Replace everything after the id by the records, and apply the patch, in one step, at the cost of what goes and what
   * comes. An absent id is `missing`; an id among those that stay, this one included, is `duplicate`, whatever its content.
   * An id that goes may come again. Nothing to remove, to add or to patch: `unchanged`.
   */
  | {
      readonly op: "replaceAfter";
      readonly id: string;
      readonly records: readonly MessageRecord[];
      readonly patch: Patch | undefined;
    };

/** Which messages to read. Results are always oldest first. No `limit`: all of them. `limit: 0`: the session only. */
export type Range =
  | { readonly from: "start" | "end"; readonly limit?: number }
  /** The `limit` messages nearest before, or after, the one with this id; without that one. */
  | { readonly before: string; readonly limit?: number }
  | { readonly after: string; readonly limit?: number };

/** Which sessions to list. `limit` is at least 1; a page may be shorter; only a missing cursor ends. */
export type ListQuery = {
  readonly limit: number;
  /** As returned by the page before; a backend refuses one that it cannot read (`decodeCursor`). */
  readonly cursor?: string;
} & (
  | { /** By `updatedAt` descending, then `key` ascending. */ readonly scope: Scope }
  | {
      /** Engine order; every session that exists throughout appears. Absent: all tenants; `""`: those without one. */
      readonly tenant?: string;
    }
);

/** Declared once, on the backend; the suite tests every value. */
export interface Capabilities {
  /** Several processes may open the same data at once. */
  readonly multiProcess: boolean;
  /**
   * What an acknowledged write survives for certain, with the settings in force; each includes those before it. Where a server's
   * settings decide, `open()` looks at them, and before it the store claims the least.
   *
   * | | |
   * |---|---|
   * | `nothing` | it ends with the store's process |
   * | `process` | the end of the application's process, by `kill -9` too; an engine that is another process has to go on |
   * | `engine` | the end of the engine's own process, too (an engine within the application has none, and skips this) |
   * | `host` | the end of the engine's machine: a power failure |
   * | `failover` | the loss of that machine with its disk, when another one takes over |
   */
  readonly survives: "nothing" | "process" | "engine" | "host" | "failover";
  /** The engine removes expired sessions by itself: `purge()` finds nothing to do. */
  readonly sweepsItself: boolean;
}

/** How `open()` treats the schema: create and migrate it, only check it, or trust it. */
export type MigrateMode = "auto" | "check" | "off";

/**
 * The nine methods of a backend.
 *
 * - An expired session is absent, in every method, swept or not. The engine's clock judges, never this process's.
 * - A failing engine is a thrown `BackendError { retryable, outcome }` (see {@link FailureOutcome}; of `open`, `read` and
 *   `list` always `not-applied`); damaged or newer data is a `CorruptSessionError` or `UnsupportedFormatError`; everything else is an {@link Outcome}.
 * - Core waits no longer than until a method's `signal` aborts. A method that knows more then than that time is over (that
 *   nothing was sent, for example) rejects with it at once. After that it begins nothing more,
 *   and called after that it does nothing.
 * - A method leaves no listener on its `signal`: a later call may get the same one.
 * - The same write comes again, under the same `next`, when an answer was lost. A backend need not remember more than the
 *   session's version: core knows that a repetition met what others wrote since, and never passes it off as this write's.
 * - Calls come concurrently. Calls on one session of one handle never overlap.
 */
export interface ChatStoreBackend {
  /** Lower-case, as in the package name: `sqlite`. */
  readonly name: string;
  readonly capabilities: Capabilities;

  /**
   * Connect, check the server, create or migrate the schema under a lock. Idempotent, safe in many processes at
   * once, one query without a lock when the schema is current. `warnings` say what may lose data.
   */
  open(options: { readonly migrate: MigrateMode; readonly signal: AbortSignal }): Promise<{
    readonly warnings: readonly string[];
  }>;

  /**
   * One snapshot of a session and some of its records, at the cost of those records (G12).
   * `undefined`: no such session. `"missing"`: the session is there, the message that the range names is not.
   */
  read(
    key: Key,
    range: Range,
    signal: AbortSignal,
  ): Promise<
    | { readonly session: SessionRecord; readonly records: readonly MessageRecord[] }
    | "missing"
    | undefined
  >;

  /**
   * Append records and apply the patch, in one atomic step (G2) and, when all records are fresh, one round trip (G12).
   * Records may be empty. Creates an absent session, unless there is nothing to write (`judgeAppend` says when).
   * Checks in this order: `next`, digests of present ids, `ifVersion`. Equal records are skipped.
   */
  append(
    key: Key,
    records: readonly MessageRecord[],
    patch: Patch | undefined,
    write: Write,
    signal: AbortSignal,
  ): Promise<Outcome>;

  /**
   * Change stored messages; may cost O(session). Removed text leaves the engine, not only the view (G14). Checks in this
   * order: `next`, `ifVersion` (always given), ids. On an absent session: `missing`, or `unchanged` for `remove`.
   */
  edit(key: Key, edit: Edit, write: Write, signal: AbortSignal): Promise<Outcome>;

  /**
   * Replace all messages at once, whatever their number, and apply the patch; title and state otherwise stay. Always a
   * change. `ifVersion` is always given. `times` keeps an imported session's own times.
   */
  replace(
    key: Key,
    records: readonly MessageRecord[],
    patch: Patch | undefined,
    write: Write & {
      readonly times?: Pick<SessionRecord, "createdAt" | "updatedAt" | "expiresAt">;
    },
    signal: AbortSignal,
  ): Promise<Outcome>;

  /**
   * Erase one session, or all of a user. Resolves when no trace is readable through the engine (G14), expired and
   * orphaned data included. Returns how many sessions existed.
   */
  erase(
    target: { readonly key: Key } | { readonly scope: Scope },
    signal: AbortSignal,
  ): Promise<number>;

  /** See {@link ListQuery}. */
  list(
    query: ListQuery,
    signal: AbortSignal,
  ): Promise<{ readonly sessions: readonly SessionRecord[]; readonly cursor?: string }>;

  /** Remove expired sessions and orphans, in bounded steps. Returns how many sessions. */
  purge(signal: AbortSignal): Promise<number>;

  /** Release only what `open()` made. Bounded in time; idempotent; also after an `open()` that failed. */
  close(): Promise<void>;
}

/** The part of a session that decides about a write. */
export type Standing = Pick<SessionRecord, "version" | "messageCount" | "title" | "state">;

/**
 * The rules of `append` for a backend that holds the session's lock and has looked: either the {@link Outcome}, or the
 * records that are to be inserted now (possibly none, when only the patch has an effect).
 *
 * @param current The session, `undefined` when absent or expired.
 * @param present Digests of those of the records' ids that are stored.
 */
export function judgeAppend(
  current: Standing | undefined,
  present: ReadonlyMap<string, string>,
  records: readonly MessageRecord[],
  patch: Patch | undefined,
  write: Write,
): Outcome | { readonly status: "insert"; readonly records: readonly MessageRecord[] } {
  if (current?.version === write.next) return unchanged(current);
  const duplicates = records.filter(
    (record) => present.has(record.id) && present.get(record.id) !== record.digest,
  );
  if (duplicates.length > 0) {
    return { status: "duplicate", ids: duplicates.map((record) => record.id) };
  }
  const missing = records.filter((record) => !present.has(record.id));
  if (missing.length === 0 && !patchChanges(current, patch)) return unchanged(current);
  return judgeVersion(current, write) ?? { status: "insert", records: missing };
}

/** The rule of `ifVersion`, and of a retried write: an {@link Outcome}, or `undefined` when the write may go ahead. */
export function judgeVersion(
  current: Pick<SessionRecord, "version" | "messageCount"> | undefined,
  write: Write,
): Outcome | undefined {
  if (current?.version === write.next) return unchanged(current);
  const version = current?.version ?? null;
  if (write.ifVersion !== undefined && write.ifVersion !== version) {
    return { status: "conflict", version };
  }
  return undefined;
}

/** The outcome of a write that had nothing to do. */
export function unchanged(
  current: Pick<SessionRecord, "version" | "messageCount"> | undefined,
): Outcome {
  return {
    status: "unchanged",
    version: current?.version ?? null,
    messageCount: current?.messageCount ?? 0,
  };
}

/** Apply a patch: the session's title and state after it. */
export function applyPatch(
  current: Pick<SessionRecord, "title" | "state"> | undefined,
  patch: Patch | undefined,
): Pick<SessionRecord, "title" | "state"> {
  const entries = new Map(Object.entries(current?.state ?? {}));
  for (const [name, value] of Object.entries(patch?.state ?? {})) {
    if (value === null) entries.delete(name);
    else entries.set(name, value);
  }
  const title = patch?.title === undefined ? (current?.title ?? null) : patch.title;
  return { title, state: Object.fromEntries(entries) };
}

/** Whether a patch has an effect. */
export function patchChanges(
  current: Pick<SessionRecord, "title" | "state"> | undefined,
  patch: Patch | undefined,
): boolean {
  if (patch?.title !== undefined && patch.title !== (current?.title ?? null)) return true;
  const state = new Map(Object.entries(current?.state ?? {}));
  return Object.entries(patch?.state ?? {}).some(
    ([name, value]) => value !== (state.get(name) ?? null),
  );
}

export type { FailureOutcome };
