/** What is stored: names, migrations, rights, the queries that people run, and what statements cost. */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { promisify } from "node:util";
import { startPostgresServer, startProxy } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import { Client, Pool } from "pg";
import { describe, expect, onTestFinished, test } from "vitest";
import {
  type ChatStore,
  type PostgresChatStoreOptions,
  postgresChatStore,
  postgresSchema,
  sessionKey,
} from "../src/index.js";
import { named, statements } from "../src/schema.js";
import { sql } from "./hooks.js";

const run = promisify(execFile);
const key = sessionKey({ tenant: "acme", user: "alice", conversation: "support" });
const say = (content: string) => ({ role: "user" as const, content });

await withEngine(
  () => startPostgresServer({ autovacuum: "off" }),
  ({ url: server }) => {
    let databases = 0;
    /** An empty database. */
    async function newDatabase(): Promise<string> {
      const name = `test_${++databases}`;
      await sql(server, `CREATE DATABASE ${name}`);
      const url = new URL(server);
      url.pathname = name;
      return url.href;
    }

    function open(options: PostgresChatStoreOptions): ChatStore {
      const store = postgresChatStore(options);
      onTestFinished(() => store.close());
      return store;
    }

    const texts = async (store: ChatStore) =>
      (await store.getMessages(key)).map(({ content }) => content);

    describe("the schema", () => {
      test("twenty processes open an empty database at once", async () => {
        const url = await newDatabase();
        const script = `
        const { postgresChatStore } = await import(process.argv[1]);
        const store = postgresChatStore({ url: process.argv[2], schema: "chats", timeout: 60_000 });
        await store.addMessage(process.argv[3], { role: "user", content: "hello" });
        await store.close();`;
        const module = new URL("../dist/index.js", import.meta.url).href;
        const args = ["--input-type=module", "--eval", script, module, url, key];
        await Promise.all(Array.from({ length: 20 }, () => run(process.execPath, args)));
        expect(await texts(open({ url, schema: "chats" }))).toHaveLength(20);
      }, 60_000);

      test("opening at the current version is one query", async () => {
        const url = await newDatabase();
        await open({ url }).open();
        const proxy = await startProxy(url);
        const pool = new Pool({ connectionString: proxy.url });
        onTestFinished(async () => {
          await pool.end();
          await proxy.stop();
        });
        await pool.query("SELECT 1");
        const before = proxy.roundTrips;
        await open({ pool }).open();
        expect(proxy.roundTrips - before).toBe(1);
      });

      test.each([
        `we"ird; DROP TABLE {sessions}; --`,
        "$$ $1 $& \\ ' %",
        "Größe 👩‍👩‍👧 Ω",
        "select",
        "x".repeat(45),
      ])("any schema and prefix: %s", async (name) => {
        const url = await newDatabase();
        const store = open({ url, schema: name, prefix: name });
        await store.addMessages(key, [say("hello")]);
        await store.setState(key, { entry: 1 });
        expect(await texts(open({ url, schema: name, prefix: name }))).toEqual(["hello"]);
        expect(await texts(open({ url, schema: name, prefix: `${name.slice(1)}` }))).toEqual([]);
        expect(await texts(open({ url, prefix: name }))).toEqual([]);
        const schemas = await sql(url, "SELECT FROM pg_tables WHERE schemaname = $1", [name]);
        expect(schemas).toHaveLength(8);
      });

      test.each([
        ["prefix is 46 bytes", { prefix: "x".repeat(46) }],
        ["prefix is 46 bytes", { prefix: "Ω".repeat(23) }],
        ["prefix must be", { prefix: "\ud800" }],
        ["schema is 64 bytes", { schema: "x".repeat(64) }],
        ["schema is empty", { schema: "" }],
        ["schema must be", { schema: "a\0" }],
        ["url does not begin with postgres:", { url: "mysql://me:secret@localhost" }],
        ["url has no host", { url: "postgres://me:secret@[" }],
        ["not both", { url: "postgres://me:secret@localhost", pool: new Pool() }],
      ])("refuses options: %s", (message, options) => {
        expect(() => postgresChatStore(options)).toThrow(message);
        expect(() => postgresChatStore(options)).not.toThrow("secret");
      });

      test("settings beside the URL complete it", async () => {
        const url = new URL(await newDatabase());
        const { username: user, password } = url;
        url.username = url.password = "";
        const pool = { user, password: () => Promise.resolve(decodeURIComponent(password)) };
        await expect(open({ url: url.href, pool }).open()).resolves.toBeUndefined();
      });

      test("whoever may not create tables uses those that somebody else made", async () => {
        const url = new URL(await newDatabase());
        const names = { schema: "chats", prefix: "team " };
        await sql(url.href, "CREATE ROLE app LOGIN PASSWORD 'app'");
        const asApp = new URL(url);
        [asApp.username, asApp.password] = ["app", "app"];
        const checked = open({ url: asApp.href, ...names, migrate: "check" });
        await expect(checked.open()).rejects.toMatchObject({
          code: "SCHEMA",
          message: expect.stringContaining("postgresSchema()"),
        });
        await expect(open({ url: asApp.href, ...names }).open()).rejects.toMatchObject({
          code: "BACKEND",
          message: expect.stringContaining("permission denied"),
        });

        await sql(url.href, postgresSchema(names));
        await sql(url.href, "GRANT USAGE ON SCHEMA chats TO app");
        const rights = "SELECT, INSERT, UPDATE, DELETE";
        await sql(url.href, `GRANT ${rights} ON ALL TABLES IN SCHEMA chats TO app`);
        await checked.addMessages(key, [say("hello")]);
        await checked.setState(key, { entry: 1 });
        expect(await texts(open({ url: asApp.href, ...names }))).toEqual(["hello"]);
        expect(await checked.deleteSessions({ tenant: "acme", user: "alice" })).toBe(1);
      });

      test("a newer schema is refused, unless it says that it is compatible", async () => {
        const url = await newDatabase();
        await open({ url }).addMessages(key, [say("hello")]);
        await sql(url, "UPDATE chatstore_meta SET version = 7, compatible = 1");
        expect(await texts(open({ url }))).toEqual(["hello"]);
        await sql(url, "UPDATE chatstore_meta SET compatible = 7");
        await expect(open({ url }).open()).rejects.toMatchObject({ code: "UNSUPPORTED_FORMAT" });
      });

      test("a database that cannot hold every text is refused", async () => {
        const url = new URL(server);
        await sql(server, "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
        url.pathname = "latin";
        await expect(open({ url: url.href }).open()).rejects.toThrow(/encoding LATIN1/);
      });

      test("what the server's settings lose is declared", async () => {
        const url = await newDatabase();
        const durable = open({ url });
        await durable.open();
        expect(durable.capabilities.survives).toBe("host");
        expect(durable.warnings).toEqual([]);
        const pool = { options: "-c synchronous_commit=off" };
        const relaxed = open({ url, pool, onWarning: () => {} });
        await relaxed.open();
        expect(relaxed.capabilities.survives).toBe("process");
        expect(relaxed.warnings).toEqual([expect.stringContaining("synchronous_commit = off")]);
        expect(open({ url }).capabilities.survives).toBe("process"); // before anything is known

        await sql(server, "ALTER SYSTEM SET fsync = off");
        try {
          await sql(server, "SELECT pg_reload_conf()");
          await expect.poll(() => sql(server, "SHOW fsync")).toEqual([{ fsync: "off" }]);
          const unsynced = open({ url, onWarning: () => {} });
          await unsynced.open();
          expect(unsynced.capabilities.survives).toBe("engine");
          expect(unsynced.warnings).toEqual([expect.stringContaining("fsync = off")]);
        } finally {
          await sql(server, "ALTER SYSTEM RESET fsync");
          await sql(server, "SELECT pg_reload_conf()");
        }
      });
    });

    describe("a person with psql", () => {
      test("reads every role and text, whatever strings there are", async () => {
        const url = await newDatabase();
        const strings = [
          "hello",
          "",
          "\0",
          "a\0b",
          "\ud800",
          "x\udfffy",
          "👩‍👩‍👧",
          '"\\',
          "\u2028",
        ];
        const store = open({ url });
        await store.addMessages(key, strings.map(say));
        expect(await texts(store)).toEqual(strings);
        const rows = await sql<{ role: string; text: string }>(
          url,
          "SELECT data->>'role' AS role, data->>'content' AS text FROM chatstore_messages ORDER BY seq",
        );
        expect(rows.map(({ role }) => role)).toEqual(strings.map(() => "user"));
        const plain = strings.filter((text) => text.isWellFormed() && !text.includes("\0"));
        expect(rows.map(({ text }) => text)).toEqual(expect.arrayContaining(plain));
      });

      test("gets what the README promises", async () => {
        const url = await newDatabase();
        await open({ url }).addMessages(key, [say("hello")]);
        const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
        const queries = [...readme.matchAll(/```sql\n(.*?)```/gs)].map(
          ([, text]) => text as string,
        );
        expect(queries.length).toBeGreaterThan(2);
        for (const query of queries) await sql(url, query);
      });
    });

    describe("at 100,000 messages", () => {
      const names = { schema: undefined, prefix: "chatstore_" };
      const columns = `(key, tenant, user_id, conversation, version, message_count, last_seq,
      created_at, updated_at, expires_at)`;
      /** One user has as many sessions as all others, one session as many messages as all others. */
      const fill = named(
        `INSERT INTO {sessions} ${columns}
        SELECT 't:acme/u:alice/c:' || n, 'acme', 'alice', n, 'v', 0, 50000, n, n * 60000::bigint, NULL
        FROM generate_series(1, 5000) AS n;
      INSERT INTO {sessions} ${columns}
        SELECT 't:z/u:' || n, 'z', n, '', 'v', 10, 10, n, n * 60000::bigint,
          CASE n % 2 WHEN 0 THEN n * 60000::bigint ELSE 9e15::bigint END
        FROM generate_series(1, 5000) AS n;
      INSERT INTO {messages}
        SELECT id, n, 'm' || n, 'd', '{"v":1,"role":"user","content":"hello"}', 0
        FROM {sessions}, generate_series(1, 10) AS n WHERE id > 5000;
      INSERT INTO {messages}
        SELECT 7, n, 'm' || n, 'd', '{"v":1,"role":"user","content":"hello"}', 0
        FROM generate_series(1, 50000) AS n;
      INSERT INTO {state} SELECT id, 'llamaindex', '{"v":1,"value":1}' FROM {sessions}`,
        names,
      );
      const long = "t:acme/u:alice/c:7";
      const message = [["new"], ["d"], ["{}"], [1]];
      /** Every statement that a long history or many sessions could make slow. Parameters as in schema.ts. */
      const calls: readonly [keyof typeof statements, unknown[]][] = [
        ["append", [long, "next", true, null, "5000", ...message, "acme", "alice", "7"]],
        ["appendAt", [long, "next", "v", null, "5000", ...message]],
        ["claim", [long, "acme", "alice", "7"]],
        ["findStanding", [long, ["m5", "m6"], ["llamaindex"]]],
        ["saveSession", [7, "next", 1, 1, null, null, null, null, null]],
        ["insertMessages", [7, 50_000, ...message]],
        ["updateMessage", [7, "m5", "d", "{}", null]],
        ["deleteMessages", [7, ["m5"]]],
        ["deleteMessagesAfter", [7, "m49990"]],
        ["setState", [7, "llamaindex", "{}"]],
        ["unsetState", [7, "llamaindex"]],
        ["readAllAfter", [long, "m49990"]],
        ["readAllBefore", [long, "m10"]],
        ["readPageOldest", [long, 20]],
        ["readPageNewest", [long, 20]],
        ["readPageAfter", [long, 20, "m25000"]],
        ["readPageBefore", [long, 20, "m25000"]],
        ["readManyOldest", [long, 200]],
        ["readManyNewest", [long, 200]],
        ["readManyAfter", [long, 200, "m25000"]],
        ["readManyBefore", [long, 200, "m25000"]],
        ["listPageOfUser", ["acme", "alice", 2500 * 60_000, "", 20]],
        ["listManyOfUser", ["acme", "alice", 2500 * 60_000, "", 200]],
        ["listPageOfTenant", ["z", 0, 20]],
        ["listManyOfTenant", ["z", 0, 200]],
        ["listPage", [100, 20]],
        ["listMany", [100, 200]],
        ["condemnSession", [long]],
        ["condemnUser", ["z", "5"]],
        ["condemnExpired", []],
        ["deleteOldestMessages", [7, 20]],
        ["deleteSessions", [[5001]]],
      ];

      test.each(["before", "after"])(
        "no statement scans a table, or is planned again and again, %s ANALYZE",
        async (when) => {
          const url = await newDatabase();
          await open({ url }).open();
          await sql(url, fill);
          if (when === "after") await sql(url, "ANALYZE");
          const client = new Client(url);
          await client.connect();
          onTestFinished(() => client.end());
          const slow: string[] = [];
          for (const [name, parameters] of calls) {
            const given = parameters.length === 0 ? "" : `(${parameters.map(literal).join()})`;
            const explain = async (options: string, settings: string, times: number) => {
              await client.query(`BEGIN; ${settings}`);
              await client.query(`PREPARE statement AS ${named(statements[name], names)}`);
              let plan = "";
              for (let n = 0; n < times; n++) {
                const { rows } = await client.query<{ "QUERY PLAN": string }>(
                  `EXPLAIN ${options} EXECUTE statement${given}`,
                );
                plan = rows.map((row) => row["QUERY PLAN"]).join("\n");
              }
              const { rows } = await client.query<{ custom: number }>(
                "SELECT custom_plans::int AS custom FROM pg_prepared_statements",
              );
              await client.query("ROLLBACK; DEALLOCATE statement");
              return { plan, custom: rows[0]?.custom };
            };
            for (const mode of ["force_custom_plan", "force_generic_plan"]) {
              const settings = `SET LOCAL plan_cache_mode = ${mode}`;
              const { plan } = await explain("(ANALYZE, TIMING OFF)", settings, 1);
              if (/Seq Scan/.test(plan) || rowsIn(plan) > 500)
                slow.push(`${name}, ${mode}:\n${plan}`);
            }
            // PostgreSQL tries five times what the parameters' values are good for. Many rows take longer than their plan.
            const { plan, custom = 0 } = await explain("", "", 7);
            if (when === "after" && custom > 5 && !/Many|delete/.test(name))
              slow.push(`${name}, planned anew:\n${plan}`);
          }
          expect(slow.join("\n\n")).toBe("");
        },
        60_000,
      );

      test("an append leaves the session's indexes alone", async () => {
        const url = await newDatabase();
        const store = open({ url, ttl: 60_000 });
        for (let n = 0; n < 200; n++) await store.addMessages(key, [say(`${n}`)]);
        await store.close(); // and so its connections report what they did
        const statistics =
          "SELECT n_tup_upd::int AS all, n_tup_hot_upd::int AS hot FROM pg_stat_user_tables";
        const [row] = await sql<{ all: number; hot: number }>(
          url,
          `${statistics} WHERE relname = 'chatstore_sessions'`,
        );
        expect(row?.all).toBe(199);
        expect(row?.hot).toBeGreaterThan(190);
      });
    });

    test("histories of any length are replaced, erased and purged", async () => {
      const url = await newDatabase();
      const store = open({ url, timeout: 30_000 });
      const history = Array.from({ length: 3_500 }, (_, n) => say(`${n}`));
      const rows = () =>
        sql<{ n: number }>(url, "SELECT count(*)::int AS n FROM chatstore_messages");
      await store.setMessages(key, history);
      expect(await texts(store)).toEqual(history.map(({ content }) => content));
      await store.deleteMessages(key);
      expect(await rows()).toEqual([{ n: 0 }]);
      await store.setMessages(key, history);
      await sql(url, "UPDATE chatstore_sessions SET expires_at = 1");
      expect(await texts(store)).toEqual([]);
      expect(await store.purgeExpired()).toBe(1);
      expect(await rows()).toEqual([{ n: 0 }]);
    });

    test("messages can be partitioned", async () => {
      const url = await newDatabase();
      const whole = postgresSchema();
      const messages = /(CREATE TABLE "chatstore_messages" \(.*?\n\));/s;
      const partition = (n: number) =>
        `CREATE TABLE chatstore_messages_${n} PARTITION OF chatstore_messages
        FOR VALUES WITH (MODULUS 4, REMAINDER ${n});`;
      const parts = [0, 1, 2, 3].map(partition).join("\n");
      const partitioned = whole.replace(messages, `$1 PARTITION BY HASH (session);\n${parts}`);
      expect(partitioned).not.toBe(whole);
      await sql(url, partitioned);
      const store = open({ url, migrate: "check" });
      const keys = Array.from({ length: 10 }, (_, n) => sessionKey({ user: `${n}` }));
      for (const one of keys) {
        await store.addMessages(
          one,
          Array.from({ length: 10 }, (_, n) => ({ ...say(`${one} ${n}`), id: `${n}` })),
        );
      }
      for (const one of keys) {
        const page = await store.getMessages(one, { before: "5", limit: 3 });
        expect(page.map(({ content }) => content)).toEqual([2, 3, 4].map((n) => `${one} ${n}`));
        expect(await store.getMessages(one, { last: 20 })).toHaveLength(10);
      }
      expect(await store.deleteSessions({ user: "3" })).toBe(1);
      expect((await store.listSessions({})).sessions).toHaveLength(9);
    });
  },
);

function literal(value: unknown): string {
  if (value === null) return "NULL";
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  const items = Array.isArray(value) ? value.map((item) => JSON.stringify(String(item))) : [];
  return Array.isArray(value) ? `'{${items.join()}}'` : `'${String(value)}'`;
}

/** The most rows that a step of the plan touched, in all its loops. */
function rowsIn(plan: string): number {
  const steps = [...plan.matchAll(/actual rows=([\d.]+) loops=(\d+)/g)];
  const removed = [...plan.matchAll(/Rows Removed by Filter: (\d+)/g)];
  return Math.max(
    ...steps.map(([, rows, loops]) => Number(rows) * Number(loops)),
    ...removed.map(([, rows]) => Number(rows)),
  );
}
