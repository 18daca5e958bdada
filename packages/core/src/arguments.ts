/** What callers give beside messages, checked once, before any backend sees it. */
import type { Range, Version } from "./backend.js";
import { readTime } from "./codec.js";
import { InvalidOptionsError, LimitExceededError } from "./errors.js";
import { show } from "./show.js";
import { isPortable, toPortable } from "./text.js";

const maxIdBytes = 512;
const maxVersionLength = 128;
const maxCursorLength = 4_096;
/** Versions and cursors are made of these: every engine can hold them. */
const printable = /^[\x21-\x7e]+$/;

/**
 * The members of an options object that are given, each read once.
 *
 * @param what Names the options in errors, for example `the options of redisChatStore`.
 * @param names All that there are. An unknown one is refused: what it should have done would silently not happen.
 * @throws InvalidOptionsError
 */
export function readOptions<T extends object>(
  what: string,
  options: unknown,
  names: readonly string[],
): T {
  if (options === undefined) return {} as T;
  if (typeof options !== "object" || options === null) {
    throw new InvalidOptionsError(
      `${what} are ${show(options)}; they must be an object, as in { ${names[0]}: … }`,
    );
  }
  try {
    const unknown = Object.keys(options).find((name) => !names.includes(name));
    if (unknown === undefined) {
      const given = names.filter(
        (name) => (options as Record<string, unknown>)[name] !== undefined,
      );
      return Object.fromEntries(
        given.map((name) => [name, (options as Record<string, unknown>)[name]]),
      ) as T;
    }
    throw new InvalidOptionsError(
      `${what} have no ${show(unknown)}${Array.isArray(options) ? ", nor are they an array" : ""}. Known: ${names.join(", ")}`,
    );
  } catch (cause) {
    if (cause instanceof InvalidOptionsError) throw cause;
    throw new InvalidOptionsError(`${what} cannot be read`, { cause });
  }
}

/**
 * Refuse a member that is there and `undefined`, where leaving it out means more: `{ user: request.user?.id }`.
 *
 * @param meaning What leaving it out means.
 */
export function refuseUndefined(options: object, name: string, meaning: string): void {
  if (Object.hasOwn(options, name) && (options as Record<string, unknown>)[name] === undefined) {
    throw new InvalidOptionsError(`${name} is undefined: leave it out only if you mean ${meaning}`);
  }
}

export function checkInteger(
  name: string,
  value: unknown,
  minimum: number,
  maximum: number,
): number | undefined {
  if (value === undefined) return undefined;
  if (!Number.isInteger(value) || (value as number) < minimum || (value as number) > maximum) {
    throw new InvalidOptionsError(
      `${name} is ${show(value)}; it must be a whole number from ${minimum} to ${maximum}`,
    );
  }
  return value as number;
}

export function checkFunction<T>(name: string, value: T): T {
  if (value === undefined || typeof value === "function") return value;
  throw new InvalidOptionsError(`${name} is ${show(value)}; it must be a function`);
}

/** @returns The id as it is stored. */
export function checkId(id: unknown): string {
  if (typeof id !== "string" || id === "") {
    throw new InvalidOptionsError(`A message id must be a non-empty string, not ${show(id)}`);
  }
  const portable = id.length > maxIdBytes ? id : toPortable(id);
  if (Buffer.byteLength(portable) > maxIdBytes) {
    throw new InvalidOptionsError(`A message id has at most ${maxIdBytes} bytes`);
  }
  return portable;
}

export function checkVersion(version: unknown): Version | null | undefined {
  if (version === undefined || version === null) return version;
  if (
    typeof version === "string" &&
    version.length <= maxVersionLength &&
    printable.test(version)
  ) {
    return version;
  }
  throw new InvalidOptionsError(
    `ifVersion is ${show(version)}; it must be a version that a read or a write returned, or null for "must not exist"`,
  );
}

export function checkCursor(cursor: unknown): string | undefined {
  if (cursor === undefined) return undefined;
  if (typeof cursor === "string" && cursor.length <= maxCursorLength && printable.test(cursor)) {
    return cursor;
  }
  throw new InvalidOptionsError(
    `The cursor is ${show(cursor)}; it must be one that listSessions() returned for this query`,
  );
}

/** @returns Milliseconds since 1970. */
export function checkDate(name: string, date: unknown): number {
  const time = readTime(date);
  if (time !== undefined) return time;
  throw new InvalidOptionsError(
    `${name} is ${show(date)}; it must be a valid Date, or its ISO text with a time zone`,
  );
}

export function checkPosition(index: unknown): asserts index is number {
  if (typeof index !== "number") {
    throw new InvalidOptionsError(`A position must be a number, not ${show(index)}`);
  }
}

/** @returns The title as it is stored. */
export function encodeTitle(title: unknown, maxBytes: number): string | null {
  if (title === null) return null;
  if (typeof title !== "string") {
    throw new InvalidOptionsError(`title is ${show(title)}; it must be a string or null`);
  }
  const bytes = title.length > maxBytes ? title.length : Buffer.byteLength(toPortable(title));
  refuseMore("titleBytes", maxBytes, bytes, "shorten the title");
  return toPortable(title);
}

export function refuseMore(limit: string, maximum: number, actual: number, advice: string): void {
  if (actual > maximum) throw new LimitExceededError(limit, maximum, actual, advice);
}

/** Which messages a read wants. */
export function toRange(options: unknown): Range {
  const { before, after, ...given } = readOptions<Record<string, unknown>>(
    "the options of a read",
    options,
    ["last", "before", "after", "limit"],
  );
  const last = checkInteger("last", given["last"], 0, Number.MAX_SAFE_INTEGER);
  const limit = checkInteger("limit", given["limit"], 0, Number.MAX_SAFE_INTEGER);
  const several = [last, before, after].filter((value) => value !== undefined).length > 1;
  if (several || (last !== undefined && limit !== undefined)) {
    throw new InvalidOptionsError(
      "Read either the `last` n, or a page `before` or `after` a message with an optional `limit`, not several at once",
    );
  }
  if (last !== undefined) return { from: "end", limit: last };
  const bound = limit === undefined ? {} : { limit };
  if (before !== undefined) return { before: checkId(before), ...bound };
  if (after !== undefined) return { after: checkId(after), ...bound };
  return { from: "start", ...bound };
}

/** Values of a cursor that every engine can compare with its own. */
export function isCursorValue(value: unknown): value is string | number {
  return typeof value === "string" ? isPortable(value) : Number.isSafeInteger(value);
}
