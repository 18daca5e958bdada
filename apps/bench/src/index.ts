/** The command line. See the README. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { EngineMissingError } from "@chatstore/engines";
import { Arena } from "./arena.js";
import { type BackendName, backends } from "./backends.js";
import type { Entry } from "./entry.js";
import type { Effort } from "./measure.js";
import { installPeers } from "./peers/packages.js";
import { type EngineReport, machine, type Report, toCharts, toPage, toTable } from "./report.js";
import { coreWorks, works } from "./works/index.js";

const usage = `pnpm bench [--quick] [--peers] [--json] [--backend names] [--work names]

  --quick    fewer rounds and smaller numbers: less than two minutes
  --peers    LangChain's, Mastra's and LangGraph's stores, too; installs them at the first use
  --json     nothing but the entries on standard output, as JSON (with pnpm -s)
  --backend  core,${Object.keys(backends).join()}
  --work     ${[...works, ...coreWorks].map(({ name }) => name).join()}`;

const thorough: Effort = { rounds: 5, roundTime: 2_000, warmUpTime: 2_000, passes: [5, 2_000] };
const hasty: Effort = { rounds: 3, roundTime: 250, warmUpTime: 500, passes: [1, 1_000] };

const folder = join(import.meta.dirname, "..");
const resultFile = join(folder, "results.json");
const chartFolder = join(folder, "../../docs/performance");

interface Options {
  readonly quick: boolean;
  readonly peers: boolean;
  readonly json: boolean;
  readonly backend: readonly string[] | undefined;
  readonly work: readonly string[] | undefined;
}

/** @throws Error that says what was wrong. */
function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      quick: { type: "boolean", default: false },
      peers: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
      backend: { type: "string" },
      work: { type: "string" },
    },
  });
  const pick = (given: string | undefined, known: readonly string[]) => {
    const names = given?.split(",");
    const unknown = names?.filter((name) => !known.includes(name)) ?? [];
    if (unknown.length > 0) throw new Error(`Unknown: ${unknown.join(", ")}`);
    return names;
  };
  const workNames = [...works, ...coreWorks].map(({ name }) => name);
  return {
    quick: values.quick,
    peers: values.peers,
    json: values.json,
    backend: pick(values.backend, ["core", ...Object.keys(backends)]),
    work: pick(values.work, workNames),
  };
}

/** Everything that was asked for. What fails is told, and the rest goes on. */
async function measure(options: Options): Promise<{ report: Report; failed: boolean }> {
  const { quick, peers } = options;
  if (peers) installPeers();
  const effort = quick ? hasty : thorough;
  const engines: EngineReport[] = [];
  const entries: Entry[] = [];
  let failed = false;
  const isAsked = (asked: readonly string[] | undefined, name: string) =>
    asked === undefined || asked.includes(name);
  const attempt = async (name: string, run: () => Promise<readonly Entry[]>) => {
    const begin = performance.now();
    try {
      entries.push(...(await run()));
      progress(`${name}, ${((performance.now() - begin) / 1_000).toFixed(1)} s`);
    } catch (error) {
      failed = true;
      progress(`${name} FAILED: ${(error as Error).stack}`);
    }
  };

  for (const name of Object.keys(backends) as BackendName[]) {
    if (!isAsked(options.backend, name)) continue;
    const asked = works.filter((work) => isAsked(options.work, work.name));
    if (asked.length === 0) continue;
    const backend = backends[name];
    const engine = await backend.start().catch((error: unknown) => {
      if (!(error instanceof EngineMissingError)) throw error;
      progress(`${name} SKIPPED: ${error.message}`);
      engines.push({ backend: name, skipped: error.message });
    });
    if (engine === undefined) continue;
    const arena = new Arena(name, backend, engine.at, { effort, quick, peers });
    try {
      await attempt(`${name}: warming up`, () => arena.warmUp().then(() => []));
      for (const work of asked) await attempt(`${name} ${work.name}`, () => work.run(arena));
      await attempt(`${name}: all contestants hold the same`, async () => {
        await arena.refuseDifferences();
        return [];
      });
      const durability = await arena.durabilities();
      const without = Object.fromEntries(
        [...(await arena.contestants())].map(([name, { without = [] }]) => [name, without]),
      );
      engines.push({ backend: name, version: engine.version, durability, without });
    } finally {
      await arena.close();
      await engine.stop();
    }
  }
  if (isAsked(options.backend, "core")) {
    for (const work of coreWorks.filter(({ name }) => isAsked(options.work, name))) {
      await attempt(`core ${work.name}`, () => work.run({ effort, quick }));
    }
  }
  return { report: { machine: machine(), quick, engines, entries }, failed };
}

function progress(line: string): void {
  console.error(line);
}

function publish(report: Report, { json, backend, work }: Options): void {
  const whole = backend === undefined && work === undefined ? report : renewed(report);
  if (whole !== undefined) {
    writeFileSync(resultFile, `${JSON.stringify(whole, null, 2)}\n`);
    mkdirSync(chartFolder, { recursive: true });
    writeFileSync(join(chartFolder, "results.md"), toPage(whole));
    for (const [name, svg] of toCharts(whole.entries)) {
      writeFileSync(join(chartFolder, `${name}.svg`), svg);
    }
  }
  console.log(json ? toLines(report.entries) : toTable(report));
}

/** The results with a part measured anew; `undefined` when they are those of another machine, or of a quick run. */
function renewed(report: Report): Report | undefined {
  if (!existsSync(resultFile)) return undefined;
  const known = JSON.parse(readFileSync(resultFile, "utf8")) as Report;
  if (known.machine !== report.machine || known.quick !== report.quick) return undefined;
  const merged = <T extends { readonly backend: string; readonly work?: string }>(
    old: readonly T[],
    now: readonly T[],
  ) => {
    const kept = old.map((one) => {
      const newer = now.filter(({ backend, work }) => backend === one.backend && work === one.work);
      return newer.length > 0 ? newer : [one];
    });
    return [...new Set([...kept.flat(), ...now])];
  };
  return {
    ...report,
    engines: merged(known.engines, report.engines),
    entries: merged(known.entries, report.entries),
  };
}

/** One array, an entry on each line. */
function toLines(entries: readonly Entry[]): string {
  return `[\n${entries.map((entry) => JSON.stringify(entry)).join(",\n")}\n]`;
}

async function main(): Promise<void> {
  let options: Options;
  try {
    options = readOptions();
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${usage}`);
    process.exitCode = 2;
    return;
  }
  const { report, failed } = await measure(options);
  publish(report, options);
  if (failed) process.exitCode = 1;
}

await main();
