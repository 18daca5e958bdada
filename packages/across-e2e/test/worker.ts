/** A process that has one turn in each of some conversations, and is killed. */
import { type ChatStoreConfig, openChatStore } from "@chatstore/core";
import { participants, type Turn, type Urls } from "./participants.ts";

export interface Work {
  readonly config: ChatStoreConfig;
  readonly participant: string;
  readonly keys: readonly string[];
  readonly message: string;
  readonly urls: Urls;
}

const { config, participant, keys, message, urls } = JSON.parse(process.argv[2] ?? "") as Work;
const store = await openChatStore(config);
for (const key of keys) await (participants[participant] as Turn)(store, key, message, urls);
process.kill(process.pid, "SIGKILL");
