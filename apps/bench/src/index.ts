/** The command line. See the README. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { backends } from "./backends.js";
import type { Entry } from "./entry.js";
import { installPeers } from "./peers/packages.js";
import { type Report, renewed, toCharts, toPage, toTable } from "./report.js";
import { measure, type Options } from "./run.js";
import { coreWorks, works } from "./works/index.js";

const usage = `pnpm bench [--quick] [--peers] [--json] [--backend names] [--work names]

  --quick    fewer rounds and smaller numbers: less than two minutes
  --peers    LangChain's, Mastra's and LangGraph's stores, too; installs them at the first use
  --json     nothing but the entries on standard output, as JSON (with pnpm -s)
  --backend  core,${Object.keys(backends).join()}
  --work     ${[...works, ...coreWorks].map(({ name }) => name).join()}`;

const folder = join(import.meta.dirname, "..");
const resultFile = join(folder, "results.json");
const chartFolder = join(folder, "../../docs/performance");

/** @throws Error that says what was wrong. */
function readOptions(): Options & { readonly json: boolean } {
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

function progress(line: string): void {
  console.error(line);
}

function publish(report: Report, { json, backend, work }: ReturnType<typeof readOptions>): void {
  const isPart = backend !== undefined || work !== undefined;
  const whole = isPart ? renewedResults(report) : report;
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

function renewedResults(part: Report): Report | undefined {
  if (!existsSync(resultFile)) return undefined;
  return renewed(JSON.parse(readFileSync(resultFile, "utf8")) as Report, part);
}

/** One array, an entry on each line. */
function toLines(entries: readonly Entry[]): string {
  return `[\n${entries.map((entry) => JSON.stringify(entry)).join(",\n")}\n]`;
}

async function main(): Promise<void> {
  let options: ReturnType<typeof readOptions>;
  try {
    options = readOptions();
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${usage}`);
    process.exitCode = 2;
    return;
  }
  if (options.peers) installPeers();
  const { report, failed } = await measure(options, progress);
  publish(report, options);
  if (failed) process.exitCode = 1;
}

await main();
