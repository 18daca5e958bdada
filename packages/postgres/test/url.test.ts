/** A password that is wrongly written in a URL must not turn up in the error that says so. */
import { inspect } from "node:util";
import fc from "fast-check";
import { expect, test } from "vitest";
import {
  InvalidOptionsError,
  type PostgresChatStoreOptions,
  postgresChatStore,
} from "../src/index.ts";

/** Everything of an error that can be printed. */
function shown(error: unknown): string {
  const { message, stack, cause } = error as Error;
  const all = [message, stack, JSON.stringify(error), JSON.stringify(cause), String(cause)];
  return `${all.join("\n")}\n${inspect(error, { depth: 9, showHidden: true })}`;
}

function refusal(options: unknown): unknown {
  try {
    const store = postgresChatStore(options as PostgresChatStoreOptions);
    void store.close();
  } catch (error) {
    return error;
  }
  return undefined;
}

test.each([
  "postgres://me:canary/1@host/app",
  "postgres://me:canary?1@host/app",
  "postgres://me:12?x=canary@host/app",
  "postgres://me:canary#1@host/app",
  "postgres://me:canary@1@host/app",
  "postgres://me:canary 1@host/app",
  "postgres://me:canary%1@host/app",
  "postgres://me:canary@host:port/app",
  "postgres://me:canary@",
  "postgres://me:canary@host:1:2/app",
  "me:canary@host/app",
  "//me:canary@host/app",
  "postgres:me:canary@host/app",
  "pg://me:canary@host/app",
  " postgres://me:canary@host/app",
  "canary",
])("a URL that cannot be read is refused without being shown: %s", (url) => {
  const error = refusal({ url });
  expect(error).toBeInstanceOf(InvalidOptionsError);
  expect(shown(error)).not.toMatch(/canary|me:12/);
});

test.each([
  [{ url: "postgres://me:canary@host/app?sslcert=/no/such/file" }],
  [{ pool: { connectionString: "postgres://me:canary/1@host/app" } }],
  [{ pool: { connectionString: "me:canary@host/app" } }],
  [{ pool: { connectionString: "postgres://me:canary@host/app?sslcert=/no/such/file" } }],
])("settings that the driver refuses are not shown either: %j", (options) => {
  const error = refusal(options);
  expect(error).toBeInstanceOf(InvalidOptionsError);
  expect(shown(error)).not.toContain("canary");
});

test("whatever stands around a password, no error shows it", () => {
  const piece = fc.constantFrom(
    ..."/?#@:%[],=& \\\n'\"{}",
    "postgres:",
    "//",
    "a",
    "1",
    "é",
    "%2F",
  );
  const pieces = fc.array(piece, { maxLength: 8 }).map((list) => list.join(""));
  fc.assert(
    fc.property(fc.boolean(), pieces, pieces, (scheme, before, after) => {
      const url = `${scheme ? "postgres://" : ""}${before}canary${after}`;
      for (const options of [{ url }, { pool: { connectionString: url } }]) {
        const error = refusal(options);
        if (error === undefined) continue;
        expect(error).toBeInstanceOf(InvalidOptionsError);
        expect(shown(error)).not.toContain("canary");
      }
    }),
    { numRuns: 500 },
  );
});
