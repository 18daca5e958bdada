/**
 * Runs the packages' tests by turbo and adds up what vitest reported for each.
 *
 *   pnpm test                             everything
 *   pnpm test --filter=@chatstore/sqlite  turbo's options
 *   pnpm test -- durable                  vitest's arguments, here a part of a file name
 *
 * At the end come the tests that failed, each with its error, and the total. `.vitest/total` keeps these for `.ci/run`.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";

const args = process.argv.slice(2);
const root = new URL("../", import.meta.url);
const reports = new URL(".vitest/", root);
rmSync(reports, { recursive: true, force: true });
mkdirSync(reports);

const split = args.includes("--") ? args.indexOf("--") : args.length;
const command = ["run", "test", "--continue=dependencies-successful", ...args.slice(0, split)];
/** @param {string[]} extra @param {"inherit" | "pipe"} stdio */
const turbo = (extra, stdio) =>
  spawnSync("turbo", [...command, ...extra], {
    cwd: root,
    encoding: "utf8",
    stdio: ["ignore", stdio, "inherit"],
    env: { ...process.env, TURBO_TELEMETRY_DISABLED: "1" },
    shell: process.platform === "win32",
  });

// What should report: a package whose tests crash, or cannot be built, must not vanish from the sum.
const plan = turbo(["--dry=json"], "pipe");
if (plan.status !== 0) process.exit(plan.status ?? 1);
/** @type {{ task: string, package: string, command: string }[]} */
const tasks = JSON.parse(plan.stdout).tasks;
const expected = tasks
  .filter(({ task, command }) => task === "test" && command !== "<NONEXISTENT>")
  .map((task) => task.package)
  .sort();

// One package at a time: tests that race processes against each other need the machine to themselves.
const run = turbo(["--concurrency=1", ...args.slice(split)], "inherit");

const rows = expected.map((name) => {
  const file = new URL(`${name.replace("/", "-")}.json`, reports);
  if (!existsSync(file)) {
    return { name, passed: 0, failed: 1, skipped: 0, note: "did not finish", failures: [] };
  }
  const report = JSON.parse(readFileSync(file, "utf8"));
  const skipped = report.numPendingTests + report.numTodoTests;
  // A file that cannot be loaded, or an error outside of any test, fails the run without a failed test.
  const silent = !report.success && report.numFailedTests === 0;
  return {
    name,
    passed: report.numPassedTests,
    failed: report.numFailedTests + (silent ? 1 : 0),
    skipped,
    note: silent ? "failed outside of a test" : "",
    failures: failures(report),
  };
});

/** @param {{ testResults: { name: string, message: string, assertionResults: { status: string, fullName: string, failureMessages: string[] }[] }[] }} report */
function failures({ testResults }) {
  return testResults.flatMap(({ name: file, message, assertionResults }) => [
    ...(message ? [`${file}\n${message}`] : []),
    ...assertionResults
      .filter(({ status }) => status === "failed")
      .map(({ fullName, failureMessages }) =>
        [`${file}: ${fullName}`, ...failureMessages].join("\n"),
      ),
  ]);
}

const sum = { passed: 0, failed: 0 };
const width = Math.max(0, ...rows.map(({ name }) => name.length));
console.log();
for (const { name, passed, failed, skipped, note } of rows) {
  sum.passed += passed;
  sum.failed += failed;
  const parts = [`${passed} passed`, `${failed} failed`, skipped > 0 && `${skipped} skipped`, note];
  console.log(
    `${failed > 0 ? "✗" : "✓"} ${name.padEnd(width)}  ${parts.filter(Boolean).join(", ")}`,
  );
}
const total = [
  ...rows.flatMap(({ failures }) => failures.map((failure) => `✗ ${failure}\n`)),
  `${sum.passed} passed, ${sum.failed} failed`,
].join("\n");
writeFileSync(new URL("total", reports), `${total}\n`);
console.log(`\n${total}`);
process.exit(run.status !== 0 || sum.failed > 0 || sum.passed === 0 ? 1 : 0);
