import { inspect } from "node:util";
import fc from "fast-check";
import { expect, test } from "vitest";
import {
  BackendError,
  InvalidOptionsError,
  parsePathUrl,
  parseServerUrl,
  redact,
} from "../src/index.js";
import { schemeOf } from "../src/url.js";

const rules = {
  schemes: ["redis", "rediss"],
  example: "redis://user:password@localhost:6379/0",
  parameters: ["family"],
};
const many = { schemes: ["mongodb"], example: "mongodb://a,b/db", hosts: "many" } as const;
const socket = { schemes: ["postgres"], example: "postgres://a/db", hosts: "optional" } as const;

test("a server's URL comes back in its parts, decoded", () => {
  const whole = parseServerUrl("rediss://me:p%40%25%2F:s@h.example:6380/1?Family=6", rules);
  expect({ ...whole, parameters: [...whole.parameters] }).toEqual({
    scheme: "rediss",
    user: "me",
    password: "p@%/:s",
    hosts: [{ host: "h.example", port: 6380 }],
    database: "1",
    parameters: [["Family", "6"]],
  });
  const least = parseServerUrl("REDIS://localhost/", rules);
  expect({ ...least, parameters: [...least.parameters] }).toEqual({
    scheme: "redis",
    user: undefined,
    password: undefined,
    hosts: [{ host: "localhost", port: undefined }],
    database: undefined,
    parameters: [],
  });
  expect(parseServerUrl("redis://:pw@[::1]:1", rules)).toMatchObject({
    password: "pw",
    hosts: [{ host: "::1", port: 1 }],
  });
  expect(parseServerUrl("mongodb://a:1,b/x?appName=@me@", many).hosts).toEqual([
    { host: "a", port: 1 },
    { host: "b", port: undefined },
  ]);
  expect(parseServerUrl("postgres:///app?host=/run", socket)).toMatchObject({
    hosts: [],
    database: "app",
  });
  expect(parseServerUrl("postgres://%2Frun%2Fpg/app", socket).hosts[0]?.host).toBe("/run/pg");
});

test.each([
  [undefined, "of type undefined"],
  [null, "is null"],
  [{ href: "redis://localhost" }, "of type object"],
  ["", "does not begin with redis:// or rediss://"],
  ["localhost:6379", "does not begin with"],
  ["me:canary@localhost", "does not begin with"],
  ["http://me:canary@localhost", "does not begin with"],
  ["redis:me:canary@localhost", "does not begin with"],
  ["redis://", "no host"],
  ["redis://me:canary@", "no host"],
  ["redis://me:can/ary@localhost", "percent-encode it (%40)"],
  ["redis://me:1234/canary@localhost", "percent-encode it (%40)"],
  ["redis://me:can?ary@localhost", "no number from 1 to 65535|not percent-encoded"],
  ["redis://me:1?canary@localhost", "parameter that is not known here; known: family"],
  ["redis://me:can#ary@localhost", '"#"'],
  ["redis://me:can@ary@localhost", 'a second "@"'],
  ["redis://me:can ary@localhost", "white space"],
  [" redis://localhost", "white space"],
  ["redis://localhost\n", "control character"],
  ["redis://me:can%ary@localhost", "%25"],
  ["redis://me:can%ff@localhost", "%25"],
  ["redis://localhost:", "port"],
  ["redis://localhost:0", "port"],
  ["redis://localhost:65536", "port"],
  ["redis://localhost:1,other:2", "no host"],
  ["redis://localhost/0/1", '"/"'],
  ["redis://localhost?db=canary", "known: family"],
])("%j is refused, and nothing of it is shown", (url, reason) => {
  const error = thrown(() => parseServerUrl(url, rules));
  expect(error).toBeInstanceOf(InvalidOptionsError);
  expect((error as Error).message).toMatch(
    new RegExp(
      reason
        .split("|")
        .map((one) => one.replace(/[()?.]/g, "\\$&"))
        .join("|"),
    ),
  );
  expect((error as Error).message).toContain(rules.example);
  expect(inspect(error)).not.toContain("canary");
});

test("a path's URL is relative or absolute, and no other form of it is guessed at", () => {
  const path = (url: unknown) => parsePathUrl(url, "sqlite", "sqlite:./chat.db");
  expect(path("sqlite:./a%20b c.db")).toBe("./a b c.db");
  expect(path("SQLITE:a.db")).toBe("a.db");
  expect(path("sqlite:/var/a%23.db")).toBe("/var/a#.db");
  expect(path("sqlite:///var/a.db")).toBe("/var/a.db");
  expect(path("sqlite:///.hidden")).toBe("/.hidden");
  for (const url of [
    7,
    "",
    "sqlite:",
    "sqlite://",
    "sqlite:///",
    "sqlite:///./chat.db", // SQLAlchemy's spelling of ./chat.db, and literally /chat.db
    "sqlite:///../chat.db",
    "sqlite://chat.db",
    "sqlite://me:canary@host/chat.db",
    "sqlite:////x",
    "sqlite:a?mode=ro",
    "sqlite:a#b",
    "sqlite:100%",
    "sqlite:a%00b",
    "sqlite:a\nb",
    "sqlite:/a%2Fb",
    "file:./canary",
  ]) {
    const error = thrown(() => path(url));
    expect(error, String(url)).toBeInstanceOf(InvalidOptionsError);
    expect(inspect(error)).not.toMatch(/canary|mode=ro/);
  }
});

test("no URL, however wrong, is shown in part", () => {
  const piece = fc.constantFrom(..."/?#@:%[],=& \\\n'\"{}", "redis:", "//", "a", "1", "é", "%2F");
  const pieces = fc.array(piece, { maxLength: 8 }).map((list) => list.join(""));
  fc.assert(
    fc.property(fc.boolean(), pieces, pieces, (scheme, before, after) => {
      const url = `${scheme ? "redis://" : ""}${before}canary${after}`;
      for (const parse of [
        () => parseServerUrl(url, rules),
        () => parseServerUrl(url, many),
        () => parseServerUrl(url, socket),
        () => parsePathUrl(url, "file", "file:./chats"),
      ]) {
        const error = thrown(parse);
        expect(inspect(error, { depth: 9, showHidden: true })).not.toContain("canary");
      }
    }),
    { numRuns: 2_000 },
  );
});

test("a scheme is told from a host, a user and a drive", () => {
  expect(schemeOf("MySQL://x")).toBe("mysql");
  expect(schemeOf("sqlite:x", ["sqlite"])).toBe("sqlite");
  expect(schemeOf("duckdb:./x")).toBe("duckdb");
  for (const url of ["localhost:6379", "me:secret@host", "C:\\chat.db", "", "://x", "1a://x"]) {
    expect(schemeOf(url, ["sqlite"]), url).toBeUndefined();
  }
});

test("redact: no password of a URL survives, encoded or not; a session key does", () => {
  for (const password of ["plain", "s%40c", "a@b", "a/b", "a?b", "a#b", "a b", "a\nb", "a:b"]) {
    expect(redact(`connect redis://me:${password}@host:6379 failed`)).toBe(
      "connect redis://***@host:6379 failed",
    );
  }
  expect(redact("postgres://h/db?password=x y&sslmode=on")).toBe(
    "postgres://h/db?password=*** y&sslmode=on",
  );
  const refused = { retryable: true, outcome: "not-applied" } as const;
  expect(new BackendError("connect redis://me:a@b@h failed", refused).message).toBe(
    "connect redis://***@h failed",
  );
  expect(redact("nothing to hide: u:a@b.c")).toBe("nothing to hide: u:a@b.c");
});

function thrown(run: () => unknown): unknown {
  try {
    run();
  } catch (error) {
    return error;
  }
  return undefined;
}
