/** What the methods of a `ChatStore` take and return. */
import type { MigrateMode, Version } from "./backend.js";
import type { ChatStoreError } from "./errors.js";
import type { ChatMessage, NewMessage } from "./messages.js";
import type { SessionKey } from "./session-key.js";

/** Sizes beyond which a write is refused before anything is written. Adjustable downwards. */
export interface Limits {
  /** Bytes of one encoded message. Default and maximum: 8 MiB (a photograph in base64). */
  readonly messageBytes: number;
  /** Messages in one `addMessages`. Default and maximum: 1,000. */
  readonly batchMessages: number;
  /** Bytes of one `addMessages`. Default and maximum: 12 MiB. */
  readonly batchBytes: number;
  /** Bytes of the entries of one `setState`. Default and maximum: 256 KiB. */
  readonly stateBytes: number;
}

/** Options that every backend takes, beside its own. */
export interface ChatStoreOptions {
  /**
   * Expire a session when it has not changed for this many milliseconds (G11), at most a hundred years. Default: never. Every write of this
   * handle sets the session's expiry anew; without `ttl` a handle leaves expiry alone.
   */
  readonly ttl?: number | undefined;
  /**
   * Milliseconds after which an operation gives up, its retries and its place in the queue included. Default: 5,000. While
   * the engine answers, an operation does not time out for those queued before it.
   */
  readonly timeout?: number | undefined;
  /** What `open()` does about the schema. `auto` (default) creates and migrates it, `check` only checks, `off` trusts. */
  readonly migrate?: MigrateMode | undefined;
  readonly limits?: Partial<Limits> | undefined;
  /**
   * Return the same handle for the same options, also after a development server's hot reload. Default: false. Needs
   * options of plain data, beside the listeners; anything else is an `InvalidOptionsError`.
   */
  readonly shared?: boolean | undefined;
  /** Hears of each failed write whose promise nobody holds. Default: a process warning. */
  readonly onError?: ((error: ChatStoreError) => void) | undefined;
  /** Hears of each danger that `open()` finds, for example a server that may lose data. Default: a process warning. */
  readonly onWarning?: ((warning: string) => void) | undefined;
}

/** What a write did. */
export interface WriteResult {
  /**
   * The version that this write made, for a later `ifVersion`: when somebody has written since, that conflicts. Of a write
   * that had nothing to do the session's version, which others may have made. `null`: the session does not exist.
   */
  readonly version: Version | null;
  /** How many messages the write left. When its answer was lost and others wrote before it was repeated: how many there are now. */
  readonly messageCount: number;
}

/** A write may name the version that the session must have. */
export interface WriteOptions {
  /**
   * Write only if the session still is at this version, or, with `null`, does not exist.
   * Otherwise {@link VersionConflictError}.
   */
  readonly ifVersion?: Version | null | undefined;
}

/** A write of messages may change title and state in the same atomic step. */
export interface MessageWriteOptions extends WriteOptions {
  /** As `setTitle()` does. Default: it stays. */
  readonly title?: string | null | undefined;
  /** Entries to merge, as `setState()` does. Default: all stay. */
  readonly state?: Readonly<Record<string, unknown>> | undefined;
}

/** Which messages to read. Nothing: all of them. Results are always oldest first. */
export interface ReadOptions {
  /** The newest n. */
  readonly last?: number | undefined;
  /** Those before the message with this id, the nearest `limit` of them. */
  readonly before?: string | undefined;
  /** Those after the message with this id, the nearest `limit` of them. */
  readonly after?: string | undefined;
  /** At most so many. Without `before` or `after`: the oldest. */
  readonly limit?: number | undefined;
}

/** A session as it is listed. Times are the engine's clock. */
export interface SessionInfo {
  readonly key: SessionKey;
  readonly version: Version;
  readonly messageCount: number;
  readonly createdAt: Date;
  /** Time of the last change. */
  readonly updatedAt: Date;
  readonly expiresAt?: Date;
  readonly title?: string;
  /**
   * Only in lists: what is stored of it is damaged, or of a newer format. Reading it throws the error that says so; the
   * other fields but `key` say nothing. Absent: it can be read.
   */
  readonly unreadable?: true;
}

/** A session with its state. */
export interface Session extends SessionInfo {
  /** Small named JSON documents, each written by its owner with `setState`. */
  readonly state: Readonly<Record<string, unknown>>;
}

/** Which sessions to list. */
export interface ListOptions {
  /** Beside a user may be `undefined`, which means none. */
  readonly tenant?: string | undefined;
  /**
   * With a user: newest first. `tenant` omitted then means that user's keys without a tenant. Without a user: all
   * sessions (of the tenant, if given) in engine order; `undefined` is refused, since that is a mistake of whoever meant one.
   */
  readonly user?: string;
  /** Page size, 1 to 1,000; a page may be shorter. Default: 50. */
  readonly limit?: number | undefined;
  /** From the page before. */
  readonly cursor?: string | undefined;
}

/** What `importSession` writes: a whole session, with its own times. */
export interface SessionImport<Message extends object = ChatMessage> {
  readonly messages: readonly NewMessage<Message>[];
  readonly title?: string | undefined;
  readonly state?: Readonly<Record<string, unknown>> | undefined;
  /** A Date, or its ISO text. */
  readonly createdAt: Date | string;
  readonly updatedAt: Date | string;
  readonly expiresAt?: Date | string | undefined;
}
