/**
 * The stored form of messages and state: one versioned envelope of plain JSON, so that every backend keeps the same
 * fidelity (G7) and a person reads role and text in a database console.
 *
 * Envelope of a message: `{"v":1,"role":"user","content":"hi","options":{…},"annotations":[…],"extra":{…}}`, where
 * `extra` holds the fields that this version does not know. Envelope of a state entry: `{"v":1,"value":…}`.
 *
 * What JSON cannot say is an object with the reserved key `$`: `{"$":"date","value":"2026-01-01T00:00:00.000Z"}`.
 * Tags: `bigint`, `bytes` (base64), `date` (ISO 8601, null when invalid), `map`, `number` (-0, NaN, ±Infinity), `object`
 * (entries; for keys that JSON objects or engines cannot hold, and for objects with a key `$`), `set`, `text` (NULs and
 * lone surrogates as \uXXXX, backslashes likewise), `undefined`.
 */
import { types } from "node:util";
import type { MessageRecord } from "./backend.js";
import { filledIn } from "./bridge/filled-in.js";
import { randomUUID, sha256 } from "./crypto.js";
import {
  CorruptSessionError,
  InvalidMessageError,
  SerializationError,
  UnsupportedFormatError,
} from "./errors.js";
import type { MessageRole, NewMessage, StoredMessage } from "./messages.js";
import { escapeText, fromPortable, isPortable, toPortable, unescapeText } from "./text.js";

/** The envelope's version. A record of a newer one is refused, never guessed at. */
const formatVersion = 1;

const roles: ReadonlySet<unknown> = new Set<MessageRole>([
  "user",
  "assistant",
  "system",
  "memory",
  "developer",
]);
const maxIdBytes = 512;
/** Deeper values would overflow the stack of a recursive encoder; no message is near it. */
const maxDepth = 500;

/**
 * A message as a record.
 *
 * @param label Names the message in errors, for example `messages[3]`.
 * @throws InvalidMessageError for a wrong shape, SerializationError for a value that cannot be kept exactly.
 */
export function encodeMessage(message: NewMessage, label: string): MessageRecord {
  if (typeof message !== "object" || message === null) {
    throw new InvalidMessageError(
      `${label} is ${message === null ? "null" : typeof message}, not an object`,
    );
  }
  const { id, createdAt, role, content, options, annotations, ...extra } = message;
  checkShape(message, label);
  const encoder = new Encoder(label);
  const body: Record<string, unknown> = { role, content: encoder.encode(content, "content") };
  if (options !== undefined) body["options"] = encoder.encode(options, "options");
  if (annotations !== undefined) body["annotations"] = encoder.encode(annotations, "annotations");
  if (Object.keys(extra).length > 0) body["extra"] = encoder.encode(extra, "extra");
  const filled = filledIn.get(message);
  const time = createdAt?.getTime();
  const given = filled?.createdAt ? undefined : time;
  const json = JSON.stringify(body);
  return {
    id: id === undefined ? randomUUID() : toPortable(id),
    digest: digestOf(body, json, given),
    data: `{"v":${formatVersion},${json.slice(1)}`,
    createdAt: time ?? Date.now(),
    ...((id === undefined || filled?.id) && { fresh: true }),
  };
}

/** The inverse of {@link encodeMessage}. */
export function decodeMessage(record: MessageRecord): StoredMessage {
  const envelope = decode(record.data, `message ${record.id}`);
  const message: StoredMessage = {
    id: fromPortable(record.id),
    createdAt: new Date(record.createdAt),
    role: envelope["role"] as MessageRole,
    content: envelope["content"] as StoredMessage["content"],
  };
  if (envelope["options"] !== undefined) message.options = envelope["options"] as object;
  if (envelope["annotations"] !== undefined) {
    message.annotations = envelope["annotations"] as unknown[];
  }
  // Spread defines properties, where Object.assign would run the setter of `__proto__`.
  return envelope["extra"] === undefined ? message : { ...message, ...envelope["extra"] };
}

/** Whether a record is what it was when its digest was made. Costs about as much as reading it. */
export function holdsItsDigest(record: MessageRecord): boolean {
  const { v: _, ...body } = JSON.parse(record.data) as Record<string, unknown>;
  const json = JSON.stringify(body);
  return [undefined, record.createdAt].some((time) => digestOf(body, json, time) === record.digest);
}

/** One state entry as text. */
export function encodeState(value: unknown, name: string): string {
  return JSON.stringify({ v: formatVersion, value: new Encoder("state").encode(value, name) });
}

/** The inverse of {@link encodeState}. */
export function decodeState(data: string, name: string): unknown {
  return decode(data, `state entry ${name}`)["value"];
}

function checkShape(message: NewMessage, label: string): void {
  const { id, createdAt, role, content, options, annotations } = message;
  if (!roles.has(role)) {
    throw new InvalidMessageError(
      `${label}.role is ${show(role)}; known roles: ${[...roles].join(", ")}`,
    );
  }
  if (typeof content !== "string") {
    if (!Array.isArray(content)) {
      throw new InvalidMessageError(
        `${label}.content is ${show(content)}; it must be a string or an array of parts`,
      );
    }
    const wrong = content.findIndex((part) => typeof part?.type !== "string");
    if (wrong >= 0) {
      throw new InvalidMessageError(`${label}.content[${wrong}] has no string "type"`);
    }
  }
  if (id !== undefined) {
    if (typeof id !== "string" || id === "") {
      throw new InvalidMessageError(`${label}.id is ${show(id)}; it must be a non-empty string`);
    }
    const bytes = Buffer.byteLength(toPortable(id));
    if (bytes > maxIdBytes) {
      throw new InvalidMessageError(
        `${label}.id is ${bytes} bytes long, at most ${maxIdBytes} are allowed`,
      );
    }
  }
  if (
    createdAt !== undefined &&
    !(types.isDate(createdAt) && Number.isFinite(createdAt.getTime()))
  ) {
    throw new InvalidMessageError(
      `${label}.createdAt is ${show(createdAt)}; it must be a valid Date`,
    );
  }
  if (options !== undefined && (typeof options !== "object" || options === null)) {
    throw new InvalidMessageError(`${label}.options is ${show(options)}; it must be an object`);
  }
  if (annotations !== undefined && !Array.isArray(annotations)) {
    throw new InvalidMessageError(
      `${label}.annotations is ${show(annotations)}; it must be an array`,
    );
  }
}

function show(value: unknown): string {
  if (typeof value === "string")
    return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
  if (typeof value === "object" && value !== null) {
    return types.isDate(value)
      ? "an invalid date"
      : Array.isArray(value)
        ? "an array"
        : "an object";
  }
  return String(value);
}

/**
 * 22 characters of a SHA-256 over the content, in which the order of an object's keys makes no difference.
 *
 * @param json `body` as JSON. Its own members have one order, so it only needs sorting when there are objects in it.
 */
function digestOf(body: Record<string, unknown>, json: string, time: number | undefined): string {
  const nested = Object.values(body).some((value) => typeof value === "object");
  return sha256((nested ? canonicalJson(body) : json) + (time ?? "")).slice(0, 22);
}

function canonicalJson(value: unknown): string {
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  const object = value as Record<string, unknown>;
  const members = Object.keys(object)
    .sort()
    .map((name) => `${JSON.stringify(name)}:${canonicalJson(object[name])}`);
  return `{${members.join(",")}}`;
}

/** Turns values into plain JSON values. What needs no tag is returned as it is, not copied. */
class Encoder {
  readonly #label: string;
  /** Where we are, for errors. */
  readonly #path: (string | number)[] = [];
  /** The objects that we are inside of, for cycles. */
  readonly #ancestors: object[] = [];

  constructor(label: string) {
    this.#label = label;
  }

  encode(value: unknown, name: string | number): unknown {
    this.#path.push(name);
    const encoded = this.#value(value);
    this.#path.pop();
    return encoded;
  }

  #value(value: unknown): unknown {
    switch (typeof value) {
      case "string":
        return isPortable(value) ? value : tagged("text", escapeText(value));
      case "number":
        return Number.isFinite(value) && !Object.is(value, -0)
          ? value
          : tagged("number", Object.is(value, -0) ? "-0" : String(value));
      case "boolean":
        return value;
      case "undefined":
        return tagged("undefined");
      case "bigint":
        return tagged("bigint", String(value));
      case "object":
        return value === null ? null : this.#object(value);
      default:
        return this.#refuse(`a ${typeof value} cannot be stored`);
    }
  }

  #object(value: object): unknown {
    if (types.isDate(value)) {
      return tagged("date", Number.isNaN(value.getTime()) ? null : value.toISOString());
    }
    if (types.isUint8Array(value)) {
      return tagged(
        "bytes",
        Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("base64"),
      );
    }
    if (this.#ancestors.includes(value)) this.#refuse("it contains itself");
    if (this.#ancestors.length >= maxDepth) this.#refuse(`it is nested more than ${maxDepth} deep`);
    this.#ancestors.push(value);
    const encoded = this.#container(value);
    this.#ancestors.pop();
    return encoded;
  }

  #container(value: object): unknown {
    if (Array.isArray(value)) return this.#array(value);
    if (types.isMap(value)) {
      return tagged(
        "map",
        [...value].map(([key, item], index) => [
          this.encode(key, `key ${index}`),
          this.encode(item, index),
        ]),
      );
    }
    if (types.isSet(value))
      return tagged(
        "set",
        [...value].map((item, index) => this.encode(item, index)),
      );
    return this.#plainObject(value as Record<string, unknown>);
  }

  #array(value: readonly unknown[]): unknown {
    let copy: unknown[] | undefined;
    for (let index = 0; index < value.length; index++) {
      if (!(index in value)) {
        this.#path.push(index);
        this.#refuse("an array with holes cannot be stored");
      }
      const encoded = this.encode(value[index], index);
      if (encoded !== value[index]) {
        copy ??= value.slice();
        copy[index] = encoded;
      }
    }
    return copy ?? value;
  }

  #plainObject(value: Record<string, unknown>): unknown {
    const prototype: unknown = Object.getPrototypeOf(value);
    // A plain object of another realm (a vm context, a test runner) has that realm's Object.prototype.
    if (prototype !== null && Object.getPrototypeOf(prototype) !== null) {
      this.#refuse(
        `an instance of ${className(value)} cannot be stored: convert it to a plain object`,
      );
    }
    if (Object.getOwnPropertySymbols(value).length > 0) {
      this.#refuse("an object with a symbol as key cannot be stored");
    }
    const names = Object.keys(value);
    const entries = names.map((name) => [name, this.encode(value[name], name)] as const);
    if (names.some((name) => name === "$" || !isPortable(name))) {
      return tagged(
        "object",
        entries.map(([name, item]) => [this.#value(name), item]),
      );
    }
    // `toJSON` is a method that JSON.stringify would call; a function is refused above, so only data is left.
    return entries.some(([name, item]) => item !== value[name])
      ? Object.fromEntries(entries)
      : value;
  }

  #refuse(reason: string): never {
    const path = this.#path
      .map((step) => (typeof step === "number" ? `[${step}]` : `.${step}`))
      .join("");
    throw new SerializationError(`${this.#label}${path}`, reason);
  }
}

function className(value: object): string {
  const name: unknown = value.constructor?.name;
  return typeof name === "string" && name !== "" ? name : "a class";
}

function tagged(tag: string, value?: unknown): object {
  return value === undefined ? { $: tag } : { $: tag, value };
}

function decode(data: string, what: string): Record<string, unknown> {
  let envelope: unknown;
  try {
    envelope = JSON.parse(data);
  } catch (cause) {
    throw new CorruptSessionError(`The stored ${what} is not JSON`, { cause });
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
  // In JSON text `"$":` can only be a key, since a quote inside a string is escaped. A `$` alone is found faster.
  if (data.includes("$") && data.includes('"$":')) revive(envelope, what);
  return envelope as Record<string, unknown>;
}

/** Replaces tagged values in place, innermost first. */
function revive(value: unknown, what: string): unknown {
  if (typeof value !== "object" || value === null) return value;
  const object = value as Record<string, unknown>;
  for (const name of Object.keys(object)) object[name] = revive(object[name], what);
  if (!Object.hasOwn(object, "$")) return value;
  const item = object["value"];
  switch (object["$"]) {
    case "text":
      return unescapeText(item as string);
    case "number":
      return Number(item);
    case "undefined":
      return undefined;
    case "bigint":
      return BigInt(item as string);
    case "date":
      return new Date(item === null ? Number.NaN : (item as string));
    case "bytes":
      return new Uint8Array(Buffer.from(item as string, "base64"));
    case "map":
      return new Map(item as [unknown, unknown][]);
    case "set":
      return new Set(item as unknown[]);
    case "object":
      return Object.fromEntries(item as [string, unknown][]);
    default:
      throw new CorruptSessionError(
        `The stored ${what} holds the unknown tag ${show(object["$"])}`,
      );
  }
}
