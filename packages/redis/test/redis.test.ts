import { randomUUID } from "node:crypto";
import { startRedisServer } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import { describe, expect, test } from "vitest";
import * as redis from "../src/index.ts";
import { beside, contents, duration, key, meanwhile, openStore, refusal, say } from "./store.ts";

await withEngine(startRedisServer, (server) => {
  const { url } = server;
  const newPrefix = () => `${randomUUID()}:`;

  describe("options", () => {
    const prefixes = ["", "a", "a:", "aa", "users", ":sessions", "*?[a]", 'it\'s "x"', "ключ 😀\n"];

    test("a prefix is a name, and only a name", async () => {
      const stores = prefixes.map((prefix) => openStore({ url: `${url}/5`, prefix }));
      for (const [index, store] of stores.entries()) await store.addMessage(key, say(`${index}`));
      for (const [index, store] of stores.entries()) {
        expect(await contents(store)).toEqual([`${index}`]);
        expect([...(await store.getKeys())]).toEqual([key]);
      }
      await stores[0]?.deleteSessions({ tenant: "acme", user: "alice" });
      for (const store of stores.slice(1)) expect(await contents(store)).toHaveLength(1);
    });

    test.each([{ prefix: "a{b" }, { prefix: "}" }, { prefix: 5 as never }, { prefix: "\ud800" }])(
      "%o is refused",
      (options) => {
        expect(() => redis.redisChatStore({ url, ...options })).toThrow(redis.InvalidOptionsError);
      },
    );

    test.each([
      [{}, /Which Redis server/],
      [{ url, cluster: [url] }, /not url and cluster/],
      [{ url, client: {} }, /not url and client/],
      [{ url, waitReplicas: -1 }, /waitReplicas/],
    ])("%o is refused", (options, reason) => {
      expect(() => redis.redisChatStore(options as never)).toThrow(reason);
    });

    test("a client of one's own is used, and left open", async () => {
      const client = beside(url);
      client.options.keyPrefix = newPrefix();
      const listeners = () => client.eventNames().map((name) => client.listenerCount(name));
      const before = listeners();
      const store = openStore({ client });
      await store.addMessage(key, say("hello"));
      expect(await contents(store)).toEqual(["hello"]);
      expect([...(await store.getKeys())]).toEqual([key]);
      await store.close();
      expect(await client.ping()).toBe("PONG");
      expect(listeners()).toEqual(before);
      const other = openStore({ url, prefix: `${client.options.keyPrefix}chatstore:` });
      expect(await contents(other)).toEqual(["hello"]);
    });

    test("a client of one's own that is closed is said to be", async () => {
      const client = beside(url);
      client.disconnect();
      const store = openStore({ client });
      await new Promise((resolve) => client.once("end", resolve));
      expect(await refusal(store.open())).toMatchObject({
        retryable: false,
        message: expect.stringContaining("closed"),
      });
    });

    test("the URL's database is used, and one that does not exist is refused", async () => {
      const prefix = newPrefix();
      await openStore({ url: `${url}/1`, prefix }).addMessage(key, say("in the other one"));
      expect(await contents(openStore({ url, prefix }))).toEqual([]);
      const error = await refusal(openStore({ url: `${url}/99`, prefix }).open());
      expect(error).toMatchObject({ code: "BACKEND", retryable: false });
    });

    test("openChatStore finds the backend by its URL", async () => {
      const prefix = newPrefix();
      const store = await redis.openChatStore({ url, prefix, onWarning: () => {} });
      await store.addMessage(key, say("hello"));
      await store.close();
      expect(await contents(openStore({ url, prefix }))).toEqual(["hello"]);
    });
  });

  describe("a server that cannot be used is said to be, at once", () => {
    test("a wrong password, a missing one, and a user without rights", async () => {
      const admin = beside(url);
      await admin.call(
        "ACL",
        "SETUSER",
        "alice",
        "on",
        ">right",
        "~*",
        "+@all",
        "-eval",
        "-evalsha",
      );
      const as = (user: string) => url.replace("//", `//${user}@`);
      const wrong = openStore({ url: as("alice:hunter2") });
      expect(await duration(wrong.open())).toBeLessThan(2_500);
      const denied = { code: "BACKEND", retryable: false, outcome: "not-applied" };
      expect(await refusal(wrong.open())).toMatchObject(denied);
      const limited = openStore({ url: as("alice:right") });
      expect(await refusal(limited.addMessage(key, say("canary")))).toMatchObject(denied);
      await admin.call("ACL", "SETUSER", "default", ">hunter2", "resetpass", ">hunter2");
      const missing = await refusal(openStore({ url }).open());
      expect(missing).toMatchObject(denied);
      expect(missing.message).toContain("password");
      await admin.call("ACL", "SETUSER", "default", "nopass");
    });

    test("TLS to a server without", async () => {
      const store = openStore({ url: url.replace("redis:", "rediss:") });
      const start = performance.now();
      const error = await refusal(store.open());
      expect(performance.now() - start).toBeLessThan(7_000);
      expect(error).toMatchObject({ outcome: "not-applied" });
      expect(error.message).toContain("TLS");
    });

    test("a replica", async () => {
      const replica = await startRedisServer({ replicaof: `127.0.0.1 ${server.port}` });
      try {
        const error = await refusal(openStore({ url: replica.url, timeout: 1_000 }).open());
        expect(error.message).toContain("replica");
        expect(error.retryable).toBe(true);
      } finally {
        await replica.stop();
      }
    });
  });

  describe("warnings", () => {
    const warningsOf = async (options: object, config: Record<string, string>) => {
      const admin = beside(url);
      const before = await Promise.all(
        Object.keys(config).map((name) => admin.config("GET", name) as Promise<[string, string]>),
      );
      for (const [name, value] of Object.entries(config)) await admin.config("SET", name, value);
      const store = openStore({ url, ...options });
      await store.open();
      for (const [name, value] of before) await admin.config("SET", name, value);
      return { warnings: store.warnings, survives: store.capabilities.survives };
    };

    test("none for durable settings, and what they promise", async () => {
      expect(await warningsOf({}, { appendfsync: "always" })).toEqual({
        warnings: [],
        survives: "host",
      });
    });

    test("before open() the least is claimed", async () => {
      const store = openStore({ url });
      expect(store.capabilities.survives).toBe("process");
    });

    const always = { appendfsync: "always" };
    test.each([
      [{}, {}, /appendfsync everysec.*end of this process.*end of the server/, "process"],
      [{ appendfsync: "no" }, {}, /appendfsync no\).*end of the server/, "process"],
      [{ ...always, "no-appendfsync-on-rewrite": "yes" }, {}, /while it rewrites/, "process"],
      [{ appendonly: "no", save: "" }, {}, /a restart loses all chats/, "process"],
      [{ appendonly: "no", save: "900 1" }, {}, /a crash loses the latest messages/, "process"],
      [{ ...always, "maxmemory-policy": "allkeys-lru" }, {}, /allkeys-lru.*noeviction/, "host"],
      [
        { ...always, "maxmemory-policy": "volatile-lru" },
        { ttl: 60_000 },
        /volatile-lru.*noeviction/,
        "host",
      ],
      [always, { waitReplicas: 1 }, /has 0 replicas/, "host"],
    ])("%o %o", async (config, options, expected, survives) => {
      const found = await warningsOf(options, config as Record<string, string>);
      expect(found).toEqual({ warnings: [expect.stringMatching(expected)], survives });
      expect(found.warnings[0]).toContain(String(server.port));
    });

    test("a store without a ttl need not fear volatile-lru", async () => {
      const settings = { "maxmemory-policy": "volatile-lru", appendfsync: "always" };
      expect((await warningsOf({}, settings)).warnings).toEqual([]);
    });

    test.each([
      ["-config", [expect.stringContaining("does not permit CONFIG GET")]],
      ["-config -info", [expect.stringContaining("does not permit INFO")]],
    ])("without rights (%s) it is only not known", async (rights, expected) => {
      const admin = beside(url);
      await admin.call("ACL", "SETUSER", "bob", "on", ">x", "~*", "+@all", ...rights.split(" "));
      const store = openStore({ url: url.replace("//", "//bob:x@"), prefix: newPrefix() });
      await store.addMessage(key, say("hello"));
      expect(store.warnings).toEqual(expected);
      expect(store.capabilities.survives).toBe("process");
    });
  });

  describe("what is stored", () => {
    test("names, types and contents are as documented, and one session expires as one", async () => {
      const prefix = newPrefix();
      const client = beside(url);
      const store = openStore({ url, prefix, ttl: 60_000 });
      await store.setState(key, { notes: ["x"] });
      await store.addMessages(key, [say("hello", "a"), say("again", "b")]);
      await store.setTitle(key, "Kittens");
      const session = `${prefix}{t:acme/u:alice}/c:support`;
      const names = ["messages", "places"].map((kind) => `${session}:${kind}`);
      const list = `${prefix}{t:acme/u:alice}:sessions`;
      expect((await client.keys(`${prefix}*`)).sort()).toEqual(
        [...names, list, `${prefix}users`].sort(),
      );
      const [first, second, header, ...more] = await client.lrange(`${session}:messages`, 0, -1);
      expect(more).toEqual([]);
      expect(first).toMatch(/\na$/);
      expect(second).toMatch(/^[\w-]{22} \d{13} \{"v":1,"role":"user","content":"again"\}\nb$/);
      const details = header?.slice(header.indexOf("{"), header.indexOf("\n")) ?? "";
      const { state, recent } = JSON.parse(details);
      expect(JSON.parse(state.notes)).toEqual({ v: 1, value: ["x"] });
      const { version, updatedAt, expiresAt, createdAt } = (await store.getSession(key)) ?? {};
      const times = [createdAt, updatedAt, expiresAt].map(Number).join(" ");
      const edited = "[0-9a-f-]{36}";
      expect(header?.replace(details, "…")).toMatch(
        new RegExp(`^session 1 ${version} 2 ${times} ${edited} …\n\\+Kittens$`),
      );
      expect(recent.split(" ")[0]).toBe(`${version}:2`);
      expect(await client.hgetall(`${session}:places`)).toEqual({ a: "0", b: "1" });
      expect(await client.zrange(list, 0, -1, "WITHSCORES")).toEqual([
        key,
        `-${Number(updatedAt)}`,
      ]);
      expect(await client.zrange(`${prefix}users`, 0, -1)).toEqual(["t:acme/u:alice"]);
      // Redis 6 tells only how long keys still live, each at another instant.
      const instants = [...names, list].map((name) => client.call("PEXPIRETIME", name));
      const found = await Promise.all(instants).catch(() => [Number(expiresAt)]);
      expect(new Set(found)).toEqual(new Set([Number(expiresAt)]));
    });

    test("a long state is kept out of the header, which every append writes anew", async () => {
      const prefix = newPrefix();
      const client = beside(url);
      const store = openStore({ url, prefix });
      const session = `${prefix}{t:acme/u:alice}/c:support`;
      const header = () => client.lindex(`${session}:messages`, -1);
      await store.addMessage(key, say("hello", "a"));
      for (const notes of ["x".repeat(100_000), "short", "y".repeat(2_000)]) {
        await store.setState(key, { notes });
        await store.addMessage(key, say("again"));
        expect((await header())?.length).toBeLessThan(500);
        const { messages, session } = await store.readSession(key, { last: 1 });
        expect(session?.state).toEqual({ notes });
        expect(messages).toHaveLength(1);
        expect((await store.readSession(key, { after: "a" })).session?.state).toEqual({ notes });
      }
      await store.setMessages(key, [say("b", "b")]);
      expect((await store.getSession(key))?.state).toEqual({ notes: "y".repeat(2_000) });
      expect(Object.keys(await client.hgetall(`${session}:places`)).sort()).toEqual(["", "b"]);
      await store.setState(key, { notes: null });
      expect(await client.hgetall(`${session}:places`)).toEqual({ b: "0" });
    });

    test("the list of a user's sessions outlives none of them, and no session outlives it", async () => {
      const prefix = newPrefix();
      const client = beside(url);
      const list = `${prefix}{u:bob}:sessions`;
      const keyOf = (conversation: string) => redis.sessionKey({ user: "bob", conversation });
      const long = openStore({ url, prefix, ttl: 3_600_000 });
      const short = openStore({ url, prefix, ttl: 60_000 });
      await long.addMessage(keyOf("long"), say("x"));
      const expiry = await client.pttl(list);
      await short.addMessage(keyOf("short"), say("x"));
      expect(await client.pttl(list)).toBeGreaterThan(expiry - 60_000);
      await openStore({ url, prefix }).addMessage(keyOf("forever"), say("x"));
      expect(await client.pttl(list)).toBe(-1);
      await short.addMessage(keyOf("short"), say("x"));
      expect(await client.pttl(list)).toBe(-1);
    });

    test("erasing a user leaves no key at all, nor does expiry", async () => {
      const prefix = newPrefix();
      const client = beside(url);
      const store = openStore({ url, prefix });
      const expiring = openStore({ url, prefix, ttl: 100 });
      await store.addMessages(key, [say("x")]);
      await store.addMessages(redis.rawSessionKey("raw"), [say("x")]);
      await expiring.addMessages(redis.sessionKey({ user: "carol" }), [say("x")]);
      await store.deleteSessions({ tenant: "acme", user: "alice" });
      await store.deleteMessages(redis.rawSessionKey("raw"));
      await expect.poll(() => client.keys(`${prefix}*`)).toEqual([`${prefix}users`]);
      await store.purgeExpired();
      expect(await client.keys(`${prefix}*`)).toEqual([]);
    });

    test("a newer format is refused, not guessed", async () => {
      const prefix = newPrefix();
      const store = openStore({ url, prefix });
      await store.addMessage(key, say("hello"));
      const client = beside(url);
      const messages = `${prefix}{t:acme/u:alice}/c:support:messages`;
      await client.lset(messages, -1, "session 2 what comes then");
      for (const call of [
        store.getMessages(key),
        store.addMessage(key, say("x")),
        store.setMessages(key, []),
        store.listSessions({ tenant: "acme", user: "alice" }),
      ]) {
        expect(await refusal(call)).toMatchObject({ code: "UNSUPPORTED_FORMAT" });
      }
    });

    test.each(["messages", "places"])(
      "a session whose %s was evicted is damaged, not empty",
      async (kind) => {
        const prefix = newPrefix();
        const store = openStore({ url, prefix });
        const healthy = redis.sessionKey({ tenant: "acme", user: "alice" });
        await store.addMessages(key, [say("hello", "a"), say("x")]);
        await store.addMessage(healthy, say("hello"));
        const client = beside(url);
        await client.del(`${prefix}{t:acme/u:alice}/c:support:${kind}`);
        for (const call of [
          () => store.getMessages(key, { after: "a" }),
          () => store.addMessage(key, say("x")),
          () => store.setMessages(key, [say("x")]),
          () => store.deleteMessagesAfter(key, "a"),
        ]) {
          const error = await refusal(call());
          expect(error).toMatchObject({ code: "CORRUPT_SESSION" });
          expect(error.message).toContain("noeviction");
        }
        // The messages are whole without their index, or refused.
        const all = contents(store);
        if (kind === "places") expect(await all).toEqual(["hello", "x"]);
        else expect(await refusal(all)).toMatchObject({ code: "CORRUPT_SESSION" });
        const { sessions } = await store.listSessions({ tenant: "acme", user: "alice" });
        expect(sessions.map((session) => session.key)).toContain(healthy);
        await store.deleteSessions({ tenant: "acme", user: "alice" });
        expect(await client.keys(`${prefix}*`)).toEqual([]);
      },
    );

    test.each(["/c:support:places", ":sessions"])(
      "a key of another kind in the way (%s) changes nothing",
      async (name) => {
        const prefix = newPrefix();
        const store = openStore({ url, prefix });
        await store.addMessage(key, say("hello"));
        const client = beside(url);
        await client.set(`${prefix}{t:acme/u:alice}${name}`, "mine");
        const stored = () => client.lrange(`${prefix}{t:acme/u:alice}/c:support:messages`, 0, -1);
        const before = await stored();
        for (const call of [store.addMessage(key, say("canary")), store.setMessages(key, [])]) {
          expect(await refusal(call)).toMatchObject({ code: "BACKEND", retryable: false });
        }
        expect(await stored()).toEqual(before);
      },
    );
  });

  describe("long sessions", () => {
    const many = (count: number, text: string) =>
      Array.from({ length: count }, (_, index) => say(`${text} ${index}`, `${text}${index}`));

    test("are read whole and of one version while others write", async () => {
      const prefix = newPrefix();
      const [store, other] = [openStore({ url, prefix }), openStore({ url, prefix })];
      await store.setMessages(key, many(6_000, "m"));
      const write = (n: number) =>
        n % 10 === 9
          ? other.updateMessage(key, `m${n}`, say(`edited ${n}`))
          : other.addMessage(key, say(`later ${n}`));
      await meanwhile(write, async () => {
        for (let round = 0; round < 8; round++) {
          const { session, messages } = await store.readSession(key);
          expect(messages).toHaveLength(session?.messageCount ?? 0);
          const numbers = (word: string) =>
            messages.flatMap(({ content }) =>
              String(content).startsWith(word) ? [Number(String(content).split(" ")[1])] : [],
            );
          // Everything up to the newest appended message had been done by then.
          const newest = Math.max(0, ...numbers("later"));
          const edited = numbers("edited").filter((n) => n < newest);
          expect(edited).toHaveLength(Math.floor(newest / 10));
          const page = await store.getMessages(key, { before: "m5999", limit: 3_000 });
          expect([page.length, page.at(-1)?.id]).toEqual([3_000, "m5998"]);
        }
      });
    });

    test("are read whole while others cut them short", async () => {
      const prefix = newPrefix();
      const [store, other] = [openStore({ url, prefix }), openStore({ url, prefix })];
      await store.setMessages(key, many(3_000, "m"));
      const write = async (n: number) => {
        await other.deleteMessagesAfter(key, "m200");
        await other.addMessages(key, many(1_000, `${n}-`));
      };
      await meanwhile(write, async () => {
        for (let round = 0; round < 40; round++) {
          const { session, messages } = await store.readSession(key);
          expect(messages).toHaveLength(session?.messageCount ?? 0);
        }
      });
    });

    test("are replaced in one step, and a replacement that stops half way leaves nothing", async () => {
      const prefix = newPrefix();
      const client = beside(url);
      const [store, reader] = [openStore({ url, prefix }), openStore({ url, prefix })];
      await store.setMessages(key, many(3_000, "old"));
      const seen = new Set<string>();
      const watch = async () => {
        const { session, messages } = await reader.readSession(key, { last: 2 });
        seen.add(`${session?.messageCount} ${messages.map(({ content }) => content).join()}`);
      };
      await meanwhile(watch, () => store.setMessages(key, many(20_000, "new")));
      for (const state of seen) {
        expect(["3000 old 2998,old 2999", "20000 new 19998,new 19999"]).toContain(state);
      }
      // Somebody else is faster: the half-way parts are gone.
      const late = store.setMessages(key, many(20_000, "late"), {
        ifVersion: (await store.getSession(key))?.version,
      });
      await expect.poll(() => client.keys(`${prefix}*staged*`)).toHaveLength(2);
      await reader.addMessage(key, say("faster"));
      expect(await refusal(late)).toMatchObject({ code: "VERSION_CONFLICT" });
      expect(await client.keys(`${prefix}*staged*`)).toEqual([]);
      expect((await store.getSession(key))?.messageCount).toBe(20_001);
    });

    test("of a writer that died, the half-way parts are erased with the session, and expire", async () => {
      const prefix = newPrefix();
      const client = beside(url);
      const dying = redis.redisChatStore({ url, prefix, timeout: 5_000 });
      dying.setMessages(key, many(20_000, "canary")).catch(() => undefined);
      await expect.poll(() => client.keys(`${prefix}*staged*`)).toHaveLength(2);
      await client.client("KILL", "TYPE", "normal", "SKIPME", "yes");
      const closing = dying.close().catch(() => undefined);
      const [staged = ""] = await client.keys(`${prefix}*staged-messages`);
      if (staged !== "") expect(await client.pttl(staged)).toBeGreaterThan(0);
      await closing;
      await openStore({ url, prefix }).deleteMessages(key);
      expect(await client.keys(`${prefix}*`)).toEqual([]);
    });

    test("two writers that replace at once: one wins, whole", async () => {
      const prefix = newPrefix();
      const stores = [openStore({ url, prefix }), openStore({ url, prefix })] as const;
      const results = await Promise.allSettled([
        stores[0].setMessages(key, many(3_000, "a"), { ifVersion: null }),
        stores[1].setMessages(key, many(4_000, "b"), { ifVersion: null }),
      ]);
      expect(results.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
      const winner = results[0].status === "fulfilled" ? many(3_000, "a") : many(4_000, "b");
      expect(await contents(stores[0])).toEqual(winner.map(({ content }) => content));
    });
  });

  describe("lists", () => {
    test("are complete and in order where many sessions changed at the same instant", async () => {
      const prefix = newPrefix();
      const store = openStore({ url, prefix });
      const time = new Date("2026-01-01");
      const user = "bob";
      const keys = Array.from({ length: 150 }, (_, n) =>
        redis.sessionKey({ user, conversation: `${n} é😀${"x".repeat(n % 3)}` }),
      );
      for (const [index, one] of keys.entries()) {
        const updatedAt = new Date(time.getTime() + (index % 3));
        await store.importSession(one, { messages: [], createdAt: time, updatedAt });
      }
      const pages = async (query: { user?: string }) => {
        const found: { key: string; updatedAt: Date }[] = [];
        let cursor: string | undefined;
        do {
          const page = await store.listSessions({ ...query, limit: 7, cursor });
          found.push(...page.sessions);
          cursor = page.cursor;
        } while (cursor !== undefined);
        return found;
      };
      const newestFirst = await pages({ user });
      const bytes = (text: string) => Buffer.from(text);
      expect(newestFirst).toEqual(
        newestFirst.toSorted(
          (a, b) =>
            b.updatedAt.getTime() - a.updatedAt.getTime() || bytes(a.key).compare(bytes(b.key)),
        ),
      );
      expect(newestFirst.map((one) => one.key).sort()).toEqual([...keys].sort());
      expect((await pages({})).map((one) => one.key).sort()).toEqual([...keys].sort());
    });

    test("getKeys misses no session that exists throughout, whatever changes meanwhile", async () => {
      const prefix = newPrefix();
      const [store, other] = [openStore({ url, prefix }), openStore({ url, prefix })];
      const keyOf = (user: number, n: number) =>
        redis.sessionKey({ tenant: `t${user % 3}`, user: `${user}`, conversation: `${n}` });
      const lasting = Array.from({ length: 12 }, (_, user) =>
        Array.from({ length: 12 }, (_, n) => keyOf(user, n)),
      ).flat();
      await Promise.all(lasting.map((one) => store.addMessage(one, say("x"))));
      const write = async (n: number) => {
        await other.addMessage(lasting[(n * 7) % lasting.length] as string, say("x"));
        const passing = keyOf(100 + (n % 5), 0);
        await other.addMessage(passing, say("x"));
        await other.deleteMessages(passing);
      };
      await meanwhile(write, async () => {
        for (let round = 0; round < 5; round++) {
          const found = new Set<string>();
          let cursor: string | undefined;
          do {
            const page = await store.listSessions({ limit: 5, cursor });
            for (const session of page.sessions) found.add(session.key);
            cursor = page.cursor;
          } while (cursor !== undefined);
          expect(lasting.filter((one) => !found.has(one))).toEqual([]);
        }
      });
    });

    test("a user who comes while being erased is listed", async () => {
      const prefix = newPrefix();
      const [store, other] = [openStore({ url, prefix }), openStore({ url, prefix })];
      const one = redis.sessionKey({ user: "bob", conversation: "one" });
      for (let round = 0; round < 150; round++) {
        await store.addMessage(one, say("x"));
        await Promise.all([
          store.deleteSessions({ user: "bob" }),
          other.addMessage(redis.sessionKey({ user: "bob", conversation: `${round}` }), say("x")),
        ]);
        const { sessions } = await store.listSessions({ user: "bob" });
        const keys = new Set(await store.getKeys());
        expect(sessions.filter((session) => !keys.has(session.key))).toEqual([]);
      }
    });

    test("a user whose entry the server lost is listed again by whoever writes", async () => {
      const prefix = newPrefix();
      const store = openStore({ url, prefix });
      await store.addMessage(key, say("x"));
      await beside(url).del(`${prefix}users`);
      expect([...(await store.getKeys())]).toEqual([]);
      const other = openStore({ url, prefix });
      await other.addMessage(key, say("y"));
      await expect.poll(async () => [...(await other.getKeys())]).toEqual([key]);
    });

    test("a cursor of another list is refused", async () => {
      const store = openStore({ url, prefix: newPrefix() });
      for (const n of [1, 2, 3]) {
        await store.addMessage(redis.sessionKey({ user: "bob", conversation: `${n}` }), say("x"));
      }
      const { cursor } = await store.listSessions({ user: "bob", limit: 1 });
      expect(await refusal(store.listSessions({ limit: 1, cursor }))).toMatchObject({
        code: "INVALID_OPTIONS",
      });
    });
  });

  test("scripts that the server forgot are sent again", async () => {
    const store = openStore({ url, prefix: newPrefix() });
    const client = beside(url);
    await store.addMessage(key, say("one"));
    await client.script("FLUSH");
    await Promise.all([store.addMessage(key, say("two")), store.addMessage(key, say("three"))]);
    await client.script("FLUSH");
    expect(await contents(store)).toEqual(["one", "two", "three"]);
  });
});
