import type { ChatStore } from "../chat-store.js";
import {
  parseSessionKey,
  rawSessionKey,
  type SessionKey,
  type SessionKeyParts,
  sessionKey,
} from "../session-key.js";
import type { SessionInfo } from "../store-types.js";
import { anyKeyParts, forAll } from "./arbitraries.js";
import { refused, same } from "./claims.js";
import { listAll } from "./lists.js";
import { tellsApart } from "./look-alikes.js";
import { ids, say, texts } from "./messages.js";
import type { Subject } from "./subject.js";
import { describe, fc, test } from "./tools.js";

const long = "x".repeat(500);

/** Parts that a careless store takes for one another. */
const neighbours: readonly SessionKeyParts[] = [
  // One is the beginning of the other.
  ..."user1 user10 user100 user user1: user1/".split(" ").map((user) => ({ user })),
  { user: "user1", conversation: "0" },
  { user: "user1", conversation: "00" },
  { user: "user10", conversation: "1" },
  // The same characters, divided otherwise.
  { tenant: "a", user: "b", conversation: "c" },
  { tenant: "a", user: "c", conversation: "b" },
  { tenant: "b", user: "a", conversation: "c" },
  { user: "a", conversation: "b" },
  { tenant: "a", user: "b" },
  { tenant: "b", user: "a" },
  { user: "a/b" },
  { user: "a%2Fb" },
  { user: "a%252Fb" },
  { user: "a", conversation: "b/c" },
  { user: "a/b", conversation: "c" },
  { user: "a:b" },
  { tenant: "a", user: "u:b" },
  { user: "t:a" },
  // Case and normal form.
  ..."Alice alice ALICE é e\u0301 ß SS ss İ i I ı Å \u212b".split(" ").map((user) => ({ user })),
  // What is special in SQL, LIKE, regular expressions, globs, paths, Redis, MongoDB and JavaScript.
  ..."% _ us%r us_r user* user? [a-z] ^a a$ . .. ~ * ** {a} a{b}c } { {} $where $gt a.b a,b a=b a|b"
    .split(" ")
    .map((user) => ({ user })),
  ...[
    "'",
    '"',
    "`",
    "\\",
    "\\\\",
    "a;b",
    "--",
    "a b",
    " a",
    "a ",
    "\u00a0",
    "\u200b",
    "con",
    "nul",
    "aux",
  ].map((user) => ({ user })),
  ..."__proto__ constructor prototype toString hasOwnProperty null undefined 0 -1 NaN true"
    .split(" ")
    .map((user) => ({ user })),
  // Order differs between UTF-16 and UTF-8.
  { user: "\uffee" },
  { user: "\u{10000}" },
  { user: "👩‍👩‍👧" },
  // As long as a key may be, equal but for the end.
  { user: `${long}1234567890` },
  { user: `${long}123456789_` },
  { user: `${"é".repeat(254)}12` },
  { user: `${"é".repeat(254)}1_` },
  { user: "z", conversation: `${long}a` },
  { user: "z", conversation: `${long}b` },
];

/**
 * Ends of lines to some (JavaScript's `.` and `$`, editors), white space to `\s` and `trim`, nothing at all to others; patterns of
 * LIKE, globs and regular expressions.
 */
const special = [..."\u2028\u2029\ufeff\u3000\u200b\u00ad%_*.\\"];

/** No key reads another's data, whatever characters it holds. */
export function isolated(subject: Subject): void {
  test("keys that look alike do not share a session", async () => {
    const store = subject.open(subject.namespace());
    const keys = [
      ...neighbours.map(sessionKey),
      rawSessionKey("user1"),
      rawSessionKey("u:user1"),
      rawSessionKey("t:a/u:b"),
      rawSessionKey("raw:user1"),
    ];
    await Promise.all(keys.map((key) => store.addMessages(key, [say(key, { id: "m" })])));
    await Promise.all(
      keys.map(async (key) => {
        same(texts(await store.getMessages(key)), [key], `${key} shows another user's messages`);
      }),
    );
    same(
      [...(await store.getKeys())].sort(),
      [...keys].sort(),
      "getKeys() does not return exactly the keys that were written",
    );
    for (const parts of neighbours) {
      const { tenant, user } = parts;
      const expected = keys.filter((key) => {
        const parsed = parseSessionKey(key);
        return "user" in parsed && parsed.user === user && parsed.tenant === tenant;
      });
      same(
        keysOf(await listAll(store, { tenant, user })).sort(),
        [...expected].sort(),
        `The list of ${JSON.stringify({ tenant, user })} shows other users' sessions`,
      );
    }

    // Each goes alone, and comes back: those that are erased later must leave it alone, too.
    const whole = async () =>
      new Map((await listAll(store, { limit: 1_000 })).map((one) => [one.key, one.version]));
    const before = await whole();
    const erase = async (
      gone: readonly SessionKey[],
      what: string,
      call: () => Promise<unknown>,
    ) => {
      await call();
      const left = await whole();
      for (const [key, version] of before) {
        same(
          left.get(key),
          gone.includes(key as SessionKey) ? undefined : version,
          `Erasing ${what} left it there, or took or changed ${key}`,
        );
      }
      for (const key of gone) {
        same(await store.getMessages(key), [], `Of the erased ${key} there are messages left`);
        const { version } = await store.addMessages(key, [say(key, { id: "m" })]);
        before.set(key, version as string);
      }
    };
    for (const key of keys) await erase([key], key, () => store.deleteMessages(key));
    for (const { tenant, user } of neighbours) {
      const own = keys.filter((key) => {
        const parsed = parseSessionKey(key);
        return "user" in parsed && parsed.user === user && parsed.tenant === tenant;
      });
      const what = JSON.stringify({ tenant, user });
      await erase(own, what, () => store.deleteSessions({ tenant, user }));
    }
    for (const key of keys) {
      same(texts(await store.getMessages(key)), [key], "Erasing others changed a session");
    }
  });

  describe("a collation's ideas are not the store's", () => tellsApart(subject));

  for (const character of special) {
    const code = character.codePointAt(0)?.toString(16).toUpperCase().padStart(4, "0");
    test(`a character that is special to somebody is one like others: U+${code}`, async () => {
      const store = subject.open(subject.namespace());
      const [tenant, user, conversation] = ["t", "u", "c"];
      // Each beside what a pattern or a separator would leave of it, and beside what would match it.
      const variants = (text: string) => [
        text,
        `${text}${character}`,
        `${text}${character}x`,
        `${character}${text}`,
        `${text}xx`,
      ];
      const keys = [
        ...variants(tenant).map((one) => sessionKey({ tenant: one, user, conversation })),
        ...variants(user).map((one) => sessionKey({ tenant, user: one, conversation })),
        ...variants(user).map((one) => sessionKey({ user: one })),
        ...variants(conversation).map((one) => sessionKey({ tenant, user, conversation: one })),
        ...variants(conversation).map((one) => sessionKey({ user, conversation: one })),
        ...variants("raw").map(rawSessionKey),
      ];
      const remaining = new Set<SessionKey>(keys);
      const messages = variants("m").map((id) => say(`under ${id}`, { id }));
      const document = Object.fromEntries(variants("s").map((text) => [text, text]));
      for (const key of remaining) {
        await store.addMessages(key, [...messages, say(key, { id: "key" })]);
        await store.setTitle(key, `${character}${key}${character}`);
        await store.setState(key, { document });
      }
      const check = async (loss: string) => {
        same([...(await store.getKeys())].sort(), [...remaining].sort(), loss);
        for (const key of remaining) {
          const { session, messages } = await store.readSession(key);
          same(
            [session?.title, session?.state, texts(messages).at(-1), messages.length],
            [`${character}${key}${character}`, { document }, key, 6],
            `${loss}: ${JSON.stringify(key)} is not what was written`,
          );
        }
      };
      await check("What was written is not what is there");

      const [key = ""] = remaining;
      const [plain = "", ...others] = variants("m");
      for (const id of others) {
        await store.updateMessage(key, id, say(`edited ${id}`));
        same(
          texts(await store.getMessages(key, { after: plain, limit: others.length })),
          others.map(
            (one) => `${others.indexOf(one) <= others.indexOf(id) ? "edited" : "under"} ${one}`,
          ),
          "Editing a message edited another one, or none",
        );
        same(
          ids(await store.getMessages(key, { before: id })),
          variants("m").slice(0, variants("m").indexOf(id)),
          "The page before a message is another one's",
        );
      }

      // Each neighbour goes alone.
      const users = new Map<string, { tenant?: string | undefined; user: string }>();
      for (const key of remaining) {
        const parsed = parseSessionKey(key);
        if ("raw" in parsed) continue;
        users.set(sessionKey({ tenant: parsed.tenant, user: parsed.user }), parsed);
      }
      for (const raw of variants("raw").map(rawSessionKey)) {
        await store.deleteMessages(raw);
        remaining.delete(raw);
        same(
          [...(await store.getKeys())].sort(),
          [...remaining].sort(),
          "Erasing a raw key took others",
        );
      }
      for (const scope of users.values()) {
        const own = [...remaining].filter((key) => {
          const parsed = parseSessionKey(key);
          return "user" in parsed && parsed.user === scope.user && parsed.tenant === scope.tenant;
        });
        const { tenant, user } = scope;
        same(
          keysOf(await listAll(store, { tenant, user })).sort(),
          own.sort(),
          `The list of ${JSON.stringify({ tenant, user })} is not that user's`,
        );
        same(
          await store.deleteSessions({ tenant, user }),
          own.length,
          "Erasing a user erased too many sessions or too few",
        );
        for (const key of own) remaining.delete(key);
        await check("Erasing a user left sessions, or took others'");
      }
    });
  }

  test("a user, or a tenant, that is undefined is not everybody", async () => {
    const store = subject.open(subject.namespace());
    await store.addMessages(subject.key(), [say("x")]);
    const nobody: { user?: string } = {};
    for (const options of [
      { user: nobody.user },
      { tenant: undefined },
      { tenant: "acme", user: undefined },
    ]) {
      await refused(
        store.listSessions(options as { user: string }),
        "INVALID_OPTIONS",
        "Somebody who is not signed in is shown the sessions of everybody",
      );
    }
  });

  test("a user without a tenant is not that user of any tenant", async () => {
    const store = subject.open(subject.namespace());
    const user = "alice";
    const keys = [
      sessionKey({ user }),
      sessionKey({ tenant: "acme", user }),
      sessionKey({ tenant: "globex", user }),
    ];
    for (const key of keys) await store.addMessages(key, [say(key)]);
    same(
      keysOf(await listAll(store, { user })),
      [keys[0]],
      "A tenant's sessions show without the tenant",
    );
    same(keysOf(await listAll(store, { tenant: "acme", user })), [keys[1]], "Tenants are mixed up");
    same(keysOf(await listAll(store, { tenant: "acme" })), [keys[1]], "A tenant's list is wrong");
    same(await store.deleteSessions({ user }), 1, "Erasing a user erased those of tenants");
    same([...(await store.getKeys())].sort(), keys.slice(1).sort(), "The wrong user was erased");
  });

  test("any two keys are two sessions", async () => {
    const store = subject.open(subject.namespace());
    const several = fc.uniqueArray(anyKeyParts, {
      selector: sessionKey,
      minLength: 2,
      maxLength: 6,
    });
    await forAll(several, 25, async (parts) => {
      const keys = parts.map(sessionKey);
      for (const key of keys) await store.setMessages(key, [say(key)]);
      for (const key of keys) {
        same(texts(await store.getMessages(key)), [key], "A key shows another's messages");
      }
      same([...(await store.getKeys())].sort(), [...keys].sort(), "The list of keys is wrong");
      for (const key of keys) await store.deleteMessages(key);
      same([...(await store.getKeys())], [], "An erased session is still listed");
    });
  });

  test("namespaces share nothing, and one of them is one", async () => {
    const base = subject.namespace();
    // One begins with the other; `_` is any character to LIKE.
    const namespaces = [base, `${base}0`, `${base}_a`, `${base}xa`];
    const key = subject.key();
    const stores = namespaces.map((namespace) => subject.open(namespace));
    for (const [index, store] of stores.entries()) {
      same(
        [...(await store.getKeys())],
        [],
        "A new namespace is not empty: the factory's options do not isolate",
      );
      await store.addMessages(key, [say(`in ${index}`, { id: "m" })]);
      await store.setTitle(key, `${index}`);
    }
    for (const [index, namespace] of namespaces.entries()) {
      const { session, messages } = await subject.open(namespace).readSession(key);
      same(
        [texts(messages), session?.title],
        [[`in ${index}`], `${index}`],
        "Two stores with different prefixes, tables or folders share data",
      );
    }
    await (stores[0] as ChatStore).deleteMessages(key);
    await (stores[0] as ChatStore).purgeExpired();
    for (const store of stores.slice(1)) {
      same((await store.getMessages(key)).length, 1, "Erasing in one store erased in another");
    }
  });

  test("state entries with names of the language's own are entries", async () => {
    const key = subject.key();
    const namespace = subject.namespace();
    const store = subject.open(namespace);
    await store.addMessages(key, [say("hello")]);
    same((await store.getSession(key))?.state, {}, "A session without state has some");
    await store.setState(key, { constructor: 1, toString: 2, hasOwnProperty: 3 });
    await store.setState(key, { toString: null, valueOf: 4 });
    same(
      (await subject.open(namespace).getSession(key))?.state,
      { constructor: 1, hasOwnProperty: 3, valueOf: 4 },
      "State named like a method was lost",
    );
  });
}

function keysOf(sessions: readonly SessionInfo[]): string[] {
  return sessions.map(({ key }) => key);
}
