/**
 * The stored form of messages and state: one versioned envelope of plain JSON, so that every backend keeps the same
 * fidelity (G7) and a person reads role and text in a database console.
 *
 * Envelope of a message: `{"v":1,"role":"user","content":"hi","options":{…},"annotations":[…],"extra":{…}}`, where
 * `extra` holds the fields that this version does not know, and what the message does not have is left out. Envelope of a
 * state entry: `{"v":1,"value":…}`. How values that JSON cannot say are written: `values.ts`.
 */
import { types } from "node:util";
import type { MessageRecord } from "./backend.js";
import { filledIn } from "./bridge/filled-in.js";
import { randomUUID, sha256 } from "./crypto.js";
import {
  CorruptSessionError,
  InvalidMessageError,
  LimitExceededError,
  UnsupportedFormatError,
} from "./errors.js";
import type { NewMessage, StoredMessage } from "./messages.js";
import { show } from "./show.js";
import { fromPortable, isPortable, toPortable } from "./text.js";
import { canonical, Encoder, revive } from "./values.js";

/** The envelope's version. A record of a newer one is refused, never guessed at. */
const formatVersion = 1;

const maxIdBytes = 512;
const maxRoleLength = 64;

/** What of an envelope is a message's content, in the order in which it is written and compared. */
const contentMembers = ["role", "content", "options", "annotations", "extra"] as const;

/**
 * A message as a record.
 *
 * @param label Names the message in errors, for example `messages[3]`.
 * @param maxBytes Of the record's data.
 * @throws InvalidMessageError for a wrong shape, SerializationError for a value that cannot be kept exactly,
 *   LimitExceededError.
 */
export function encodeMessage(
  message: unknown,
  label: string,
  maxBytes = Number.POSITIVE_INFINITY,
): MessageRecord {
  const { id, createdAt, role, content, options, annotations, ...extra } = fieldsOf(message, label);
  checkRole(role, extra["type"], label);
  checkContent(content, label);
  checkFurther(options, annotations, label);
  const encoder = new Encoder(label, maxBytes, (size) => tooLarge(label, maxBytes, size));
  let body = "";
  const add = (name: (typeof contentMembers)[number], json: string) => {
    body += `${body === "" ? "" : ","}"${name}":${json}`;
  };
  if (role !== undefined) add("role", encoder.encode(role, "role"));
  if (content !== undefined) add("content", encoder.encode(content, "content"));
  if (options !== undefined) add("options", encoder.encode(options, "options"));
  if (annotations !== undefined) add("annotations", encoder.encode(annotations, "annotations"));
  const further = Object.keys(extra).length > 0;
  if (further) add("extra", encoder.encodeFields(extra));
  const data = `{"v":${formatVersion},${body}}`;
  const bytes = Buffer.byteLength(data);
  if (bytes > maxBytes) throw tooLarge(label, maxBytes, bytes);
  const isText =
    typeof content === "string" &&
    options === undefined &&
    annotations === undefined &&
    !further &&
    isPortable(content) &&
    (role === undefined || isPortable(role as string));
  const filled = filledIn.get(message as NewMessage);
  return {
    id: id === undefined || id === null ? randomUUID() : checkMessageId(id, label),
    digest: isText ? digestOf(body) : recordDigest(data),
    data,
    createdAt: timeOf(createdAt, label) ?? Date.now(),
    ...((id === undefined || id === null || filled?.id) && { fresh: true }),
  };
}

/** The inverse of {@link encodeMessage}. */
export function decodeMessage(record: MessageRecord): StoredMessage {
  const what = `message ${record.id}`;
  const envelope = decode(record.data, what);
  const { role, content, options, annotations, extra } = envelope;
  const message: Record<string, unknown> = {
    id: fromPortable(record.id),
    createdAt: new Date(record.createdAt),
  };
  let members = 1;
  const add = (name: string, value: unknown) => {
    members++;
    message[name] = value;
  };
  if (role !== undefined) add("role", role);
  if (content !== undefined) add("content", content);
  if (options !== undefined) add("options", options);
  if (annotations !== undefined) add("annotations", annotations);
  if (extra !== undefined) members++;
  // With members that no version has written it is damaged.
  if (Object.keys(envelope).length !== members || !isMessage(role, content, extra)) {
    throw new CorruptSessionError(`The stored ${what} is no message`);
  }
  // Spread defines properties, where Object.assign would run the setter of `__proto__`.
  return (extra === undefined ? message : { ...message, ...extra }) as unknown as StoredMessage;
}

function isMessage(role: unknown, content: unknown, extra: unknown): extra is object | undefined {
  if (typeof content !== "string" && typeof content !== "object" && content !== undefined)
    return false;
  if (extra !== undefined && !isPlainObject(extra)) return false;
  if (role !== undefined) return typeof role === "string";
  return typeof (extra as { type?: unknown } | undefined)?.type === "string";
}

/**
 * 22 characters of a SHA-256 over the content of a stored message: what its record's `digest` must be. It depends on nothing
 * but `data`, so that stored data can be checked; neither on the order of an object's keys, nor on what JSON does not carry.
 *
 * @throws CorruptSessionError, UnsupportedFormatError for data that is no message's.
 */
export function recordDigest(data: string): string {
  const envelope = parse(data, "message");
  try {
    const content: Record<string, unknown> = {};
    for (const name of contentMembers) {
      const member = envelope[name];
      if (member !== undefined) content[name] = canonical(member);
    }
    const { extra } = content;
    if (extra !== undefined && Object.keys(extra as object).length === 0) delete content["extra"];
    return digestOf(JSON.stringify(content).slice(1, -1));
  } catch (cause) {
    throw new CorruptSessionError("The stored message holds a value that cannot be read", {
      cause,
    });
  }
}

function digestOf(text: string): string {
  return sha256(text).slice(0, 22);
}

/** Whether a record is what it was when its digest was made. Costs about as much as reading it. */
export function holdsItsDigest({ data, digest }: MessageRecord): boolean {
  return recordDigest(data) === digest;
}

/** One state entry as text. */
export function encodeState(
  value: unknown,
  name: string,
  maxBytes = Number.POSITIVE_INFINITY,
  tooMuch?: (size: number) => Error,
): string {
  const encoder = new Encoder("state", maxBytes, tooMuch);
  return `{"v":${formatVersion},"value":${encoder.encode(value, name)}}`;
}

/** The inverse of {@link encodeState}. */
export function decodeState(data: string, name: string): unknown {
  return decode(data, `state entry ${name}`)["value"];
}

/** A message's own fields, each read once. */
function fieldsOf(message: unknown, label: string): Record<string, unknown> {
  let fields: Record<string, unknown>;
  try {
    if (!isPlainObject(message)) {
      throw new InvalidMessageError(`${label} is ${named(message)}; ${wayOut}`);
    }
    fields = { ...message };
  } catch (cause) {
    if (cause instanceof InvalidMessageError) throw cause;
    throw new InvalidMessageError(`${label} cannot be read; ${wayOut}`, { cause });
  }
  return fields;
}

const wayOut =
  'give a plain object with a "role" and "content", or with a "type", such as { role: "user", content: "Hello" }; what is no message belongs into setState()';

function isPlainObject(value: unknown): value is object {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  // An object of another realm has that realm's Object.prototype.
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

function named(value: unknown): string {
  const shown = show(value);
  if (shown !== "an object") return shown;
  const name: unknown = (value as object).constructor?.name;
  return typeof name === "string" && name !== "" ? `an instance of ${name}` : shown;
}

function checkRole(role: unknown, type: unknown, label: string): void {
  if (role === undefined) {
    if (typeof type === "string" && type !== "") return;
    throw new InvalidMessageError(`${label} has neither a "role" nor a "type"; ${wayOut}`);
  }
  if (typeof role !== "string" || role === "" || role.length > maxRoleLength) {
    throw new InvalidMessageError(
      `${label}.role is ${show(role)}; it must be a string of 1 to ${maxRoleLength} characters`,
    );
  }
}

function checkContent(content: unknown, label: string): void {
  if (content === undefined || typeof content === "string" || typeof content === "object") return;
  throw new InvalidMessageError(
    `${label}.content is ${show(content)}; it must be a string, an array of parts, an object, null or absent`,
  );
}

function checkFurther(options: unknown, annotations: unknown, label: string): void {
  if (options !== undefined && typeof options !== "object") {
    throw new InvalidMessageError(
      `${label}.options is ${show(options)}; it must be an object, null or absent: ${elsewhere}`,
    );
  }
  if (annotations !== undefined && annotations !== null && !Array.isArray(annotations)) {
    throw new InvalidMessageError(
      `${label}.annotations is ${show(annotations)}; it must be an array, null or absent: ${elsewhere}`,
    );
  }
}

const elsewhere = "a framework's own field of that name belongs into `native`";

/** @returns The id as it is stored. */
function checkMessageId(id: unknown, label: string): string {
  if (typeof id !== "string" || id === "") {
    throw new InvalidMessageError(`${label}.id is ${show(id)}; it must be a non-empty string`);
  }
  const bytes = id.length > maxIdBytes ? id.length : Buffer.byteLength(toPortable(id));
  if (bytes > maxIdBytes) {
    throw new InvalidMessageError(
      `${label}.id is ${bytes} bytes long, at most ${maxIdBytes} are allowed`,
    );
  }
  return toPortable(id);
}

/** What `Date.prototype.toJSON` writes, and ISO 8601 with another zone or precision. */
const isoTime = /^(?:\d{4}|[+-]\d{6})-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)$/;

/** A time that a caller gives, in ms since 1970; `undefined` for one that cannot be read. */
export function readTime(time: unknown): number | undefined {
  const isText = typeof time === "string" && time.length < 40 && isoTime.test(time);
  if (!isText && !types.isDate(time)) return undefined;
  const read = isText ? Date.parse(time) : Date.prototype.getTime.call(time);
  return Number.isNaN(read) ? undefined : read;
}

function timeOf(createdAt: unknown, label: string): number | undefined {
  if (createdAt === undefined || createdAt === null) return undefined;
  const time = readTime(createdAt);
  if (time !== undefined) return time;
  throw new InvalidMessageError(
    `${label}.createdAt is ${show(createdAt)}; it must be a valid Date, or its ISO text with a time zone`,
  );
}

function tooLarge(label: string, maximum: number, actual: number): LimitExceededError {
  const advice = `store ${label}'s media elsewhere and keep its URL`;
  return new LimitExceededError("messageBytes", maximum, actual, advice);
}

function decode(data: string, what: string): Record<string, unknown> {
  const envelope = parse(data, what);
  // In JSON text `"$":` can only be a key, since a quote inside a string is escaped. A `$` alone is found faster.
  if (data.includes("$") && data.includes('"$":')) revive(envelope, what);
  return envelope;
}

function parse(data: string, what: string): Record<string, unknown> {
  let envelope: unknown;
  try {
    envelope = JSON.parse(data);
  } catch {
    // Its error would cite what somebody said.
    throw new CorruptSessionError(`The stored ${what} is not JSON`);
  }
  if (typeof envelope !== "object" || envelope === null || !("v" in envelope)) {
    throw new CorruptSessionError(`The stored ${what} is no Chatstore envelope`);
  }
  if (envelope.v !== formatVersion) {
    if (typeof envelope.v === "number" && envelope.v > formatVersion) {
      throw new UnsupportedFormatError(
        `The stored ${what} has format version ${envelope.v}, this Chatstore reads up to ${formatVersion}: upgrade it`,
      );
    }
    throw new CorruptSessionError(`The stored ${what} has no valid format version`);
  }
  return envelope as Record<string, unknown>;
}
