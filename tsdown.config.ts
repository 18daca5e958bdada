import { defineConfig } from "tsdown";

/**
 * The one build, for every package. `dist` mirrors `src` file by file: an export `./dist/x.js` is `src/x.ts`, and a
 * worker that a module addresses by `new URL("./worker.js", import.meta.url)` is where the sources have it. Core alone
 * asks for bundles: reading many small files was half of what importing it costs.
 * The types are built where the package's `exports` promise some.
 */
export default defineConfig({
  cwd: process.cwd(), // the package, not this folder
  entry: ["src/**/*.ts"],
  root: "src",
  unbundle: true,
  format: "esm",
  target: "node20.19",
  fixedExtension: false, // `.js`: every package is `type: module`
  sourcemap: false, // one file per module, not minified: a stack trace reads well without
  report: false,
  deps: { neverBundle: ["vitest", "fast-check"] }, // types of the suite: whoever runs it has them
  failOnWarn: true, // above all for an import that the package does not declare
});
