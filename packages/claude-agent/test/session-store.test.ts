import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { SessionKey, SessionStoreEntry } from "@anthropic-ai/claude-agent-sdk";
import * as newest from "@anthropic-ai/claude-agent-sdk";
import { createChatStore, MemoryBackend, memoryChatStore } from "@chatstore/core";
import * as oldest from "claude-agent-sdk-oldest";
import { describe, expect, test } from "vitest";
import { claudeSessionKey, claudeSessionStore } from "../src/index.ts";
import { onEveryBackend } from "./stores.ts";

const entry = (fields: object): SessionStoreEntry => ({ type: "x", ...fields });
const [a, b, c, d] = [1, 2, 3, 4].map((n) => `${`${n}`.repeat(8)}-1111-4111-8111-111111111111`) as [
  string,
  string,
  string,
  string,
];
const mtimesOf = (sessions: readonly { mtime: number }[]) => sessions.map(({ mtime }) => mtime);
const said = (uuid: string, text: string, parentUuid: string | null = null): SessionStoreEntry => ({
  type: "user",
  uuid,
  parentUuid,
  isSidechain: false,
  timestamp: "2026-11-01T10:00:00.000Z",
  cwd: "/app",
  message: { role: "user", content: text },
});

await onEveryBackend((config, chatStore) => {
  const make = () => claudeSessionStore({ store: chatStore() });
  const project = () => `project/${randomUUID()}`;
  const newKey = (): SessionKey => ({ projectKey: project(), sessionId: randomUUID() });

  describe("what every SessionStore must do", () => {
    test("appended entries come back in their order", async () => {
      const key = newKey();
      await make().append(key, [entry({ uuid: b, n: 1 }), entry({ uuid: a, n: 2 })]);
      expect(await make().load(key)).toEqual([entry({ uuid: b, n: 1 }), entry({ uuid: a, n: 2 })]);
    });

    test("what was never written is null", async () => {
      const key = newKey();
      expect(await make().load(key)).toBeNull();
      await make().append(key, [entry({ uuid: a })]);
      expect(await make().load({ ...key, subpath: "nope" })).toBeNull();
    });

    test("calls keep their order, also when nobody awaits them", async () => {
      const key = newKey();
      const store = make();
      await Promise.all([
        store.append(key, [entry({ uuid: d, n: 1 })]),
        store.append(key, [entry({ uuid: a, n: 2 }), entry({ n: 3 })]),
        store.append(key, [entry({ uuid: b, n: 4 })]),
      ]);
      expect((await store.load(key))?.map(({ n }) => n)).toEqual([1, 2, 3, 4]);
    });

    test("an empty batch does nothing", async () => {
      const key = newKey();
      await make().append(key, []);
      expect(await make().load(key)).toBeNull();
      await make().append(key, [entry({ n: 1 })]);
      await make().append(key, []);
      expect(await make().load(key)).toEqual([entry({ n: 1 })]);
    });

    test("subpaths and projects are apart", async () => {
      const key = newKey();
      const others = [
        { ...key, subpath: "subagents/agent-1" },
        { ...key, projectKey: project() },
        { ...key, projectKey: key.projectKey.toUpperCase() },
      ];
      const store = make();
      for (const [n, one] of [key, ...others].entries()) await store.append(one, [entry({ n })]);
      for (const [n, one] of [key, ...others].entries()) {
        expect(await store.load(one)).toEqual([entry({ n })]);
      }
      expect(await store.listSessions(key.projectKey)).toHaveLength(1);
    });

    test("sessions of a project are listed, with times of one clock, without subagents", async () => {
      const [first, other] = [newKey(), newKey()];
      const second = { ...first, sessionId: randomUUID() };
      const store = make();
      for (const key of [first, second, other]) await store.append(key, [said(a, "Hello")]);
      await store.append({ ...first, subpath: "subagents/agent-1" }, [entry({ n: 1 })]);
      const listed = await store.listSessions(first.projectKey);
      expect(listed.map(({ sessionId }) => sessionId).sort()).toEqual(
        [first.sessionId, second.sessionId].sort(),
      );
      for (const { mtime } of listed) {
        expect(Number.isInteger(mtime)).toBe(true);
        expect(Math.abs(mtime - Date.now())).toBeLessThan(600_000);
      }
      const summaries = await store.listSessionSummaries(first.projectKey);
      expect(mtimesOf(summaries).sort()).toEqual(mtimesOf(listed).sort());
      expect(await store.listSessions(project())).toEqual([]);
      expect(await store.listSessionSummaries(project())).toEqual([]);
    });

    test("deleting a session deletes its subagents, and nothing else", async () => {
      const key = newKey();
      const [one, two] = ["1", "2"].map((n) => ({ ...key, subpath: `subagents/agent-${n}` }));
      const others = [
        { ...key, sessionId: randomUUID() },
        { ...key, projectKey: project() },
      ];
      const store = make();
      await store.delete({ ...key, sessionId: "never-written" });
      for (const each of [key, one, two, ...others])
        await store.append(each as SessionKey, [entry({ n: 1 })]);
      await store.delete(one as SessionKey);
      expect(await store.load(one as SessionKey)).toBeNull();
      expect(await store.listSubkeys(key)).toEqual(["subagents/agent-2"]);
      expect(await store.load(key)).toHaveLength(1);
      await store.delete(key);
      for (const each of [key, one, two]) expect(await store.load(each as SessionKey)).toBeNull();
      for (const each of others) expect(await store.load(each)).toHaveLength(1);
      expect(await store.listSubkeys(key)).toEqual([]);
      const left = await store.listSessions(key.projectKey);
      expect(left.map(({ sessionId }) => sessionId)).toEqual([others[0]?.sessionId]);
      await store.append(key, [entry({ n: 2 })]);
      expect(await store.load(key)).toEqual([entry({ n: 2 })]);
    });

    test("subpaths of a session are listed, without the main one", async () => {
      const key = newKey();
      const store = make();
      await store.append(key, [entry({ n: 1 })]);
      expect(await store.listSubkeys(key)).toEqual([]);
      const subpaths = ["subagents/agent-1", "subagents/agent-2", "a%2Fb", "ü {x}"];
      for (const subpath of subpaths) await store.append({ ...key, subpath }, [entry({ n: 1 })]);
      await store.append({ ...newKey(), subpath: "subagents/agent-x" }, [entry({ n: 1 })]);
      expect((await store.listSubkeys(key)).sort()).toEqual(subpaths.sort());
    });
  });

  describe("what the published cases leave out", () => {
    test("a batch that is sent again is stored once; entries without uuid are appended always", async () => {
      const key = newKey();
      const batch = [said(a, "one"), said(b, "two"), entry({ mode: "x" })];
      await make().append(key, batch);
      await make().append(key, batch);
      expect(await make().load(key)).toEqual([...batch, entry({ mode: "x" })]);
      await make().append(key, [said(a, "one"), said(c, "three")]);
      expect((await make().load(key))?.map(({ uuid }) => uuid)).toEqual([
        a,
        b,
        undefined,
        undefined,
        c,
      ]);
    });

    test("an entry that comes with other content takes the old one's place", async () => {
      const key = newKey();
      await make().append(key, [said(a, "one"), said(b, "two")]);
      await make().append(key, [said(a, "edited"), said(c, "three"), said(c, "three, edited")]);
      expect(await make().load(key)).toEqual([
        said(a, "edited"),
        said(b, "two"),
        said(c, "three, edited"),
      ]);
      const subagent = { ...key, subpath: "subagents/agent-1" };
      await make().append(subagent, [said(a, "one")]);
      await make().append(subagent, [said(a, "edited"), said(b, "two")]);
      expect(await make().load(subagent)).toEqual([said(a, "edited"), said(b, "two")]);
    });

    test("entries of any JSON come back equal", async () => {
      const key = newKey();
      const entries = [
        entry({
          "": null,
          $: "$",
          "a.b": [[], {}],
          deep: { role: 1, id: [], native: { format: "?" } },
        }),
        entry({ uuid: "", role: 7, content: null, options: "x", annotations: {}, createdAt: "y" }),
        entry({ uuid: a, text: "\u0000 \ud800 \u2028", id: 3, n: 1e21, timestamp: "never" }),
        { ...said(b, "x"), message: null },
        { ...said(c, "x"), message: { role: "user", content: [null, 1, { type: "text" }] } },
      ] as SessionStoreEntry[];
      await make().append(key, entries);
      expect(await make().load(key)).toEqual(entries);
    });

    test("writers at once lose nothing, and the summary is that of all entries", async () => {
      const key = newKey();
      const writers = Array.from({ length: 4 }, make);
      await Promise.all(
        writers.map(async (store, writer) => {
          for (let n = 0; n < 10; n++) {
            await store.append(key, [said(randomUUID(), `${writer} ${n}`), entry({ writer, n })]);
            await store.append(key, [{ type: "custom-title", customTitle: `${writer} ${n}` }]);
          }
        }),
      );
      const entries = await make().load(key);
      expect(entries).toHaveLength(4 * 10 * 3);
      const [summary] = await make().listSessionSummaries(key.projectKey);
      const { mtime = 0 } = summary ?? {};
      expect(summary).toEqual(newest.foldSessionSummary(undefined, key, entries ?? [], { mtime }));
    });

    test("a batch that comes again does not bring back an old title", async () => {
      const key = newKey();
      const old = [said(a, "Hello"), { type: "custom-title", uuid: b, customTitle: "old" }];
      await make().append(key, old);
      await make().append(key, [{ type: "custom-title", uuid: c, customTitle: "new" }]);
      await make().append(key, old);
      const [summary] = await make().listSessionSummaries(key.projectKey);
      expect(summary?.data["customTitle"]).toBe("new");
    });

    test("a writer that is killed leaves whole batches, and the summary that belongs to them", async () => {
      const key = newKey();
      const acknowledged = await Promise.all(
        ["one", "two"].map((name) => killed({ config, key, name })),
      );
      const entries = (await make().load(key)) ?? [];
      const uuids = new Set(entries.map(({ uuid }) => uuid));
      expect(acknowledged.flat().length).toBeGreaterThan(0);
      expect(acknowledged.flat().filter((uuid) => !uuids.has(uuid))).toEqual([]);
      expect(uuids.size - 1, "half a batch").toBe(2 * Math.floor((uuids.size - 1) / 2));
      const [summary] = await make().listSessionSummaries(key.projectKey);
      const { mtime = 0 } = summary ?? {};
      expect(summary).toEqual(newest.foldSessionSummary(undefined, key, entries, { mtime }));
    });
  });
});

describe.each([
  ["newest", newest],
  ["oldest", oldest as unknown as typeof newest],
])("the %s SDK's own functions", (_, sdk) => {
  test("list, read, rename, tag, fork, import and delete", async () => {
    const sessionStore = claudeSessionStore({ store: memoryChatStore() });
    const dir = mkdtempSync(join(tmpdir(), "chatstore-claude-project-"));
    const projectKey = dir.replace(/[^a-zA-Z0-9]/g, "-");
    const sessionId = randomUUID();
    const key = { projectKey, sessionId };
    await sessionStore.append(key, [said(a, "Where is my order?")]);
    await sessionStore.append(key, [
      {
        ...said(b, "", a),
        type: "assistant",
        message: {
          role: "assistant",
          id: "msg_1",
          content: [{ type: "text", text: "On its way." }],
        },
      },
    ]);
    const options = { dir, sessionStore };
    await sdk.renameSession(sessionId, "Order", options);
    await sdk.tagSession(sessionId, "shop", options);
    const [info] = await sdk.listSessions(options);
    expect(info).toMatchObject({
      sessionId,
      customTitle: "Order",
      firstPrompt: "Where is my order?",
    });
    const messages = await sdk.getSessionMessages(sessionId, options);
    expect(messages.map(({ type }) => type)).toEqual(["user", "assistant"]);
    const fork = await sdk.forkSession(sessionId, options);
    expect(await sdk.getSessionMessages(fork.sessionId, options)).toHaveLength(2);
    await sdk.deleteSession(sessionId, options);
    expect(await sessionStore.load(key)).toBeNull();

    const home = mkdtempSync(join(tmpdir(), "chatstore-claude-home-"));
    mkdirSync(join(home, "projects", projectKey), { recursive: true });
    const lines = [said(c, "From a file"), said(d, "twice", c)].map((one) => JSON.stringify(one));
    writeFileSync(
      join(home, "projects", projectKey, `${sessionId}.jsonl`),
      `${lines.join("\n")}\n`,
    );
    const before = process.env["CLAUDE_CONFIG_DIR"];
    process.env["CLAUDE_CONFIG_DIR"] = home;
    try {
      await sdk.importSessionToStore(sessionId, sessionStore, { dir });
      await sdk.importSessionToStore(sessionId, sessionStore, { dir });
    } finally {
      if (before === undefined) delete process.env["CLAUDE_CONFIG_DIR"];
      else process.env["CLAUDE_CONFIG_DIR"] = before;
    }
    expect((await sessionStore.load(key))?.map(({ uuid }) => uuid)).toEqual([c, d]);
    for (const folder of [dir, home]) rmSync(folder, { recursive: true });
  });

  test("read what another framework has said, tools included", async () => {
    const store = memoryChatStore();
    const dir = "/app";
    const key = { projectKey: "-app", sessionId: randomUUID() };
    await store.addMessages(claudeSessionKey(key), [
      { role: "user", content: "Weather?", id: "not-a-uuid" },
      {
        role: "assistant",
        content: "Let me see.",
        options: { toolCall: [{ id: "1", name: "get_weather", input: { city: "Bonn" } }] },
      },
      {
        role: "user",
        content: "rain",
        options: { toolResult: { id: "1", result: "rain", isError: false } },
      },
      { role: "assistant", content: "It rains." },
    ]);
    const sessionStore = claudeSessionStore({ store });
    const before = await sessionStore.load(key);
    await sessionStore.append(key, [said(a, "Thanks", before?.at(-1)?.uuid)]);
    const messages = await sdk.getSessionMessages(key.sessionId, { dir, sessionStore });
    expect(
      messages.slice(0, 4).map(({ message }) => (message as { content: unknown }).content),
    ).toEqual([
      "Weather?",
      [
        { type: "text", text: "Let me see." },
        { type: "tool_use", id: "1", name: "get_weather", input: { city: "Bonn" } },
      ],
      [{ type: "tool_result", tool_use_id: "1", content: "rain" }],
      [{ type: "text", text: "It rains." }],
    ]);
  });
});

test("other frameworks see who said what, calls and answers", async () => {
  const store = memoryChatStore();
  const key = { projectKey: "p", sessionId: "s" };
  await claudeSessionStore({ store }).append(key, [
    { type: "summary", summary: "x" },
    said(a, "Look"),
    {
      type: "assistant",
      uuid: b,
      message: {
        role: "assistant",
        content: [
          { type: "thinking", thinking: "Hm." },
          { type: "text", text: "Two at once." },
          { type: "tool_use", id: "1", name: "ls", input: { path: "." } },
          { type: "tool_use", id: "2", name: "cat", input: { path: "a" } },
        ],
      },
    },
    {
      type: "user",
      uuid: c,
      message: {
        role: "user",
        content: [
          { type: "tool_result", tool_use_id: "1", content: "a" },
          {
            type: "tool_result",
            tool_use_id: "2",
            content: [{ type: "text", text: "no" }],
            is_error: true,
          },
        ],
      },
    },
  ]);
  const seen = await store.getMessages(claudeSessionKey(key));
  expect(seen.map(({ role, content, options }) => ({ role, content, options }))).toEqual([
    { role: "assistant", content: "", options: undefined },
    { role: "user", content: "Look", options: undefined },
    {
      role: "assistant",
      content: "Two at once.",
      options: {
        toolCall: [
          { id: "1", name: "ls", input: { path: "." } },
          { id: "2", name: "cat", input: { path: "a" } },
        ],
      },
    },
    {
      role: "user",
      content: "",
      options: {
        toolResult: [
          { id: "1", result: "a", isError: false },
          { id: "2", result: "no", isError: true },
        ],
      },
    },
  ]);
});

test("an append is one round trip, and so is a load", async () => {
  const backend = new MemoryBackend();
  let trips = 0;
  const counting = new Proxy(backend, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== "function") return value;
      if (name !== "open" && name !== "close") trips++;
      return value.bind(target);
    },
  });
  const sessionStore = claudeSessionStore({
    store: createChatStore("memory", {}, {}, () => counting),
  });
  const key = { projectKey: "p", sessionId: "s" };
  await sessionStore.load(key);
  await sessionStore.append(key, [said(a, "first")]);
  trips = 0;
  for (let n = 0; n < 10; n++) await sessionStore.append(key, [said(randomUUID(), `${n}`)]);
  await sessionStore.load(key);
  expect(trips).toBe(11);
});

test("says what is wrong with its options and keys", async () => {
  for (const options of [undefined, {}, { store: "chat.db" }]) {
    expect(() => claudeSessionStore(options as never)).toThrow(/Which store/);
  }
  const sessionStore = claudeSessionStore({ store: memoryChatStore() });
  for (const key of [
    { projectKey: "", sessionId: "s" },
    { projectKey: "p", sessionId: "" },
    { projectKey: "p", sessionId: "s", subpath: "" },
  ]) {
    for (const call of [
      () => sessionStore.append(key, [entry({})]),
      () => sessionStore.load(key),
    ]) {
      await expect(call()).rejects.toThrow(
        expect.objectContaining({ code: "INVALID_SESSION_KEY" }),
      );
    }
  }
});

/** What a writer had acknowledged when it was killed. */
function killed(work: object): Promise<string[]> {
  const args = ["--import", "tsx", join(import.meta.dirname, "worker.ts"), JSON.stringify(work)];
  return new Promise((resolve, reject) => {
    const child = execFile(process.execPath, args, (error, stdout, stderr) => {
      if (error?.signal !== "SIGKILL")
        reject(new Error(`It was not killed: ${stderr}`, { cause: error }));
      const lines = stdout.split("\n").filter((line) => line.endsWith("]"));
      resolve(lines.flatMap((line) => JSON.parse(line) as string[]));
    });
    child.stdout?.once("data", async () => {
      await delay(50 + Math.random() * 100);
      child.kill("SIGKILL");
    });
  });
}
