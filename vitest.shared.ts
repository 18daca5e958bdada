import { readFileSync } from "node:fs";
import { defineConfig } from "vitest/config";

const { name } = JSON.parse(readFileSync("package.json", "utf8")) as { name: string };

/** The one test configuration: a package's `vitest.config.ts` re-exports it. */
export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // Real engines and child processes: slow is allowed, flaky is not.
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    retry: 0,
    // The JSON is what `.ci/run` adds up.
    reporters: ["default", "json"],
    outputFile: { json: `${import.meta.dirname}/.vitest/${name.replace("/", "-")}.json` },
  },
});
