/** Assertions that say what a user would lose. */
import { AssertionError } from "node:assert";
import { isDeepStrictEqual } from "node:util";
import type { ChatStoreError, ErrorCode } from "../errors.js";

/** What was read is exactly what was meant: -0 is not 0, a Date is no string. */
export function same(actual: unknown, expected: unknown, loss: string): void {
  if (isDeepStrictEqual(comparable(actual), comparable(expected))) return;
  throw new AssertionError({ message: loss, actual, expected, operator: "deepStrictEqual" });
}

/** Two invalid dates are equal, which Node 20's isDeepStrictEqual denies. */
function comparable(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (value instanceof Date) return Number.isNaN(+value) ? invalidDate : value;
  if (Array.isArray(value)) return value.map(comparable);
  if (value instanceof Map) {
    return new Map([...value].map(([key, item]) => [comparable(key), comparable(item)]));
  }
  if (value instanceof Set) return new Set([...value].map(comparable));
  if (Object.getPrototypeOf(value) !== Object.prototype) return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, comparable(item)]));
}
const invalidDate = Symbol("an invalid date");

export function holds(condition: boolean, loss: string): void {
  if (!condition) throw new AssertionError({ message: loss });
}

/** The error that a promise rejects with. */
export async function rejection(promise: Promise<unknown>, loss: string): Promise<ChatStoreError> {
  const resolved = await promise.then(
    (value) => ({ value }),
    (error: unknown) => ({ error }),
  );
  if ("error" in resolved) return resolved.error as ChatStoreError;
  throw new AssertionError({ message: `${loss}: it resolved`, actual: resolved.value });
}

/** The promise rejects with this code. */
export async function refused(
  promise: Promise<unknown>,
  code: ErrorCode,
  loss: string,
): Promise<ChatStoreError> {
  const error = await rejection(promise, loss);
  if (error.code === code) return error;
  throw new AssertionError({
    message: `${loss}: it rejected otherwise: ${error.stack ?? String(error)}`,
    actual: error.code,
    expected: code,
  });
}

/** The promise settles within so many milliseconds. Generous: against hanging, not for speed. */
export async function within<T>(
  milliseconds: number,
  promise: Promise<T>,
  loss: string,
): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new AssertionError({ message: `${loss}: nothing after ${milliseconds} ms` })),
      milliseconds,
    );
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
