/** A process is killed at each step of a turn. Does each provider accept what the next process sends? */
import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { persistentMemory } from "@chatstore/llamaindex";
import {
  cities,
  type FakeApis,
  forecast,
  type HangingTurn,
  modelsAt,
  type ProviderName,
  providerNames,
  serveAll,
  silent,
  talk,
  urlsOf,
  type Way,
  ways,
} from "@chatstore/providers-e2e";
import { sessionKey, sqliteChatStore } from "@chatstore/sqlite";
import { createMemory } from "llamaindex";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

/** Where a turn is when its process is killed, and what its tools have said by then. */
interface Step {
  readonly way: Way;
  readonly at: string;
  readonly message: string;
  readonly silentOf?: string;
  readonly told: readonly string[];
}

const withTools = (["agent", "tools, not streaming"] as const).flatMap((way): Step[] => [
  { way, at: "question", message: silent("at the question"), told: [] },
  { way, at: "first tool", message: "How is it?", silentOf: "Rome", told: [] },
  { way, at: "first result", message: silent("after Rome"), told: ["Rome"] },
  { way, at: "first of two tools", message: "How is it?", silentOf: "Oslo", told: ["Rome"] },
  {
    way,
    at: "second of two tools",
    message: "How is it?",
    silentOf: "Lima",
    // Such a loop hears of the results of a step together.
    told: way === "agent" ? ["Rome", "Oslo"] : ["Rome"],
  },
  { way, at: "last result", message: silent("after Lima"), told: [...cities] },
]);
const steps: readonly Step[] = [
  ...withTools,
  { way: "agent", at: "answer", message: silent("in mid-sentence"), told: [...cities] },
  { way: "SimpleChatEngine", at: "question", message: silent("at the question"), told: [] },
  {
    way: "SimpleChatEngine, streaming",
    at: "answer",
    message: silent("in mid-sentence"),
    told: [],
  },
];

const keyOf = (provider: ProviderName, { way, at }: Step) =>
  sessionKey({ user: "alice", conversation: `${provider}, ${way}, ${at}` });

const folder = mkdtempSync(join(tmpdir(), "chatstore-providers-"));
const path = join(folder, "chat.db");
const store = sqliteChatStore({ path });
let apis: FakeApis;
let models: ReturnType<typeof modelsAt>;

const unlessRefused = (api: FakeApis[ProviderName], turn: Promise<string>) =>
  Promise.race([turn, api.refusing()]);

/** Begin all turns, and kill the process when none goes on. */
async function killInMidTurn(): Promise<void> {
  const urls = urlsOf(apis);
  const turns = providerNames.flatMap((provider) =>
    steps.map(
      (step): HangingTurn => ({
        key: keyOf(provider, step),
        provider,
        way: step.way,
        message: step.message,
        silentOf: step.silentOf,
      }),
    ),
  );
  const worker = fork(new URL("../dist/worker.js", import.meta.url), [
    JSON.stringify({ path, urls, turns }),
  ]);
  const silentModels = steps.filter(({ silentOf }) => silentOf === undefined).length;
  await Promise.all([
    once(worker, "message"), // of the tools
    ...providerNames.map((provider) => apis[provider].held(silentModels)),
  ]);
  worker.send("flush");
  await once(worker, "message");
  worker.kill("SIGKILL");
  await once(worker, "close");
}

beforeAll(async () => {
  apis = await serveAll();
  models = modelsAt(urlsOf(apis));
  await killInMidTurn();
});
afterAll(async () => {
  await store.close();
  for (const api of Object.values(apis)) await api.close();
  rmSync(folder, { recursive: true });
});

describe.each(providerNames)("%s", (provider) => {
  test("accepted what the killed process sent", () => {
    expect(apis[provider].refused).toEqual([]);
  });

  test.each(steps.map((step) => [step.way, step.at, step] as const))(
    "%s, killed at its %s, goes on and knows what its tools said",
    async (way, _, step) => {
      const { accepted, refused } = apis[provider];
      const memory = await persistentMemory(createMemory, { store, key: keyOf(provider, step) });
      accepted.length = 0;
      const reply = await unlessRefused(
        apis[provider],
        talk[way](memory, models[provider], "And now?"),
      );
      await memory.flush();
      expect(refused).toEqual([]);
      expect(reply).toContain(way.startsWith("Simple") ? "You said: And now?" : forecast("Lima"));
      const first = JSON.stringify(accepted[0]);
      for (const city of cities) {
        expect(first.includes(forecast(city)), city).toBe(step.told.includes(city));
      }
      expect(first).toContain(step.message);

      // And once more, as somebody else who has no tools.
      const other = await persistentMemory(createMemory, { store, key: keyOf(provider, step) });
      await talk["SimpleChatEngine, streaming"](other, models[provider], "Again?");
      expect(refused).toEqual([]);
    },
  );
});

test.each(providerNames.flatMap((one) => ways.map((way) => [one, way] as const)))(
  "%s accepts a turn with %s after one with every other provider",
  async (provider, way) => {
    const key = sessionKey({ user: "alice", conversation: `${provider} after the others, ${way}` });
    for (const other of [...providerNames, provider]) {
      const memory = await persistentMemory(createMemory, { store, key });
      await unlessRefused(apis[other], talk[way](memory, models[other], "How is it?"));
      await memory.flush();
      expect(apis[other].refused).toEqual([]);
    }
  },
);
