/** A whole run: every backend beside raw, core, and, when they are asked for, every backend beside its peers. */
import { EngineMissingError } from "@chatstore/engines";
import { Arena, type Beside } from "./arena.js";
import { type BackendName, backends } from "./backends.js";
import { type Entry, withPeers } from "./entry.js";
import type { Effort } from "./measure.js";
import { type EngineReport, machine, type Report } from "./report.js";
import { comparedWorks, coreWorks, type Work, works } from "./works/index.js";

const thorough: Effort = { rounds: 5, roundTime: 2_000, warmUpTime: 2_000, passes: [5, 2_000] };
const hasty: Effort = { rounds: 3, roundTime: 250, warmUpTime: 500, passes: [1, 1_000] };

/** What is asked for. */
export interface Options {
  readonly quick: boolean;
  readonly peers: boolean;
  /** Names. Absent: all. */
  readonly backend?: readonly string[] | undefined;
  readonly work?: readonly string[] | undefined;
}

/** Everything that is asked for. What fails is told, and the rest goes on. */
export async function measure(
  { quick, peers, ...asked }: Options,
  progress: (line: string) => void,
): Promise<{ readonly report: Report; readonly failed: boolean }> {
  const effort = quick ? hasty : thorough;
  const isAsked = (kind: "backend" | "work", name: string) => asked[kind]?.includes(name) ?? true;
  const engines = new Map<BackendName, EngineReport>();
  let failed = false;

  const attempt = async (name: string, run: () => Promise<readonly Entry[]>) => {
    const begin = performance.now();
    try {
      const entries = await run();
      progress(`${name}, ${((performance.now() - begin) / 1_000).toFixed(1)} s`);
      return entries;
    } catch (error) {
      failed = true;
      progress(`${name} FAILED: ${(error as Error).stack}`);
      return [];
    }
  };

  const measureBackend = async (name: BackendName, beside: Beside, works: readonly Work[]) => {
    const backend = backends[name];
    const engine = await backend.start().catch((error: unknown) => {
      if (!(error instanceof EngineMissingError)) throw error;
      progress(`${name} SKIPPED: ${error.message}`);
      engines.set(name, { backend: name, skipped: error.message });
    });
    if (engine === undefined) return [];
    const arena = new Arena(name, backend, engine.at, { effort, quick, beside });
    const where = `${name} beside ${beside}`;
    const entries: Entry[] = [];
    try {
      await attempt(`${where}, warming up`, () => arena.warmUp().then(() => []));
      for (const work of works) {
        entries.push(...(await attempt(`${where}, ${work.name}`, () => work.run(arena))));
      }
      await attempt(`${where}, all contestants hold the same`, () =>
        arena.refuseDifferences().then(() => []),
      );
      const known = engines.get(name);
      const durability = { ...known?.durability, ...(await arena.durabilities()) };
      const without = { ...known?.without, ...(await arena.lacks()) };
      engines.set(name, { backend: name, version: engine.version, durability, without });
    } finally {
      await arena.close();
      await engine.stop();
    }
    return entries;
  };

  const measureBackends = async (beside: Beside, all: readonly Work[]) => {
    const works = all.filter(({ name }) => isAsked("work", name));
    const entries: Entry[] = [];
    for (const name of Object.keys(backends) as BackendName[]) {
      if (works.length === 0 || !isAsked("backend", name)) continue;
      entries.push(...(await measureBackend(name, beside, works)));
    }
    return entries;
  };

  const entries = await measureBackends("raw", works);
  for (const work of isAsked("backend", "core") ? coreWorks : []) {
    if (!isAsked("work", work.name)) continue;
    entries.push(...(await attempt(`core ${work.name}`, () => work.run({ effort, quick }))));
  }
  // Last: a library that follows every promise is felt by all the others for as long as the process runs.
  const compared = peers ? await measureBackends("peers", comparedWorks) : [];
  const report: Report = {
    machine: machine(),
    quick,
    engines: [...engines.values()],
    entries: withPeers(entries, compared),
  };
  return { report, failed };
}
