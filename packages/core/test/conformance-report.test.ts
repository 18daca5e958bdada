import { expect, test } from "vitest";
import { conformanceReport, formatReport } from "../src/conformance/report.ts";

const result = (status: string, ...ancestorTitles: string[]) => ({ status, ancestorTitles });

test("the report counts the suite's tests by backend and guarantee, and no others", () => {
  const entries = conformanceReport({
    testResults: [
      {
        assertionResults: [
          result("passed", "conformance: sqlite", "G1 durable"),
          result("failed", "conformance: sqlite", "G1 durable", "killed at the instant"),
          result("skipped", "conformance: sqlite", "G12 flat cost"),
          result("passed", "conformance: sqlite", "G12 flat cost"),
          result("passed", "the schema"),
        ],
      },
      {
        assertionResults: [
          result("passed", "conformance: redis cluster", "G1 durable"),
          // What keeps the suite from running has no guarantee.
          result("failed", "conformance: mongo"),
        ],
      },
    ],
  });
  expect(entries).toEqual([
    { backend: "sqlite", guarantee: "G1", passed: 1, failed: 1, skipped: 0 },
    { backend: "sqlite", guarantee: "G12", passed: 1, failed: 0, skipped: 1 },
    { backend: "redis cluster", guarantee: "G1", passed: 1, failed: 0, skipped: 0 },
    { backend: "mongo", guarantee: "setup", passed: 0, failed: 1, skipped: 0 },
  ]);
  expect(formatReport(entries).split("\n")).toEqual([
    "       sqlite    redis cluster  mongo",
    "G1     ✗ 1 of 2  ✓ 1",
    "G12    ✓ 1 +1",
    "setup                           ✗ 1 of 1",
    "",
    "✓ passed, ✗ failed, +n skipped: for lack of a hook, see ConformanceHooks",
  ]);
});
