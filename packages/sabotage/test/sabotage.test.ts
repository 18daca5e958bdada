/**
 * A suite is worth what it catches. Each sabotaged store has one defect; the suite must fail on it, at the guarantee that the
 * defect breaks. The same store without a defect must pass.
 */
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { defects } from "../src/index.ts";

/** Of each store, its failed tests: their titles and why they failed. */
let failures: Map<string, { title: string; reason: string }[]>;
let ran: Set<string>;

beforeAll(async () => {
  const folder = await mkdtemp(join(tmpdir(), "chatstore-sabotage-report-"));
  const outputFile = join(folder, "report.json");
  const args = [
    "vitest",
    "run",
    "--config",
    "test/suite/vitest.config.ts",
    "--outputFile",
    outputFile,
  ];
  // Its exit code says that tests failed, which is what it is for.
  await new Promise((resolve) => execFile("npx", args, resolve));
  const report = JSON.parse(await readFile(outputFile, "utf8")) as Report;
  await rm(folder, { recursive: true });
  failures = new Map();
  ran = new Set();
  for (const { assertionResults } of report.testResults) {
    for (const { ancestorTitles, title, status, failureMessages } of assertionResults) {
      const store = ancestorTitles[0]?.replace("conformance: ", "") ?? "";
      ran.add(store);
      if (status !== "failed") continue;
      const known = failures.get(store) ?? [];
      failures.set(store, [...known, { title, reason: failureMessages.join("\n") }]);
    }
  }
}, 480_000);

interface Report {
  readonly testResults: readonly {
    readonly assertionResults: readonly {
      readonly ancestorTitles: readonly string[];
      readonly title: string;
      readonly status: string;
      readonly failureMessages: readonly string[];
    }[];
  }[];
}

describe("the suite catches a store that", () => {
  test.each(Object.entries(defects))("%s", (name, { says = /./ }) => {
    expect([...ran]).toContain(name);
    const found = failures.get(name) ?? [];
    expect(found, "no test failed").not.toEqual([]);
    // A defect that throws where it should misbehave would prove nothing.
    const misbehaved = found.filter(
      ({ reason }) =>
        says.test(reason) &&
        !/is not a function|SqliteError|The backend failed: (no such|cannot UPDATE)/.test(reason),
    );
    expect(misbehaved, "no test failed because of the defect").not.toEqual([]);
  });
});

test("the suite passes the same store without a defect", () => {
  expect([...ran]).toContain("sound");
  expect(failures.get("sound") ?? []).toEqual([]);
});
