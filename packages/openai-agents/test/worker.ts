/** An application's process that answers some requests and is killed: `tsx worker.ts '{"config":…}'`. */
import { readFileSync, writeFileSync, writeSync } from "node:fs";
import { type ChatStoreConfig, openChatStore } from "@chatstore/core";
import { RunState } from "@openai/agents";
import { openAIAgentsSession } from "../dist/index.js";
import { assistant } from "./assistant.js";

export interface Work {
  readonly config: ChatStoreConfig;
  readonly baseURL: string;
  readonly key: string;
  /** Where the state of a run is kept that waits for an approval. */
  readonly file?: string;
  /** Whether the approval that is waited for is given first. */
  readonly approves?: boolean;
  /** What the user says, one after the other. */
  readonly says?: readonly string[];
  readonly stream?: boolean;
  readonly dieIn?: string;
}

const work = JSON.parse(process.argv[2] as string) as Work;
const store = await openChatStore(work.config);
const session = openAIAgentsSession({ store, key: work.key });
const { agent, runner } = assistant(work.baseURL, work.dieIn);
const outputs: unknown[] = [];
if (work.file !== undefined && work.approves) {
  const state = await RunState.fromString(agent, readFileSync(work.file, "utf8"));
  for (const interruption of state.getInterruptions()) state.approve(interruption);
  outputs.push((await runner.run(agent, state, { session })).finalOutput);
}
for (const saying of work.says ?? []) {
  if (work.stream) {
    const result = await runner.run(agent, saying, { session, stream: true });
    for await (const _ of result.toTextStream());
    await result.completed;
    outputs.push(result.finalOutput);
  } else {
    const result = await runner.run(agent, saying, { session });
    if (work.file !== undefined && result.interruptions.length > 0) {
      writeFileSync(work.file, result.state.toString());
    }
    outputs.push(result.finalOutput);
  }
}
writeSync(1, JSON.stringify(outputs));
process.kill(process.pid, "SIGKILL");
