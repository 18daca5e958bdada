/**
 * What failed, as a stable value: codes are API, messages are not.
 *
 * | code | class | what to do |
 * |---|---|---|
 * | `INVALID_SESSION_KEY` | {@link InvalidSessionKeyError} | make the key with `sessionKey()` |
 * | `INVALID_MESSAGE` | {@link InvalidMessageError} | correct the message |
 * | `INVALID_OPTIONS` | {@link InvalidOptionsError} | correct the option or argument |
 * | `SERIALIZATION` | {@link SerializationError} | remove or convert the value at `path` |
 * | `LIMIT_EXCEEDED` | {@link LimitExceededError} | send less at once |
 * | `VERSION_CONFLICT` | {@link VersionConflictError} | read again, decide again |
 * | `DUPLICATE_MESSAGE` | {@link DuplicateMessageError} | use another id |
 * | `MESSAGE_NOT_FOUND` | {@link MessageNotFoundError} | the message is gone: read again |
 * | `SESSION_NOT_FOUND` | {@link SessionNotFoundError} | the session is absent or expired |
 * | `BACKEND` | {@link BackendError} | look at `cause`; try again if `retryable` |
 * | `TIMEOUT` | {@link TimeoutError} | the engine did not answer in time |
 * | `CLOSED` | {@link ClosedError} | open a new store |
 * | `CORRUPT_SESSION` | {@link CorruptSessionError} | restore or repair the stored data |
 * | `UNSUPPORTED_FORMAT` | {@link UnsupportedFormatError} | upgrade Chatstore |
 * | `SCHEMA` | {@link SchemaError} | create or migrate the schema |
 * | `BACKEND_NOT_INSTALLED` | {@link BackendNotInstalledError} | run the command in the message |
 * | `BACKEND_NOT_LOADED` | {@link BackendNotLoadedError} | look at `cause`; install again, or the same version as core |
 * | `QUEUE_FULL` | {@link QueueFullError} | the engine has been away for too long |
 */
export type ErrorCode =
  | "INVALID_SESSION_KEY"
  | "INVALID_MESSAGE"
  | "INVALID_OPTIONS"
  | "SERIALIZATION"
  | "LIMIT_EXCEEDED"
  | "VERSION_CONFLICT"
  | "DUPLICATE_MESSAGE"
  | "MESSAGE_NOT_FOUND"
  | "SESSION_NOT_FOUND"
  | "BACKEND"
  | "TIMEOUT"
  | "CLOSED"
  | "CORRUPT_SESSION"
  | "UNSUPPORTED_FORMAT"
  | "SCHEMA"
  | "BACKEND_NOT_INSTALLED"
  | "BACKEND_NOT_LOADED"
  | "QUEUE_FULL";

/** The base of every error that Chatstore throws. */
export class ChatStoreError extends Error {
  /** Stable; compare this, never the message. */
  readonly code: ErrorCode;
  /** Whether the same call may succeed later without anything being changed. */
  readonly retryable: boolean;

  constructor(
    code: ErrorCode,
    message: string,
    options: { cause?: unknown; retryable?: boolean } = {},
  ) {
    super(message, "cause" in options ? { cause: options.cause } : undefined);
    this.name = nameOf(code);
    this.code = code;
    this.retryable = options.retryable ?? false;
  }
}

/** `VERSION_CONFLICT` is a `VersionConflictError`. A class's own name does not survive a minifier. */
function nameOf(code: ErrorCode): string {
  const words = code.split("_").map((word) => `${word[0]}${word.slice(1).toLowerCase()}`);
  return `${words.join("")}Error`;
}

/** A session key, or a part of one, that cannot be a key. Nothing was read or written. */
export class InvalidSessionKeyError extends ChatStoreError {
  /** The part that is wrong: `tenant`, `user`, `conversation`, or `key` for a whole key. */
  readonly part: string;

  constructor(part: string, reason: string, options: { cause?: unknown } = {}) {
    super("INVALID_SESSION_KEY", `Invalid session key: ${part} ${reason}`, options);
    this.part = part;
  }
}

/** A message of the wrong shape. Nothing was written. */
export class InvalidMessageError extends ChatStoreError {
  constructor(reason: string, options: { cause?: unknown } = {}) {
    super("INVALID_MESSAGE", `Invalid message: ${reason}`, options);
  }
}

/** An option or an argument that is not acceptable. Nothing was written. */
export class InvalidOptionsError extends ChatStoreError {
  constructor(reason: string, options: { cause?: unknown } = {}) {
    super("INVALID_OPTIONS", reason, options);
  }
}

/** A value that cannot be stored exactly. Nothing was written. */
export class SerializationError extends ChatStoreError {
  /** Where the value is, for example `options.toolCall[0].input.callback`. */
  readonly path: string;

  constructor(path: string, reason: string, options: { cause?: unknown } = {}) {
    super("SERIALIZATION", `Cannot store ${path}: ${reason}`, options);
    this.path = path;
  }
}

/** More than a limit allows. Nothing was written. */
export class LimitExceededError extends ChatStoreError {
  /** Name of the limit, as in `ChatStoreOptions.limits`. */
  readonly limit: string;
  /** Largest allowed value, in the limit's unit. */
  readonly maximum: number;
  /** What was given, in the limit's unit. */
  readonly actual: number;

  constructor(limit: string, maximum: number, actual: number, advice: string) {
    super("LIMIT_EXCEEDED", `${limit} is ${actual}, at most ${maximum} is allowed: ${advice}`);
    this.limit = limit;
    this.maximum = maximum;
    this.actual = actual;
  }
}

/** The session is not at the version that the write required. Nothing was written. */
export class VersionConflictError extends ChatStoreError {
  /** The session's version now; `null` when the session is absent. */
  readonly currentVersion: string | null;

  constructor(key: string, expected: string | null, currentVersion: string | null) {
    const is = currentVersion === null ? "absent" : `at version ${currentVersion}`;
    const wanted = expected === null ? "absence" : `version ${expected}`;
    super(
      "VERSION_CONFLICT",
      `Session ${key} is ${is}, the write required ${wanted}: read the session again`,
    );
    this.currentVersion = currentVersion;
  }
}

/** An id is already used by a message with other content. Nothing was written. */
export class DuplicateMessageError extends ChatStoreError {
  readonly ids: readonly string[];

  constructor(key: string, ids: readonly string[], where: "the batch" | "the session") {
    super(
      "DUPLICATE_MESSAGE",
      where === "the batch"
        ? `Session ${key}: the batch holds the id ${list(ids)} more than once`
        : `Session ${key} already holds other content under the id ${list(ids)}`,
    );
    this.ids = ids;
  }
}

/** No message with this id in the session: it was removed, or never was there. */
export class MessageNotFoundError extends ChatStoreError {
  readonly ids: readonly string[];

  constructor(key: string, ids: readonly string[]) {
    super("MESSAGE_NOT_FOUND", `Session ${key} holds no message ${list(ids)}: read it again`);
    this.ids = ids;
  }
}

/** The session that an operation needs does not exist, or has expired. */
export class SessionNotFoundError extends ChatStoreError {
  constructor(key: string) {
    super("SESSION_NOT_FOUND", `Session ${key} does not exist`);
  }
}

/** Whether a failed write took effect. `unknown`: the connection broke before the answer came. */
export type FailureOutcome = "not-applied" | "unknown";

/** The engine failed, refused or cannot be reached. The driver's error is the `cause`. */
export class BackendError extends ChatStoreError {
  /** Of a write: whether it may have happened. Of a read it says nothing. */
  readonly outcome: FailureOutcome;

  constructor(
    message: string,
    options: {
      retryable: boolean;
      outcome: FailureOutcome;
      cause?: unknown;
      code?: "BACKEND" | "TIMEOUT";
    },
  ) {
    super(options.code ?? "BACKEND", redact(message), options);
    this.outcome = options.outcome;
  }
}

/** The engine did not answer within `timeout`. */
export class TimeoutError extends BackendError {
  constructor(message: string, options: { outcome: FailureOutcome; cause?: unknown }) {
    super(message, { ...options, retryable: true, code: "TIMEOUT" });
  }
}

/** The store was closed. */
export class ClosedError extends ChatStoreError {
  constructor(options: { cause?: unknown } = {}) {
    super("CLOSED", "This chat store is closed: open a new one", options);
  }
}

/** Stored data that contradicts itself or cannot be read. Nothing was changed. */
export class CorruptSessionError extends ChatStoreError {
  constructor(message: string, options: { cause?: unknown } = {}) {
    super("CORRUPT_SESSION", message, options);
  }
}

/** Stored data of a format that this version of Chatstore does not know. Nothing was changed. */
export class UnsupportedFormatError extends ChatStoreError {
  constructor(message: string) {
    super("UNSUPPORTED_FORMAT", message);
  }
}

/** The schema is missing or old, and `migrate` does not allow to change it. */
export class SchemaError extends ChatStoreError {
  constructor(message: string) {
    super("SCHEMA", message);
  }
}

/** A backend named by URL or configuration is not installed where the application can be expected to have it. */
export class BackendNotInstalledError extends ChatStoreError {
  /** What to install. */
  readonly packageName: string;

  /** @param where Which names were looked for, and from where. */
  constructor(packageName: string, where: string) {
    super(
      "BACKEND_NOT_INSTALLED",
      `The backend package ${packageName} is not installed. Run: npm install ${packageName}. (${where}. ` +
        "Where packages are not beside the application, as in a bundle, import the factory and give it: " +
        "openChatStore({ backend: redisChatStore, … }))",
    );
    this.packageName = packageName;
  }
}

/** A backend named by URL or configuration is installed, and cannot be used: it fails to load, or is of another version. */
export class BackendNotLoadedError extends ChatStoreError {
  readonly packageName: string;

  constructor(packageName: string, reason: string, options: { cause?: unknown } = {}) {
    super(
      "BACKEND_NOT_LOADED",
      `${packageName} is installed, and cannot be used: ${reason}`,
      options,
    );
    this.packageName = packageName;
  }
}

/** So many writes wait for an engine that is away that no more are accepted. */
export class QueueFullError extends ChatStoreError {
  constructor(message: string) {
    super("QUEUE_FULL", message, { retryable: true });
  }
}

/**
 * Remove passwords from a text that is about to be shown: all from a URL's `scheme://` to the last `@` of the text (a password
 * that is not percent-encoded holds any character, and may be followed by others like it), and what parameters such as
 * `password=` say. A session key such as `u:me@example.org` stays.
 *
 * @example redact("connect redis://me:secret@host failed") // "connect redis://***@host failed"
 */
export function redact(text: string): string {
  return text
    .replace(/([a-z][a-z0-9+.-]*:\/\/)[\s\S]*@/gi, "$1***@")
    .replace(/([?&;][\w.-]*(?:passw|pwd|secret|token)[\w.-]*=)[^&;\s"']*/gi, "$1***");
}

function list(ids: readonly string[]): string {
  const shown = ids.slice(0, 5).map((id) => JSON.stringify(id));
  return shown.join(", ") + (ids.length > 5 ? ` and ${ids.length - 5} more` : "");
}
