/** A password that is wrongly written in a URL must not turn up in the error that says so. */
import { inspect } from "node:util";
import fc from "fast-check";
import { expect, test } from "vitest";
import { InvalidOptionsError, type MongoChatStoreOptions, mongoChatStore } from "../src/index.ts";

/** Everything of an error that can be printed. */
function shown(error: unknown): string {
  const { message, stack, cause } = error as Error;
  const all = [message, stack, JSON.stringify(error), JSON.stringify(cause), String(cause)];
  return `${all.join("\n")}\n${inspect(error, { depth: 9, showHidden: true })}`;
}

function refusal(options: unknown): unknown {
  try {
    const store = mongoChatStore(options as MongoChatStoreOptions);
    void store.close();
  } catch (error) {
    return error;
  }
  return undefined;
}

test.each([
  "mongodb://me:canary/1@host/app",
  "mongodb://me:canary?1@host/app",
  "mongodb://me:12?x=canary@host/app",
  "mongodb://me:canary#1@host/app",
  "mongodb://me:canary@1@host/app",
  "mongodb://me:canary 1@host/app",
  "mongodb://me:canary%1@host/app",
  "mongodb://me:canary@host:port/app",
  "mongodb://me:canary@/app",
  "mongodb://me:canary@",
  "mongodb+srv://me:canary@host:27017/app",
  "me:canary@host/app",
  "//me:canary@host/app",
  "mongodb:me:canary@host/app",
  "mongo://me:canary@host/app",
  " mongodb://me:canary@host/app",
  "canary",
])("a URL that cannot be read is refused without being shown: %s", (url) => {
  const error = refusal({ url });
  expect(error).toBeInstanceOf(InvalidOptionsError);
  expect(shown(error)).not.toMatch(/canary|me:12/);
});

test.each([
  [{ url: "mongodb://me:canary@host/app?w=canary&journal=maybe" }],
  [{ url: "mongodb://me:canary@host/app?unknown=canary" }],
  [{ url: "mongodb://me:canary@host/app?authMechanism=canary" }],
  [
    {
      url: "mongodb://host/app",
      mongo: { auth: { username: "me", password: "canary" }, tls: "canary" },
    },
  ],
])("options that the driver refuses are not shown either: %j", (options) => {
  const error = refusal(options);
  expect(error).toBeInstanceOf(InvalidOptionsError);
  expect(shown(error)).not.toContain("canary");
});

test("whatever stands around a password, no error shows it", () => {
  const piece = fc.constantFrom(..."/?#@:%[],=& \\\n'\"{}", "mongodb:", "//", "a", "1", "é", "%2F");
  const pieces = fc.array(piece, { maxLength: 8 }).map((list) => list.join(""));
  fc.assert(
    fc.property(fc.boolean(), pieces, pieces, (scheme, before, after) => {
      const error = refusal({ url: `${scheme ? "mongodb://" : ""}${before}canary${after}` });
      if (error === undefined) return;
      expect(error).toBeInstanceOf(InvalidOptionsError);
      expect(shown(error)).not.toContain("canary");
    }),
    { numRuns: 500 },
  );
});
