import { isCursorValue } from "./arguments.js";
import { InvalidOptionsError } from "./errors.js";

const maxValues = 16;

/**
 * An opaque cursor from the values that a backend needs to go on: for `list()`. Core refuses a cursor of another form before
 * a backend sees it, and {@link decodeCursor} one with other values.
 *
 * @param values Strings without NUL or lone surrogates, and whole numbers.
 * @throws InvalidOptionsError for other values.
 */
export function encodeCursor(values: readonly (string | number)[]): string {
  let given: unknown[] | undefined;
  try {
    given = Array.isArray(values) && values.length <= maxValues ? [...values] : undefined;
  } catch {
    given = undefined;
  }
  if (given?.every(isCursorValue) !== true) {
    throw new InvalidOptionsError("A cursor is made of few portable strings and whole numbers");
  }
  return Buffer.from(JSON.stringify(given)).toString("base64url");
}

/**
 * The values of a cursor, checked against their expected types: a `number` is whole, a `string` holds neither NUL nor lone
 * surrogates.
 *
 * @throws InvalidOptionsError for a cursor of another origin.
 * @example const [updatedAt, key] = decodeCursor(cursor, ["number", "string"]);
 */
export function decodeCursor<const Types extends readonly ("string" | "number")[]>(
  cursor: string,
  types: Types,
): { -readonly [I in keyof Types]: Types[I] extends "string" ? string : number } {
  let values: unknown;
  try {
    const bytes = typeof cursor === "string" ? Buffer.from(cursor, "base64url") : undefined;
    values = bytes?.toString("base64url") === cursor ? JSON.parse(String(bytes)) : undefined;
  } catch {
    values = undefined;
  }
  if (
    !Array.isArray(values) ||
    values.length !== types.length ||
    values.some((value, index) => typeof value !== types[index] || !isCursorValue(value))
  ) {
    throw new InvalidOptionsError(
      "The cursor is not one that listSessions() returned for this query",
    );
  }
  return values as never;
}
