/** An application's process, to be killed: `tsx worker.ts '{"config":…}'` prints its address. */
import { writeSync } from "node:fs";
import { type ChatStoreConfig, openChatStore } from "@chatstore/core";
import { sdks, startApplication } from "./application.ts";

export interface Work {
  readonly config: ChatStoreConfig;
  readonly sdk: string;
  readonly dieIn?: string;
  readonly writes?: boolean;
}

const { config, sdk, dieIn, writes } = JSON.parse(process.argv[2] as string) as Work;
const store = await openChatStore(config);
const application = await startApplication({
  store,
  sdk: sdks[sdk] as never,
  dieIn,
  writes,
});
writeSync(1, `${application.url}\n`);
