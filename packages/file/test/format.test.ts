import { type Key, type MessageRecord, rawSessionKey, sessionKey } from "@chatstore/core";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  Block,
  closeBatch,
  folderOf,
  headerLine,
  messageLine,
  parseLine,
  placeOf,
} from "../src/format.ts";

function keyOf(user: string, tenant = "", conversation = ""): Key {
  const parts = { user, tenant: tenant || undefined, conversation: conversation || undefined };
  return { id: sessionKey(parts), user, tenant, conversation };
}

function rawKeyOf(text: string): Key {
  return { id: rawSessionKey(text), user: "", tenant: "", conversation: "" };
}

describe("the place of a session", () => {
  // What was stored must be found again: another answer needs a new format version.
  test.each([
    [keyOf("alice", "acme", "support"), "acme/alice/support"],
    [keyOf("alice"), "@no-tenant/alice/@default"],
    [keyOf("Alice Müller", "", "../.."), "@no-tenant/%41lice%20%4d%c3%bcller/%2e%2e%2f%2e%2e"],
    [keyOf("LPT1", "con", "nul"), "%63on/%4c%50%541/%6eul"],
    [keyOf("@raw", "@no-tenant", "@default"), "%40no-tenant/%40raw/%40default"],
    [rawKeyOf("chat_history"), "@no-tenant/@raw/chat_history"],
    [keyOf("x".repeat(96)), `@no-tenant/${"x".repeat(96)}/@default`],
    [
      keyOf("x".repeat(97)),
      `@no-tenant/${"x".repeat(31)}.19a8f07eeb7f3d0c0b7377e37d72eccde144cefeb44beac9c3227131a526688d/@default`,
    ],
  ])("of %o", (key, expected) => {
    expect(placeOf(key).join("/")).toBe(expected);
  });

  const words = [
    "con",
    "CON",
    "nul.txt",
    "com1",
    "..",
    ".",
    "a.",
    "a ",
    "@raw",
    "@default",
    "@no-tenant",
  ];
  const lookalikes = [
    "é",
    "e\u0301",
    "ſ",
    "s",
    "K",
    "k",
    "\u212a",
    "ß",
    "ss",
    "SS",
    "İ",
    "i\u0307",
  ];
  const part = fc.oneof(
    fc.constantFrom(...words, ...lookalikes),
    fc.string({ unit: "grapheme", minLength: 1, maxLength: 12 }),
    fc.string({ unit: fc.constantFrom(...'aAbB%.@/\\~:*?"<>|_- 0é'), minLength: 1, maxLength: 6 }),
    fc.integer({ min: 90, max: 100 }).map((length) => "a".repeat(length)),
    fc.integer({ min: 20, max: 40 }).map((length) => "Ä".repeat(length)),
  );
  const none = fc.constant("");
  const anyKey = fc
    .oneof(fc.tuple(part, fc.oneof(none, part), fc.oneof(none, part)), fc.tuple(part))
    .map((parts) => {
      try {
        return parts.length === 1 ? rawKeyOf(...parts) : keyOf(...parts);
      } catch {
        return undefined; // no key at all: a control character
      }
    })
    .filter((key) => key !== undefined);

  test("is never shared, also where case and normal form do not count", () => {
    const seenBy = (disk: "NFC" | "NFD", key: Key) =>
      placeOf(key).join("/").toLowerCase().normalize(disk);
    fc.assert(
      fc.property(anyKey, anyKey, fc.constantFrom("NFC", "NFD"), (a, b, disk) => {
        if (a.id !== b.id) expect(seenBy(disk, a)).not.toBe(seenBy(disk, b));
      }),
      { numRuns: 5_000 },
    );
  });

  test("is a legal name on every disk, and inside the store's folder", () => {
    const refusedByWindows = /^(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)|[. ]$/i;
    fc.assert(
      fc.property(anyKey, (key) => {
        for (const name of placeOf(key)) {
          expect(name).toMatch(/^(?!\.)[a-z0-9_%@.-]{1,96}$/);
          expect(name).not.toMatch(refusedByWindows);
        }
      }),
      { numRuns: 2_000 },
    );
  });

  test("is in the folder of its user", () => {
    const userKey = anyKey.filter(({ user }) => user !== "");
    fc.assert(
      fc.property(userKey, (key) => {
        expect(placeOf(key).slice(0, 2)).toEqual(folderOf(key));
      }),
    );
  });
});

test("lines are the same read backwards, whatever stands in a damaged file", () => {
  const bytes = fc.array(fc.constantFrom(..."\n\n a".split("").map((c) => c.charCodeAt(0))));
  fc.assert(
    fc.property(bytes, (array) => {
      const block = new Block(0, Buffer.from(array));
      expect([...block.backwards()]).toEqual([...block.lines()].reverse());
    }),
  );
});

describe("a line", () => {
  const record: MessageRecord = {
    id: 'own ","data":{" \\ \u2028 👋',
    createdAt: 1_700_000_000_000,
    digest: "0123456789012345678901",
    data: '{"v":1,"role":"user","content":"with \\"data\\":{} and \\",\\"crc\\":\\""}',
  };
  const commit = {
    version: "3f0e",
    messageCount: 1,
    createdAt: 1,
    updatedAt: 2,
    expiresAt: null,
    title: null,
    state: null,
    erase: [[5, 6]] as const,
    erased: 6,
    of: null,
  };

  test("of a message gives it back to the byte, and is JSON for everybody else", () => {
    const line = messageLine(record);
    expect(parseLine(Buffer.from(line))).toEqual({ kind: "message", record });
    expect(JSON.parse(line)).toMatchObject({ id: record.id, data: JSON.parse(record.data) });
    expect(line.indexOf("\n")).toBe(line.length - 1);
  });

  test("of a commit says where title and state are", () => {
    const changed = { title: "Kätzchen", state: { a: "{}", b: "[1]" } };
    const end = closeBatch(100, changed, commit);
    const lines = (end.before + end.line).split(/(?<=\n)/).map((line) => Buffer.from(line));
    const [title, a, b, last] = lines.map(parseLine);
    const lengths = lines.map(({ length }) => length) as [number, number, number, number];
    expect([title, a, b]).toEqual([
      { kind: "title", title: "Kätzchen" },
      { kind: "state", name: "a", data: "{}" },
      { kind: "state", name: "b", data: "[1]" },
    ]);
    expect(end.commit).toEqual({
      ...commit,
      title: [100, lengths[0]],
      state: [100 + lengths[0], lengths[1] + lengths[2]],
    });
    expect(last).toEqual({ kind: "commit", commit: end.commit });
  });

  test("of a commit says only what there is to say", () => {
    const { version, messageCount, createdAt, updatedAt } = commit;
    const plain = { ...commit, erase: [], erased: 0 };
    const { line } = closeBatch(100, {}, plain);
    expect(JSON.parse(line)).toEqual({
      commit: version,
      messageCount,
      createdAt,
      updatedAt,
      crc: expect.any(String),
    });
    expect(parseLine(Buffer.from(line))).toEqual({ kind: "commit", commit: plain });
  });

  test("with one wrong bit is refused", () => {
    const header = headerLine({ format: 1, key: "u:alice", since: 1 });
    for (const text of [header, messageLine(record), closeBatch(0, {}, commit).line]) {
      const line = Buffer.from(text);
      for (let bit = 0; bit < line.length * 8; bit++) {
        const damaged = Buffer.from(line);
        damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        expect(parseLine(damaged), `${bit}`).toBeUndefined();
      }
    }
  });
});
