/** What the suite found, from vitest's JSON reports. */

/** One guarantee of one backend: how many of its tests passed, failed and were skipped. */
export interface ReportEntry {
  readonly backend: string;
  /** `G1` to `G14`, `API`, `model`; `setup` for what kept the suite from running. */
  readonly guarantee: string;
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** The part of vitest's JSON report that is read here. */
export interface VitestReport {
  readonly testResults: readonly {
    readonly assertionResults: readonly {
      readonly ancestorTitles: readonly string[];
      readonly status: string;
    }[];
  }[];
}

const suiteTitle = "conformance: ";

/** The suite's entries in a report: one for each backend and guarantee, in the order in which they ran. */
export function conformanceReport(report: VitestReport): ReportEntry[] {
  const entries = new Map<string, { -readonly [Name in keyof ReportEntry]: ReportEntry[Name] }>();
  for (const { ancestorTitles, status } of report.testResults.flatMap(
    (file) => file.assertionResults,
  )) {
    const [suite = "", title] = ancestorTitles.filter((one) => one !== "");
    if (!suite.startsWith(suiteTitle)) continue;
    const backend = suite.slice(suiteTitle.length);
    const guarantee = title?.split(" ")[0] ?? "setup";
    const name = JSON.stringify([backend, guarantee]);
    const entry = entries.get(name) ?? { backend, guarantee, passed: 0, failed: 0, skipped: 0 };
    entries.set(name, entry);
    if (status === "passed") entry.passed++;
    else if (status === "failed") entry.failed++;
    else entry.skipped++;
  }
  return [...entries.values()];
}

/** The entries as a table for people: a row for each guarantee, a column for each backend. */
export function formatReport(entries: readonly ReportEntry[]): string {
  const backends = [...new Set(entries.map(({ backend }) => backend))];
  const guarantees = [...new Set(entries.map(({ guarantee }) => guarantee))];
  const cellOf = (backend: string, guarantee: string) => {
    const entry = entries.find((one) => one.backend === backend && one.guarantee === guarantee);
    if (entry === undefined) return "";
    const { passed, failed, skipped } = entry;
    if (failed > 0) return `✗ ${failed} of ${passed + failed}`;
    if (passed === 0) return "skipped";
    return skipped > 0 ? `✓ ${passed} +${skipped}` : `✓ ${passed}`;
  };
  const rows = [
    ["", ...backends],
    ...guarantees.map((guarantee) => [
      guarantee,
      ...backends.map((backend) => cellOf(backend, guarantee)),
    ]),
  ];
  const widths = ["", ...backends].map((_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  );
  const lines = rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
  const legend = "✓ passed, ✗ failed, +n skipped: for lack of a hook, see ConformanceHooks";
  return [...lines, "", legend].join("\n");
}
