/** What a user sees, and what is left of the data, when server, network or settings fail. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { inspect } from "node:util";
import { startPgBouncer, startPostgresServer, startProxy, type TcpProxy } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import { Client, Pool } from "pg";
import { describe, expect, onTestFinished, test } from "vitest";
import {
  type ChatStore,
  type PostgresChatStoreOptions,
  postgresChatStore,
  type SessionKey,
  sessionKey,
} from "../src/index.js";
import { sql } from "./hooks.js";

const say = (content: string) => ({ role: "user" as const, content });

await withEngine(startPostgresServer, async (postgres) => {
  const { url } = postgres;
  let users = 0;
  const newKey = () => sessionKey({ user: `user ${++users}` });

  function open(options: PostgresChatStoreOptions = {}): ChatStore {
    const where = options.pool instanceof Pool ? {} : { url };
    const store = postgresChatStore({
      ...where,
      onError: () => {},
      onWarning: () => {},
      ...options,
    });
    onTestFinished(() => store.close().catch(() => {}));
    return store;
  }

  async function proxied(): Promise<TcpProxy> {
    const proxy = await startProxy(url);
    onTestFinished(() => proxy.stop());
    return proxy;
  }

  const texts = async (key: SessionKey) =>
    (await open().getMessages(key)).map(({ content }) => content);

  /** Another process with a `store`. */
  function inChild(script: string, options: PostgresChatStoreOptions) {
    const child = spawn(
      process.execPath,
      [
        ...["--input-type=module", "--eval"],
        `const { postgresChatStore, sessionKey } = await import(process.argv[1]);
        const store = postgresChatStore(JSON.parse(process.argv[2]));
        ${script}`,
        new URL("../dist/index.js", import.meta.url).href,
        JSON.stringify(options),
      ],
      { stdio: ["pipe", "pipe", "inherit"] },
    );
    onTestFinished(() => void child.kill("SIGKILL"));
    return child;
  }

  /** Connections of the store that wait for a lock. */
  const waiting = () =>
    sql(url, "SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock'");

  async function until(what: string, test: () => Promise<boolean>): Promise<void> {
    const deadline = Date.now() + 10_000;
    while (!(await test())) {
      if (Date.now() > deadline) throw new Error(`Waited in vain for ${what}`);
      await delay(20);
    }
  }

  test("a process that forgets to close its store ends once nothing is queued", async () => {
    const child = inChild(
      `for (const content of ["a", "b", "c"]) {
        void store.addMessage(sessionKey({ user: "forgetful" }), { role: "user", content });
      }`,
      // Left to pg, idle connections live for ten seconds, and keep the process.
      { url, pool: { idleTimeoutMillis: 0 } },
    );
    expect(await once(child, "close")).toEqual([0, null]);
    expect(await texts(sessionKey({ user: "forgetful" }))).toEqual(["a", "b", "c"]);
  });

  describe("a broken connection", () => {
    for (const where of ["before the request", "after the request", "in the reply"] as const) {
      test(`${where}: an append lands once`, async () => {
        const proxy = await proxied();
        const store = open({ url: proxy.url });
        const key = newKey();
        await store.addMessages(key, [say("first")]);
        const cut = proxy.cutNext(where, "the canary");
        const { messageCount } = await store.addMessages(key, [say("the canary"), say("third")]);
        await cut;
        expect(messageCount).toBe(3);
        expect(await texts(key)).toEqual(["first", "the canary", "third"]);
      });

      test(`${where}, at the commit: a replacement lands once`, async () => {
        const proxy = await proxied();
        const store = open({ url: proxy.url });
        const key = newKey();
        await store.addMessages(key, [say("old")]);
        const cut = proxy.cutNext(where, "COMMIT");
        const { messageCount } = await store.setMessages(key, [say("new"), say("history")]);
        await cut;
        expect(messageCount).toBe(2);
        expect(await texts(key)).toEqual(["new", "history"]);
      });
    }

    test("within an erasure: nothing is left, and what is left meanwhile nobody sees", async () => {
      const proxy = await proxied();
      const store = open({ url: proxy.url });
      const key = newKey();
      await store.setMessages(
        key,
        Array.from({ length: 2_500 }, (_, n) => say(`canary ${n}`)),
      );
      const cut = proxy.cutNext("before the request", "chatstore_"); // the name of a statement
      const erased = store.deleteMessages(key);
      await cut;
      await erased;
      expect(await texts(key)).toEqual([]);
      const left = "SELECT FROM chatstore_messages WHERE data->>'content' LIKE 'canary%'";
      expect(await sql(url, left)).toEqual([]);
    });

    test("while idle: the process goes on", async () => {
      const pool = new Pool({ connectionString: url });
      onTestFinished(() => pool.end());
      const key = newKey();
      for (const store of [open(), open({ pool })]) {
        await store.addMessages(key, [say("x")]);
        await sql(
          url,
          `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`,
        );
        await delay(100);
        await store.addMessages(key, [say("y")]);
      }
      expect(await texts(key)).toEqual(["x", "y", "x", "y"]);
    });
  });

  describe("a server that does not answer", () => {
    test("is given up in time, and found again when it is back", async () => {
      const proxy = await proxied();
      const store = open({ url: proxy.url, timeout: 1_000 });
      const key = newKey();
      await store.addMessages(key, [say("before")]);
      proxy.blackHole();
      const start = performance.now();
      const calls = [
        store.addMessages(newKey(), [say("x")]),
        store.setMessages(newKey(), [say("x")]),
        store.getMessages(newKey()),
        store.listSessions({}),
        open({ url: proxy.url, timeout: 1_000 }).open(),
      ];
      for (const { status, ...result } of await Promise.allSettled(calls)) {
        expect(status).toBe("rejected");
        expect(result).toMatchObject({ reason: { code: "TIMEOUT", retryable: true } });
      }
      expect(performance.now() - start).toBeLessThan(3_000);
      proxy.heal();
      await store.addMessages(key, [say("after")]);
      expect(await texts(key)).toEqual(["before", "after"]);
    });

    test("does not keep a closed store's process from ending", async () => {
      const child = inChild(
        `await store.open();
        process.stdout.write("open");
        await new Promise((resolve) => process.stdin.once("data", resolve).resume());
        process.stdin.destroy();
        await store.close();
        process.stdout.write("closed");`,
        { url, pool: { application_name: "closing" } },
      );
      await once(child.stdout, "data");
      const [server] = await sql<{ pid: number }>(
        url,
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'closing'",
      );
      const pid = server?.pid as number;
      process.kill(pid, "SIGSTOP");
      onTestFinished(() => void process.kill(pid, "SIGCONT"));
      child.stdin.write("go");
      await once(child.stdout, "data");
      const [code] = await Promise.race([once(child, "exit"), delay(3_000, ["still there"])]);
      expect(code).toBe(0);
    });

    test("a process that is stopped within a write does not block the others", async () => {
      const key = newKey();
      const store = open({ timeout: 20_000 });
      await store.addMessages(key, [say("before")]);
      const child = inChild(
        `const history = Array.from({ length: 50_000 }, (_, n) => ({ role: "user", content: "x" }));
        await store.setMessages(${JSON.stringify(key)}, history);`,
        { url, timeout: 2_000, pool: { application_name: "stopping" } },
      );
      const writing = `SELECT FROM pg_stat_activity WHERE application_name = 'stopping'
        AND xact_start IS NOT NULL AND query LIKE '%INSERT INTO "chatstore_messages"%'`;
      await until("the child to write", async () => (await sql(url, writing)).length > 0);
      child.kill("SIGSTOP");
      expect(await sql(url, writing)).toHaveLength(1);
      await store.addMessages(key, [say("after")]);
      expect(await texts(key)).toEqual(["before", "after"]);
    });

    test("who has given up does not wait for a lock on the server for ever", async () => {
      const key = newKey();
      const store = open({ timeout: 500 });
      await store.addMessages(key, [say("x")]);
      const holder = new Client(url);
      await holder.connect();
      onTestFinished(() => holder.end());
      await holder.query("BEGIN");
      await holder.query("SELECT FROM chatstore_sessions WHERE key = $1 FOR UPDATE", [key]);
      // Nothing was written before the lock, and nothing will be.
      const late = { code: "TIMEOUT", outcome: "not-applied", retryable: true };
      const { version } = await store.getSession(key).then((session) => ({ ...session }));
      for (const write of [
        () => store.addMessages(key, [say("y")]),
        () => store.addMessages(key, [say("y")], { ifVersion: version }),
        () => store.setTitle(key, "y"),
        () => store.setMessages(key, []),
        () => store.deleteLastMessage(key),
        () => store.deleteMessages(key),
      ]) {
        await expect(write()).rejects.toMatchObject(late);
      }
      await until("the server to forget", async () => (await waiting()).length === 0);
      await holder.query("COMMIT");
      expect(await texts(key)).toEqual(["x"]);
    });
  });

  describe("a server that refuses", () => {
    const secret = "hunter2-canary";

    test.each([
      ["a wrong password", "28P01", { password: secret }],
      ["an unknown user", "28P01", { username: "nobody" }],
      ["an unknown database", "3D000", { pathname: "/nowhere" }],
      ["TLS that it does not speak", undefined, { search: "?ssl=true" }],
    ])("says so at once: %s", async (_, code, change) => {
      const to = Object.assign(new URL(url), change);
      const start = performance.now();
      const error = await open({ url: to.href })
        .open()
        .catch((reason: unknown) => reason);
      expect(error).toMatchObject({ code: "BACKEND", retryable: false, outcome: "not-applied" });
      expect(error).toMatchObject({ cause: code === undefined ? expect.any(Error) : { code } });
      expect(performance.now() - start).toBeLessThan(3_000);
      const shown = inspect(error, { depth: 10, showHidden: true });
      expect(shown).not.toContain(secret);
      expect(shown).not.toContain(decodeURIComponent(new URL(url).password));
    });

    test("for lack of connections: the store waits for one", async () => {
      await sql(url, "CREATE ROLE few SUPERUSER LOGIN PASSWORD 'few' CONNECTION LIMIT 1").catch(
        () => {},
      );
      await sql(url, "ALTER ROLE few NOSUPERUSER");
      await sql(url, "GRANT ALL ON SCHEMA public TO few");
      const to = new URL(url);
      [to.username, to.password] = ["few", "few"];
      const holder = new Client(to.href);
      await holder.connect();
      const short = open({ url: to.href, prefix: "few_", timeout: 500 });
      const busy = { retryable: true, outcome: "not-applied", cause: { code: "53300" } };
      await expect(short.open()).rejects.toMatchObject(busy);
      const store = open({ url: to.href, prefix: "few_", timeout: 10_000, pool: { max: 1 } });
      const opening = store.open();
      await delay(200);
      await holder.end();
      await expect(opening).resolves.toBeUndefined();
    });

    test("because it is read-only: found again when it is not", async () => {
      await open().open();
      await sql(url, "ALTER ROLE postgres SET default_transaction_read_only = on");
      const store = open({ timeout: 500 });
      const failure = { retryable: true, message: expect.stringContaining("read-only") };
      await expect(store.open()).rejects.toMatchObject(failure);
      await sql(url, "BEGIN READ WRITE; ALTER ROLE postgres RESET ALL; COMMIT");
      await store.addMessages(newKey(), [say("x")]);
    });

    test("because the tables are gone: says what to do", async () => {
      const store = open({ prefix: "gone_" });
      const key = newKey();
      await store.addMessages(key, [say("x")]);
      await sql(url, "DROP TABLE gone_messages");
      for (const call of [store.addMessages(key, [say("y")]), store.getMessages(key)]) {
        await expect(call).rejects.toMatchObject({
          code: "SCHEMA",
          message: expect.stringMatching(/"gone_messages" does not exist.*migrate: "auto"/),
        });
      }
    });
  });

  test("a server killed and started again loses nothing that was acknowledged", async () => {
    const keys = [newKey(), newKey(), newKey()];
    const store = open({ timeout: 30_000 });
    const acknowledged = keys.map(() => 0);
    let running = true;
    const writers = keys.map(async (key, writer) => {
      for (let n = 0; running; n++) {
        await store.addMessages(key, [say(`${n} a`), say(`${n} b`)]);
        acknowledged[writer] = n + 1;
      }
    });
    for (let round = 0; round < 3; round++) {
      await delay(150);
      await postgres.process.kill();
      await postgres.process.start();
    }
    await delay(150);
    running = false;
    await Promise.all(writers);
    for (const [writer, key] of keys.entries()) {
      const count = acknowledged[writer] as number;
      expect(count).toBeGreaterThan(3);
      expect(await texts(key)).toEqual(
        Array.from({ length: count }, (_, n) => [`${n} a`, `${n} b`]).flat(),
      );
    }
  });

  test("a database whose transactions are serializable loses and refuses nothing", async () => {
    const pool = { options: "-c default_transaction_isolation=serializable" };
    const stores = [open({ pool }), open({ pool }), open()];
    const key = newKey();
    await Promise.all(
      stores.map(async (store, writer) => {
        for (let n = 0; n < 30; n++) await store.addMessages(key, [say(`${writer} ${n}`)]);
      }),
    );
    const found = await texts(key);
    expect(found).toHaveLength(90);
    for (const writer of stores.keys()) {
      expect(found.filter((text) => String(text).startsWith(`${writer} `))).toEqual(
        Array.from({ length: 30 }, (_, n) => `${writer} ${n}`),
      );
    }
  });

  describe("a pool of one's own", () => {
    test("is used, and left open", async () => {
      const pool = new Pool({ connectionString: url, max: 2, application_name: "mine" });
      onTestFinished(() => pool.end());
      const store = open({ pool });
      const key = newKey();
      await store.addMessages(key, [say("x")]);
      const mine = "SELECT FROM pg_stat_activity WHERE application_name = 'mine'";
      expect((await sql(url, mine)).length).toBeGreaterThan(0);
      await store.close();
      expect(pool.listenerCount("error")).toBe(0);
      expect((await pool.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    });

    test("keeps its own ideas of types to itself", async () => {
      const types = { getTypeParser: () => () => "nonsense" };
      const pool = new Pool({ connectionString: url, types });
      onTestFinished(() => pool.end());
      const store = open({ pool });
      const key = newKey();
      await store.setState(key, { entry: [1] });
      await store.addMessages(key, [say("x")]);
      const { session, messages } = await store.readSession(key);
      expect(session).toMatchObject({ messageCount: 1, state: { entry: [1] } });
      expect(messages).toMatchObject([say("x")]);
    });

    test("that is used up makes nobody wait longer than the timeout", async () => {
      const pool = new Pool({ connectionString: url, max: 1 });
      const busy = await pool.connect();
      onTestFinished(() => pool.end());
      const store = open({ pool, timeout: 300 });
      const key = newKey();
      const late = { code: "TIMEOUT", outcome: "not-applied" };
      await expect(store.addMessages(key, [say("x")])).rejects.toMatchObject(late);
      busy.release();
      await store.addMessages(key, [say("y")]);
      expect(await texts(key)).toEqual(["y"]);
      expect(pool.totalCount).toBe(1);
    });
  });

  describe("PgBouncer in transaction mode", async () => {
    const start = () => startPgBouncer(postgres, { default_pool_size: 3 });
    await withEngine(start, (bouncer) => {
      test("lets many open empty schemas at once, on server connections that others used", async () => {
        for (let round = 0; round < 10; round++) {
          const options = { url: bouncer.url, schema: `round ${round}`, timeout: 20_000 };
          const stores = Array.from({ length: 8 }, () => open(options));
          await Promise.all(stores.map((store) => store.open()));
          await Promise.all(stores.map((store) => store.close()));
        }
      });

      test("carries everything", async () => {
        const stores = [1, 2, 3].map(() => open({ url: bouncer.url, prefix: "bounced_" }));
        const keys = [newKey(), newKey(), newKey(), newKey()];
        await Promise.all(
          stores.flatMap((store, writer) =>
            keys.map(async (key) => {
              for (let n = 0; n < 20; n++) {
                await store.addMessages(key, [{ ...say(`${writer} ${n}`), id: `${writer} ${n}` }]);
                if (n % 5 === 0) await store.setState(key, { [`s${writer}`]: n });
                if (n % 7 === 0) await store.getMessages(key, { last: 3 });
              }
            }),
          ),
        );
        for (const key of keys) {
          const { session, messages } = await (stores[0] as ChatStore).readSession(key);
          expect(session).toMatchObject({ messageCount: 60, state: { s0: 15, s1: 15, s2: 15 } });
          for (const writer of stores.keys()) {
            expect(
              messages.map(({ id }) => id).filter((id) => id.startsWith(`${writer} `)),
            ).toEqual(Array.from({ length: 20 }, (_, n) => `${writer} ${n}`));
          }
        }
      });
    });
  });
});
