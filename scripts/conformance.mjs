/**
 * Runs the conformance suite on every backend of the workspace and prints what it found.
 *
 *   pnpm conformance                          a table: guarantees and backends
 *   pnpm conformance --filter=@chatstore/redis
 *   pnpm -s conformance --json                one entry for each backend and guarantee, as JSON and nothing else
 */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { basename, dirname } from "node:path";
import { pathToFileURL } from "node:url";

process.chdir(dirname(import.meta.dirname));

const args = process.argv.slice(2);
const asJson = args.includes("--json");
const filters = args.filter((arg) => arg.startsWith("--filter="));
const unknown = args.filter((arg) => arg !== "--json" && !filters.includes(arg));
if (unknown.length > 0) {
  console.error(`Unknown: ${unknown.join(" ")}. Known: --json, --filter=@chatstore/<package>`);
  process.exit(2);
}

const packages = readdirSync("packages")
  .map((name) => `packages/${name}`)
  .filter((folder) => existsSync(`${folder}/test/conformance.test.ts`))
  .map((folder) => JSON.parse(readFileSync(`${folder}/package.json`, "utf8")).name)
  .filter((name) => filters.length === 0 || filters.includes(`--filter=${name}`));
/** @param {string} name */
const reportOf = (name) => `.vitest/${name.replace("/", "-")}.json`;
for (const name of packages) rmSync(reportOf(name), { force: true });

// One package at a time: tests that race processes against each other need the machine to themselves.
const turbo = ["run", "test", "--concurrency=1", "--continue=dependencies-successful"];
const vitest = ["test/conformance.test.ts", "--testNamePattern", "^conformance: "];
const run = spawnSync(
  "turbo",
  [...turbo, ...packages.map((name) => `--filter=${name}`), "--", ...vitest],
  {
    // Standard output is for the report alone.
    stdio: ["ignore", process.stderr, process.stderr],
    env: { ...process.env, TURBO_TELEMETRY_DISABLED: "1" },
    shell: process.platform === "win32",
  },
);

const report = pathToFileURL("packages/core/dist/conformance/report.js").href;
const { conformanceReport, formatReport } = await import(report);
const entries = packages.flatMap((name) => {
  const file = reportOf(name);
  const found = existsSync(file) ? conformanceReport(JSON.parse(readFileSync(file, "utf8"))) : [];
  // A file that cannot even be loaded must not vanish from the report.
  return found.length > 0
    ? found
    : [{ backend: basename(name), guarantee: "setup", passed: 0, failed: 1, skipped: 0 }];
});

console.log(asJson ? JSON.stringify(entries, null, 2) : `\n${formatReport(entries)}`);
const failed = entries.some((entry) => entry.failed > 0);
process.exitCode = failed || run.status !== 0 ? 1 : 0;
