/** A process that begins turns which never end, and is killed. */
import { setImmediate } from "node:timers/promises";
import { persistentMemory } from "@chatstore/llamaindex";
import { sqliteChatStore } from "@chatstore/sqlite";
import { createMemory } from "llamaindex";
import { modelsAt, type ProviderName, type Urls } from "./providers.js";
import { talk, type Way } from "./talk.js";

/** What it is to do. */
export interface Work {
  readonly path: string;
  readonly urls: Urls;
  readonly turns: readonly HangingTurn[];
}

export interface HangingTurn {
  readonly key: string;
  readonly provider: ProviderName;
  readonly way: Way;
  readonly message: string;
  /** The tool never answers of this city. */
  readonly silentOf?: string | undefined;
}

const { path, urls, turns } = JSON.parse(process.argv[2] ?? "") as Work;
process.on("disconnect", () => process.exit(1)); // it must not outlive its parent
const store = sqliteChatStore({ path });
const flushing: (() => Promise<void>)[] = [];
let waiting = turns.filter(({ silentOf }) => silentOf !== undefined).length;
const tell = (what: string) => process.send?.(what);

for (const { key, provider, way, message, silentOf } of turns) {
  const memory = await persistentMemory(createMemory, { store, key });
  flushing.push(() => memory.flush());
  const onCall = async (city: string) => {
    if (city !== silentOf) return;
    if (--waiting === 0) tell("the tools are silent");
    await new Promise(() => {});
  };
  void talk[way](memory, modelsAt(urls)[provider], message, onCall);
}
if (waiting === 0) tell("the tools are silent");

process.on("message", async () => {
  for (const flush of flushing) await flush();
  await setImmediate();
  tell("flushed");
});
