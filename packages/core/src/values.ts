/**
 * Any value as one JSON text, and back exactly (G7).
 *
 * What JSON cannot say is an object with the reserved key `$`: `{"$":"date","value":"2026-01-01T00:00:00.000Z"}`.
 * Tags: `bigint` (decimal, long ones hexadecimal), `buffer` and `bytes` (base64), `date` (ISO 8601, null when invalid),
 * `map`, `number` (-0, NaN, ±Infinity), `object` (entries; for keys that JSON objects or engines cannot hold, and for
 * objects with a key `$`), `bare` (entries of an object without a prototype), `set`, `text` (NULs and lone surrogates as
 * \uXXXX, backslashes likewise), `undefined`.
 */
import { types } from "node:util";
import { ChatStoreError, CorruptSessionError, SerializationError } from "./errors.js";
import { escapeText, isPortable, unescapeText } from "./text.js";

/** Deeper values would overflow the stack of a recursive encoder; no message is near it. */
const maxDepth = 500;
/** After so many values, what was met twice is not encoded twice: shared references can double at each level. */
const fewValues = 1_000;
/** Longer ones in hexadecimal: to write and to read decimal digits takes time by their square. */
const maxDecimalDigits = 1_000;

/** What a value became, for whoever meets it again. */
interface Encoded {
  readonly json: string;
  readonly size: number;
}

/**
 * Turns values into JSON text. Each property is read once, and nothing of the caller's is called later: what is checked is
 * what is stored, also where properties are getters. Time and memory are bounded by the limit, not by what the value would
 * expand to.
 */
export class Encoder {
  readonly #label: string;
  readonly #limit: number;
  readonly #overLimit: (size: number) => Error;
  /** Where we are, for errors. */
  readonly #path: (string | number)[] = [];
  /** The objects that we are inside of, for cycles. */
  readonly #ancestors: object[] = [];
  /** A lower bound of the bytes so far. */
  #size = 0;
  #values = 0;
  #known: Map<object, Encoded> | undefined;

  /**
   * @param label What the path of an error begins with, for example `messages[3]`.
   * @param limit Bytes of JSON beyond which encoding stops with the error that `overLimit` makes.
   */
  constructor(
    label: string,
    limit = Number.POSITIVE_INFINITY,
    overLimit: (size: number) => Error = () => new RangeError("too large"),
  ) {
    this.#label = label;
    this.#limit = limit;
    this.#overLimit = overLimit;
  }

  /** @throws SerializationError for what cannot be kept exactly, also when reading it throws. */
  encode(value: unknown, name: string): string {
    return this.#guarded(() => this.#member(value, name));
  }

  /** An object of the caller's fields; errors name them without a name of their own. */
  encodeFields(fields: object): string {
    return this.#guarded(() => this.#value(fields));
  }

  #guarded(encode: () => string): string {
    try {
      return encode();
    } catch (error) {
      if (error instanceof ChatStoreError) throw error;
      throw new SerializationError(this.#where(), "it cannot be read", { cause: error });
    }
  }

  #member(value: unknown, name: string | number): string {
    this.#path.push(name);
    const json = this.#value(value);
    this.#path.pop();
    return json;
  }

  #value(value: unknown): string {
    this.#values++;
    if (typeof value === "string") return this.#text(value);
    if (typeof value === "object" && value !== null) return this.#object(value);
    const json = this.#scalar(value);
    this.#take(json.length);
    return json;
  }

  #text(value: string): string {
    // Before anything is made of it.
    this.#take(value.length + 2);
    return isPortable(value) ? JSON.stringify(value) : tagged("text", escapeText(value));
  }

  #scalar(value: unknown): string {
    switch (typeof value) {
      case "number":
        if (Object.is(value, -0)) return tagged("number", "-0");
        return Number.isFinite(value) ? String(value) : tagged("number", String(value));
      case "boolean":
        return String(value);
      case "undefined":
        return '{"$":"undefined"}';
      case "bigint":
        return tagged("bigint", digitsOf(value));
      case "object":
        return "null";
      default:
        return this.#refuse(`a ${typeof value} cannot be stored`);
    }
  }

  #object(value: object): string {
    const known = this.#known?.get(value);
    if (known !== undefined) {
      this.#take(known.size);
      return known.json;
    }
    if (this.#ancestors.includes(value)) this.#refuse("it contains itself");
    if (this.#ancestors.length >= maxDepth) this.#refuse(`it is nested more than ${maxDepth} deep`);
    this.#ancestors.push(value);
    this.#take(2);
    const before = this.#size;
    const json = this.#container(value);
    if (this.#values > fewValues) {
      this.#known ??= new Map();
      this.#known.set(value, { json, size: this.#size - before });
    }
    this.#ancestors.pop();
    return json;
  }

  #container(value: object): string {
    const prototype: unknown = Object.getPrototypeOf(value);
    if (Object.getOwnPropertySymbols(value).length > 0) {
      this.#refuse("an object with a symbol as key cannot be stored");
    }
    if (Array.isArray(value)) {
      // The prototype of arrays is one itself, in every realm.
      if (prototype !== Array.prototype && !Array.isArray(prototype)) this.#refuseClass(value);
      return this.#array(value);
    }
    if (prototype === Object.prototype && !isExotic(value)) return this.#members(value, "object");
    if (prototype === null) return this.#members(value, "bare");
    return this.#builtIn(value, prototype as object);
  }

  #array(value: readonly unknown[]): string {
    const { length } = value;
    let json = "[";
    for (let index = 0; index < length; index++) {
      this.#path.push(index);
      const item = value[index];
      if (item === undefined && !(index in value)) {
        this.#refuse("an array with holes cannot be stored");
      }
      const encoded = this.#value(item);
      this.#path.pop();
      json += index === 0 ? encoded : `,${encoded}`;
    }
    this.#refuseFurther(value, length);
    return `${json}]`;
  }

  #members(value: object, tag: "object" | "bare"): string {
    const object = value as Record<string, unknown>;
    const names = Object.keys(object);
    let isPlain = tag === "object";
    let json = "";
    for (const name of names) {
      if (name === "$" || !isPortable(name)) isPlain = false;
    }
    for (const name of names) {
      const separator = json === "" ? "" : ",";
      this.#path.push(name);
      const item = this.#value(object[name]);
      this.#path.pop();
      if (isPlain) {
        this.#take(name.length + 4);
        json += `${separator}${quoted(name)}:${item}`;
      } else {
        json += `${separator}[${this.#text(name)},${item}]`;
      }
    }
    return isPlain ? `{${json}}` : taggedJson(tag, `[${json}]`);
  }

  /** Built-in objects with a form of their own, of any realm, but no subclasses: they would not come back as such. */
  #builtIn(value: object, prototype: object): string {
    if (types.isDate(value) && isPrototype(prototype, Date.prototype, 1)) {
      this.#refuseFurther(value, 0);
      const time = Date.prototype.getTime.call(value);
      this.#take(30);
      return taggedJson(
        "date",
        Number.isNaN(time) ? "null" : JSON.stringify(new Date(time).toISOString()),
      );
    }
    if (types.isMap(value) && isPrototype(prototype, Map.prototype, 1)) {
      this.#refuseFurther(value, 0);
      let json = "";
      let index = 0;
      for (const [key, item] of Map.prototype.entries.call(value)) {
        const pair = `[${this.#member(key, `key ${index}`)},${this.#member(item, index)}]`;
        json += index++ === 0 ? pair : `,${pair}`;
      }
      return taggedJson("map", `[${json}]`);
    }
    if (types.isSet(value) && isPrototype(prototype, Set.prototype, 1)) {
      this.#refuseFurther(value, 0);
      return taggedJson("set", this.#array([...Set.prototype.values.call(value)]));
    }
    if (types.isUint8Array(value)) {
      const isBuffer = prototype === Buffer.prototype;
      if (isBuffer || isPrototype(prototype, Uint8Array.prototype, 2)) {
        return this.#bytes(value, isBuffer ? "buffer" : "bytes");
      }
    }
    // A plain object of another realm (a vm context, a test runner) has that realm's Object.prototype.
    if (isForeignObject(prototype) && !isExotic(value)) return this.#members(value, "object");
    return this.#refuseClass(value);
  }

  #bytes(value: Uint8Array, tag: "buffer" | "bytes"): string {
    this.#take(Math.ceil(value.byteLength / 3) * 4);
    const { length } = value;
    // To name the index of each byte takes longer than all the rest: only what is short is searched for more.
    if (length <= fewValues) this.#refuseFurther(value, length);
    const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    return taggedJson(tag, `"${bytes.toString("base64")}"`);
  }

  #refuseFurther(value: object, expected: number): void {
    const names = Object.keys(value);
    if (names.length > expected) {
      this.#path.push(names[expected] as string);
      this.#refuse(`a property of ${article(className(value))} cannot be stored`);
    }
  }

  #refuseClass(value: object): never {
    return this.#refuse(
      `an instance of ${className(value)} cannot be stored: convert it to a plain object, array or value`,
    );
  }

  #take(bytes: number): void {
    this.#size += bytes;
    if (this.#size > this.#limit) throw this.#overLimit(this.#size);
  }

  #refuse(reason: string): never {
    throw new SerializationError(this.#where(), reason);
  }

  #where(): string {
    const steps = this.#path.map((step) => (typeof step === "number" ? `[${step}]` : `.${step}`));
    return `${this.#label}${steps.join("")}`;
  }
}

/** A name as JSON. Nearly all need no escape. */
function quoted(name: string): string {
  return /^[\w-]*$/.test(name) ? `"${name}"` : JSON.stringify(name);
}

function tagged(tag: string, text: string): string {
  return taggedJson(tag, JSON.stringify(text));
}

function taggedJson(tag: string, json: string): string {
  return `{"$":"${tag}","value":${json}}`;
}

function digitsOf(value: bigint): string {
  const hex = value.toString(16);
  if (hex.length <= maxDecimalDigits) return String(value);
  return hex.startsWith("-") ? `-0x${hex.slice(1)}` : `0x${hex}`;
}

/** Whether it is a class's own prototype: this realm's, or another one's, which has the same number of others above it. */
function isPrototype(prototype: object, own: object, above: number): boolean {
  if (prototype === own) return true;
  let top: object = prototype;
  for (let level = 0; level < above; level++) {
    const next: object | null = Object.getPrototypeOf(top);
    if (next === null) return false;
    top = next;
  }
  return isForeignObject(top);
}

function isForeignObject(prototype: object): boolean {
  return (
    prototype !== Object.prototype &&
    Object.getPrototypeOf(prototype) === null &&
    Object.hasOwn(prototype, "isPrototypeOf")
  );
}

/** Whether a built-in object poses as a plain one: `arguments`, or one whose prototype was changed. */
function isExotic(value: object): boolean {
  return Object.prototype.toString.call(value) !== "[object Object]";
}

function className(value: object): string {
  const name: unknown = value.constructor?.name;
  return typeof name === "string" && name !== "" ? name : "a class";
}

function article(name: string): string {
  return /^[AEIOU]/.test(name) ? `an ${name}` : `a ${name}`;
}

/**
 * Parsed JSON with the tagged values in it replaced, in place.
 *
 * @throws CorruptSessionError for a tag that no encoder writes.
 */
export function revive(value: unknown, what: string): unknown {
  try {
    return reviveValue(value);
  } catch (cause) {
    throw new CorruptSessionError(`The stored ${what} holds a value that cannot be read`, {
      cause,
    });
  }
}

function reviveValue(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  const object = value as Record<string, unknown>;
  for (const name of Object.keys(object)) {
    const item = object[name];
    if (typeof item === "object" && item !== null) object[name] = reviveValue(item);
  }
  return Object.hasOwn(object, "$") ? reviveTag(object["$"], object["value"]) : value;
}

function reviveTag(tag: unknown, value: unknown): unknown {
  switch (tag) {
    case "text":
      return unescapeText(checked(value, typeof value === "string"));
    case "number":
      return Number(checked(value, ["-0", "NaN", "Infinity", "-Infinity"].includes(String(value))));
    case "undefined":
      return checked(undefined, value === undefined);
    case "bigint":
      return toBigInt(checked(value, /^-?(?:\d+|0x[\da-f]+)$/.test(String(value))));
    case "date":
      return toDate(value);
    case "bytes":
      return new Uint8Array(toBytes(value));
    case "buffer":
      return toBytes(value);
    case "map":
      return new Map(entries(value));
    case "set":
      return new Set(checked<unknown[]>(value, Array.isArray(value)));
    case "object":
      return Object.fromEntries(entries(value) as [string, unknown][]);
    case "bare":
      return Object.assign(Object.create(null), Object.fromEntries(entries(value)));
    default:
      throw new TypeError(`no such tag: ${String(tag).slice(0, 40)}`);
  }
}

function checked<T>(value: unknown, holds: boolean): T {
  if (!holds) throw new TypeError("not the value of its tag");
  return value as T;
}

function toBigInt(digits: string): bigint {
  return digits.startsWith("-") ? -BigInt(digits.slice(1)) : BigInt(digits);
}

function toDate(value: unknown): Date {
  if (value === null) return new Date(Number.NaN);
  const date = new Date(checked<string>(value, typeof value === "string"));
  return checked(date, !Number.isNaN(date.getTime()) && date.toISOString() === value);
}

function toBytes(value: unknown): Buffer {
  const bytes = Buffer.from(checked<string>(value, typeof value === "string"), "base64");
  return checked(bytes, Math.ceil(bytes.length / 3) * 4 === (value as string).length);
}

function entries(value: unknown): [unknown, unknown][] {
  const isEntry = (one: unknown) => Array.isArray(one) && one.length === 2;
  return checked(value, Array.isArray(value) && value.every(isEntry));
}

/**
 * A parsed value as contents are compared: in the form that `JSON.stringify` would have carried it, with the names of
 * members in order. So what a browser sends back is equal: a date and its text, a missing member and an undefined one. What
 * JSON would lose (maps, sets, bytes, bigints) keeps its tag.
 */
export function canonical(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index++) {
      const item = value[index];
      if (typeof item === "object" && item !== null) value[index] = canonical(item);
    }
    return value;
  }
  const object = value as Record<string, unknown>;
  const names = Object.keys(object);
  if (Object.hasOwn(object, "$")) return canonicalTag(object["$"], object["value"]);
  let isSorted = true;
  for (let index = 0; index < names.length; index++) {
    const name = names[index] as string;
    const item = object[name];
    if (index > 0 && name < (names[index - 1] as string)) isSorted = false;
    if (typeof item !== "object" || item === null) continue;
    if (isUndefined(item)) delete object[name];
    else object[name] = canonical(item);
  }
  // Again: of what was deleted nothing is left to read, or an inherited member.
  return isSorted ? object : sorted(object, Object.keys(object));
}

function canonicalTag(tag: unknown, value: unknown): unknown {
  switch (tag) {
    case "undefined":
      return null;
    case "number":
      return value === "-0" ? 0 : null;
    case "date":
      return value;
    case "buffer":
      return { $: "bytes", value };
    case "object":
    case "bare":
      return canonicalEntries(entries(value).filter(([, item]) => !isUndefined(item)));
    case "map":
      // Here an undefined value is no missing member.
      return { $: tag, value: entries(value).map((pair) => pair.map(canonicalItem)) };
    case "set":
      return { $: tag, value: checked<unknown[]>(value, Array.isArray(value)).map(canonicalItem) };
    default:
      return { $: tag, value };
  }
}

function canonicalItem(item: unknown): unknown {
  return isUndefined(item) ? item : canonical(item);
}

function canonicalEntries(members: readonly [unknown, unknown][]): unknown {
  const canonicalMembers = members.map(([name, item]): [string, unknown] => [
    typeof name === "string" ? name : JSON.stringify(name),
    canonical(item),
  ]);
  const isPlain = members.every(([name]) => typeof name === "string" && name !== "$");
  if (isPlain) {
    const object = Object.fromEntries(canonicalMembers);
    return sorted(object, Object.keys(object));
  }
  return { $: "object", value: canonicalMembers.sort(([a], [b]) => (a < b ? -1 : 1)) };
}

/** Names like `2` come first whatever the order, and so are in one order, too. */
function sorted(object: Record<string, unknown>, names: string[]): object {
  const copy: Record<string, unknown> = {};
  for (const name of names.sort()) {
    if (name === "__proto__") {
      Object.defineProperty(copy, name, { value: object[name], enumerable: true });
    } else copy[name] = object[name];
  }
  return copy;
}

function isUndefined(value: unknown): boolean {
  return (
    typeof value === "object" && value !== null && (value as { $?: unknown }).$ === "undefined"
  );
}
