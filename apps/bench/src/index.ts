import { parseArgs } from "node:util";
import { EngineMissingError } from "@chatstore/engines";
import { Arena } from "./arena.js";
import { type BackendName, backends } from "./backends.js";
import type { Entry } from "./entry.js";
import { works } from "./works/index.js";

const { values: options } = parseArgs({
  options: {
    backend: { type: "string" },
    work: { type: "string" },
    quick: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
  },
});
const quick = options.quick;
const effort = quick
  ? { rounds: 3, roundTime: 300, passes: [3, 1_000] as const }
  : { rounds: 5, roundTime: 2_000, passes: [5, 1_000] as const };
const entries: Entry[] = [];
const picked = options.work?.split(",");
for (const name of (options.backend?.split(",") ?? Object.keys(backends)) as BackendName[]) {
  const backend = backends[name];
  const engine = await backend.start().catch((e) => {
    if (e instanceof EngineMissingError) {
      console.error(`${name}: skipped: ${e.message}`);
      return undefined;
    }
    throw e;
  });
  if (engine === undefined) continue;
  const arena = new Arena(name, backend, engine.at, { effort, quick });
  for (const work of works) {
    if (picked && !picked.includes(work.name)) continue;
    const t = performance.now();
    entries.push(...(await work.run(arena)));
    console.error(`${name} ${work.name} ${((performance.now() - t) / 1000).toFixed(1)} s`);
  }
  await arena.close();
  await engine.stop();
}
console.log(JSON.stringify(entries, null, 1));
for (const e of entries)
  console.error(
    [
      e.backend,
      e.work,
      e.history,
      e.ours.toFixed(4),
      e.raw?.toFixed(4),
      e.ratio?.toFixed(2),
      e.target?.toFixed(4),
      e.ours > (e.target ?? Infinity) ? "MISS" : "",
    ].join("\t"),
  );
