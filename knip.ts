import { readdirSync, readFileSync } from "node:fs";
import type { KnipConfig } from "knip";

/** What a package makes public stands in its manifest: `./dist/x.js` is `src/x.ts`. */
function entries(folder: string): string[] {
  const manifest = readFileSync(`${folder}/package.json`, "utf8");
  return [...manifest.matchAll(/\bdist\/([\w/-]+)\.js\b/g)].map(([, name]) => `src/${name}.ts`);
}

const config: KnipConfig = {
  tsdown: false, // the plug-in would take every source file for an entry
  workspaces: Object.fromEntries(
    ["packages", "apps"]
      .flatMap((parent) => readdirSync(parent).map((name) => `${parent}/${name}`))
      .map((folder) => [folder, { entry: entries(folder) }]),
  ),
};

export default config;
