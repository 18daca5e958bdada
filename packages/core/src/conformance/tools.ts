/**
 * Vitest and fast-check, of the project that runs the suite. They are no peers of core: as such they would concern everybody who
 * installs a backend, and the version of vitest that his application has. Looked up from there, vitest is also the very copy that
 * runs the tests, however strictly packages are kept apart.
 */
import { createRequire } from "node:module";
import { findInstalled } from "../installed.js";

const oldest = { vitest: 4, "fast-check": 4 };

const vitest = await load<typeof import("vitest")>("vitest");
const fastCheck = await load<typeof import("fast-check")>("fast-check");

export const afterAll: typeof vitest.afterAll = vitest.afterAll;
export const afterEach: typeof vitest.afterEach = vitest.afterEach;
export const beforeEach: typeof vitest.beforeEach = vitest.beforeEach;
export const describe: typeof vitest.describe = vitest.describe;
export const fc: typeof fastCheck.default = fastCheck.default;
export const onTestFinished: typeof vitest.onTestFinished = vitest.onTestFinished;
export const test: typeof vitest.test = vitest.test;

async function load<Module>(name: keyof typeof oldest): Promise<Module> {
  const found = findInstalled(name);
  const version = found && versionOf(name, found.url);
  if (found === undefined || Number.parseInt(version ?? "", 10) < oldest[name]) {
    throw new Error(
      `The conformance suite needs ${name} ${oldest[name]} or later, ` +
        `${version === undefined ? "which is not installed" : `and ${version} is installed`}. ` +
        "Run: npm install --save-dev vitest@4 fast-check@4",
    );
  }
  return (await import(/* @vite-ignore */ found.url)) as Module;
}

function versionOf(name: string, url: string): string {
  return (createRequire(url)(`${name}/package.json`) as { version: string }).version;
}
