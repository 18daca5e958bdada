import { InvalidOptionsError } from "./errors.js";

/** An opaque cursor from the values that a backend needs to go on: for `list()`. */
export function encodeCursor(values: readonly (string | number)[]): string {
  return Buffer.from(JSON.stringify(values)).toString("base64url");
}

/**
 * The values of a cursor, checked against their expected types.
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
    values = JSON.parse(Buffer.from(cursor, "base64url").toString());
  } catch {
    values = undefined;
  }
  if (
    !Array.isArray(values) ||
    values.length !== types.length ||
    values.some((value, index) => typeof value !== types[index])
  ) {
    throw new InvalidOptionsError(
      "The cursor is not one that listSessions() returned for this query",
    );
  }
  return values as never;
}
