/** Appends entries until it is killed, and says which were acknowledged: `tsx worker.ts '{"config":…}'`. */
import { randomUUID } from "node:crypto";
import { writeSync } from "node:fs";
import { openChatStore } from "@chatstore/core";
import { claudeSessionStore } from "../dist/index.js";

const { config, key, name } = JSON.parse(process.argv[2] as string);
const transcripts = claudeSessionStore({ store: await openChatStore(config) });
for (let n = 0; ; n++) {
  const uuids = [randomUUID(), randomUUID()];
  await transcripts.append(
    key,
    uuids.map((uuid) => ({
      type: "user",
      uuid,
      message: { role: "user", content: `${name} ${n}` },
    })),
  );
  await transcripts.append(key, [{ type: "custom-title", customTitle: `${name} ${n}` }]);
  writeSync(1, `${JSON.stringify(uuids)}\n`);
}
