import { randomBytes, randomUUID } from "node:crypto";
import { inspect } from "node:util";
import { startRedisServer } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import fc from "fast-check";
import { Redis } from "ioredis";
import { describe, expect, onTestFinished, test } from "vitest";
import * as redis from "../src/index.ts";
import { beside, contents, key, openStore, refusal, say } from "./store.ts";

/** What a factory throws at once. */
function refusedOptions(options: unknown): redis.InvalidOptionsError {
  try {
    redis.redisChatStore(options as redis.RedisChatStoreOptions);
  } catch (error) {
    expect(error).toBeInstanceOf(redis.InvalidOptionsError);
    return error as redis.InvalidOptionsError;
  }
  expect.fail(`it was accepted: ${inspect(options)}`);
}

/** Wherever an error is looked at. */
function everywhere(error: Error): string {
  return [
    inspect(error, { depth: null, showHidden: true }),
    error.stack,
    JSON.stringify(error),
  ].join();
}

describe("what says where the server is", () => {
  test.each([
    ["localhost:6379", "does not begin with redis:// or rediss://"],
    ["http://localhost", "does not begin with redis:// or rediss://"],
    ["redis://localhost/chat", "a database that is no number"],
    ["redis://localhost?db=chat", "a database that is no number"],
    ["redis://localhost/-1", "a database that is no number"],
    ["redis://localhost/1e3", "a database that is no number"],
    ["redis://localhost/0/1", "%2F"],
    ["redis://localhost?family=five", "a family that is not"],
    ["redis://localhost?tls=true", "known: db, family"],
    ["redis://:hunter2%@localhost", "%25"],
    ["redis://:hunt er2@localhost", "white space"],
    ["redis://:hunt\ner2@localhost", "line break"],
    ["redis://:hunt/hunter2@localhost", "percent-encode"],
    ["redis://user:12/hunter2@localhost", "%40"],
    ["redis://:hunt?hunter2@localhost", "percent-encode"],
    ["redis://:hunt#hunter2@localhost", "%23"],
    ["redis://:hunt@hunter2@localhost", "%40"],
    [5, "not a string"],
    [null, "not a string"],
  ])("%j is refused as a url: %s", (url, reason) => {
    const error = refusedOptions({ url });
    expect(error.message).toContain(reason);
    expect(error.message).toContain("redis://user:password@localhost:6379/0");
    expect(everywhere(error)).not.toMatch(/hunt/);
    // A node of a cluster is no other URL.
    if (url === null) return;
    expect(everywhere(refusedOptions({ cluster: [url] }))).not.toMatch(/hunt/);
  });

  test("a password with any characters is read, or refused without being shown", async () => {
    const special = fc.constantFrom(..."/?#@:%[]&=+;, \t\"'\\^é😀");
    const anywhere = fc.array(special, { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(anywhere, fc.constantFrom("", "/0", "/chat", "?db=1"), (characters, rest) => {
        const canary = `hunter${randomBytes(4).toString("hex")}`;
        for (const encode of [(text: string) => text, encodeURIComponent]) {
          const password = `${canary}${characters.join(canary)}${canary}`;
          for (const scheme of ["redis://", "rediss://", "redis:", "", "//"]) {
            for (const user of ["", "user"]) {
              const url = `${scheme}${user}:${encode(password)}@127.0.0.1:1${rest}`;
              for (const options of [{ url }, { cluster: [url] }]) {
                try {
                  const store = redis.redisChatStore(options);
                  expect(inspect(store, { depth: null, showHidden: true })).not.toContain(canary);
                  expect(JSON.stringify(store)).not.toContain(canary);
                } catch (error) {
                  expect(error).toBeInstanceOf(redis.InvalidOptionsError);
                  expect(everywhere(error as Error)).not.toContain(canary);
                  // Encoded as it should be, the password is never what is wrong.
                  if (encode === encodeURIComponent && "url" in options) {
                    expect([scheme.endsWith("//") && scheme !== "//", rest]).not.toEqual([
                      true,
                      "",
                    ]);
                  }
                }
              }
            }
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  test.each([
    [{ redis: { db: "chat" } }, "redis.db"],
    [{ redis: { db: Number.NaN } }, "redis.db"],
    [{ redis: { db: -1 } }, "redis.db"],
    [{ cluster: [] }, "at least one node"],
    [{ cluster: "redis://localhost" }, "at least one node"],
    [{ cluster: [null] }, "A node of cluster"],
    [{ cluster: ["redis://localhost/1"] }, "without a database"],
  ])("%j is refused", (options, reason) => {
    expect(refusedOptions(options).message).toContain(reason);
  });

  test("clients of other packages are refused with what is wanted", () => {
    // As these packages make them: methods of a prototype, and what tells them apart.
    class NodeRedis {
      isOpen = true;
      isReady = true;
      on() {}
      once() {}
      off() {}
      connect() {}
      disconnect() {}
      sendCommand() {}
      eval() {}
    }
    class Upstash {
      #secret = "hunter2";
      eval() {
        return this.#secret;
      }
      pipeline() {}
    }
    const hostile = new Proxy(
      {},
      {
        get() {
          throw new Error("hunter2");
        },
      },
    );
    for (const client of [
      new NodeRedis(),
      Promise.resolve(new NodeRedis()),
      new Upstash(),
      "redis://:hunter2@localhost",
      Redis,
      {},
      null,
      5,
      hostile,
    ]) {
      const error = refusedOptions({ client });
      expect(error.message).toMatch(/new Redis\(…\).*ioredis.*url/);
      expect(everywhere(error)).not.toContain("hunter2");
    }
  });
});

await withEngine(startRedisServer, ({ url }) => {
  const newPrefix = () => `${randomUUID()}:`;

  test("user, password and database of a URL are percent-decoded and used", async () => {
    const admin = beside(url);
    const password = "p/a?s#s@w:o%r d";
    await admin.call("ACL", "SETUSER", "us/er", "on", `>${password}`, "~*", "+@all");
    const prefix = newPrefix();
    const authority = `//${encodeURIComponent("us/er")}:${encodeURIComponent(password)}@`;
    const own = url.replace("//", authority);
    await openStore({ url: `${own}/3?family=4`, prefix }).addMessage(key, say("in 3"));
    expect(await contents(openStore({ url: `${url}?db=3`, prefix }))).toEqual(["in 3"]);
    expect(await contents(openStore({ url, prefix, redis: { db: 3 } }))).toEqual(["in 3"]);
    expect(await contents(openStore({ url, prefix }))).toEqual([]);
  });

  test("a user who may not select the database writes into no other one", async () => {
    const admin = beside(url);
    await admin.call("ACL", "SETUSER", "carol", "on", ">x", "~*", "+@all", "-select");
    const prefix = newPrefix();
    const store = openStore({ url: `${url.replace("//", "//carol:x@")}/2`, prefix });
    expect(await refusal(store.addMessage(key, say("canary")))).toMatchObject({
      code: "BACKEND",
      outcome: "not-applied",
    });
    expect(await contents(openStore({ url, prefix }))).toEqual([]);
  });

  test("a client of ioredis is used, whatever copy of it", async () => {
    const client = new Redis(url);
    onTestFinished(() => client.disconnect());
    // A copy has another prototype.
    Object.setPrototypeOf(client, Object.create(Redis.prototype));
    await openStore({ client, prefix: newPrefix() }).addMessage(key, say("hello"));
  });
});
