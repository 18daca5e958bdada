import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ChatStore, type ChatStoreConfig, openChatStore, sessionKey } from "@chatstore/core";
import { startMongoServer, startPostgresServer, startRedisServer } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import type { AgentInputItem, Session } from "@openai/agents";
import * as newest from "@openai/agents";
import * as oldest from "openai-agents-oldest";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openAIAgentsSession } from "../src/index.ts";
import { assistant } from "./assistant.ts";
import { startResponsesApi } from "./model.ts";
import type { Work } from "./worker.ts";

const folder = mkdtempSync(join(tmpdir(), "chatstore-openai-agents-"));
afterAll(() => rmSync(folder, { recursive: true }));
let api: Awaited<ReturnType<typeof startResponsesApi>>;
beforeAll(async () => {
  api = await startResponsesApi();
});
afterAll(() => api.close());

/** What a process answered before it was killed. */
function killed(work: Omit<Work, "baseURL">): Promise<(string | undefined)[]> {
  const args = ["--import", "tsx", join(import.meta.dirname, "worker.ts")];
  const full = JSON.stringify({ ...work, baseURL: `${api.url}/v1` });
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [...args, full], (error, stdout, stderr) => {
      if (error?.signal === "SIGKILL") resolve(JSON.parse(stdout || "[]"));
      else reject(new Error(`It was not killed: ${stderr}`, { cause: error }));
    });
  });
}

function scenarios(config: ChatStoreConfig): void {
  let store: ChatStore;
  let number = 0;
  const newKey = () => sessionKey({ user: "alice", conversation: `${++number}` });
  beforeAll(async () => {
    store = await openChatStore(config);
  });
  afterAll(() => store.close());

  test.each([false, true])("what was said is known after a kill, stream: %s", async (stream) => {
    const key = newKey();
    await killed({ config, key, stream, says: ["My cat is called Mia", "think of it"] });
    expect(await killed({ config, key, stream, says: ["Who is Mia?"] })).toEqual([
      "You said: My cat is called Mia | think of it | Who is Mia?",
    ]);
  });

  test("calls of tools and hand-offs, too", async () => {
    const key = newKey();
    const says = ["weather in Bonn and Rome", "refund please"];
    expect((await killed({ config, key, says }))[0]).toContain("rain in");
    await killed({ config, key, says: ["and now?"] });
    const seen = api.accepted.at(-1)?.input as readonly Record<string, unknown>[];
    expect(seen.filter(({ type }) => type === "function_call")).toHaveLength(3);
    expect(seen.filter(({ type }) => type === "function_call_output")).toHaveLength(3);
    expect(seen.at(-1)).toMatchObject({ role: "user", content: "and now?" });
  });

  test("a kill within a tool does not make the conversation unusable", async () => {
    const key = newKey();
    const says = ["Hello", "weather in Bonn"];
    expect(await killed({ config, key, says, dieIn: "get_weather" })).toEqual([]);
    const [again] = await killed({ config, key, says: ["Still there?"] });
    expect(again).toContain("Hello");
    expect(again).toContain("Still there?");
  });

  test("an approval that is given after a kill is carried out once", async () => {
    const key = newKey();
    const file = join(folder, `approval-${config.backend}.json`);
    await killed({ config, key, file, says: ["Hello", "delete a.txt"] });
    const [approved] = await killed({ config, key, file, approves: true, says: ["and now?"] });
    expect(approved).toBe("The tool says a.txt is gone");
    const items = await openAIAgentsSession({ store, key }).getItems();
    expect(items.filter(({ type }) => type === "function_call_result")).toHaveLength(1);
    expect(api.refused).toEqual([]);
  });

  test.each([
    ["newest", newest],
    ["oldest", oldest as unknown as typeof newest],
  ])("the runner of the %s SDK leaves in it what it leaves in a MemorySession", async (_, sdk) => {
    const expected = await transcript(sdk, new sdk.MemorySession());
    const actual = await transcript(sdk, openAIAgentsSession({ store, key: newKey() }));
    expect(actual).toEqual(expected);
    expect(actual[1]?.[0]).toMatchObject({ type: "compaction" });
  });
}

/** What a session holds after a conversation with everything in it, and after its compaction. */
async function transcript(sdk: typeof newest, session: Session): Promise<AgentInputItem[][]> {
  const { agent, runner, client } = assistant(`${api.url}/v1`, undefined, sdk);
  const sayings = [
    "Hello",
    "think",
    "weather in Bonn and Rome",
    "curse",
    "refund",
    "delete a",
    "Bye",
  ];
  for (const [index, saying] of sayings.entries()) {
    try {
      const result = await runner.run(agent, saying, {
        session,
        stream: (index % 2 === 1) as true,
      });
      if (index % 2 === 1) {
        for await (const _ of result);
        await result.completed;
      }
      for (const interruption of result.interruptions) {
        result.state.approve(interruption);
        await runner.run(agent, result.state, { session });
      }
    } catch (error) {
      if (saying !== "curse") throw error;
      expect(error).toBeInstanceOf(sdk.InputGuardrailTripwireTriggered);
    }
  }
  const compacting = new sdk.OpenAIResponsesCompactionSession({
    client,
    underlyingSession: session as Session & { [name: symbol]: "responses" },
    model: "gpt-4.1",
    compactionMode: "input",
  });
  const before = await session.getItems();
  await compacting.runCompaction({ force: true });
  // The API numbers what it makes.
  const unnumbered = (items: AgentInputItem[]) =>
    JSON.parse(JSON.stringify(items).replace(/_[0-9a-z]{24}"/g, '_n"')) as AgentInputItem[];
  return [unnumbered(before), unnumbered(await session.getItems())];
}

describe("sqlite", () => scenarios({ backend: "sqlite", path: join(folder, "chat.db") }));
for (const [backend, start] of [
  ["postgres", startPostgresServer],
  ["redis", startRedisServer],
  ["mongo", startMongoServer],
] as const) {
  await withEngine<Awaited<ReturnType<typeof start>>>(start, ({ url }) => {
    describe(backend, () => scenarios({ backend, url }));
  });
}
