/** What it costs to have `@chatstore/core` at all. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { rolldown } from "rolldown";
import { median } from "simple-statistics";
import type { CoreWork } from "./index.js";

const run = promisify(execFile);
const core = "@chatstore/core";
const mostTime = 15;
const mostBytes = 15_000;

/** The import alone, in a new process each time; an empty module takes some time, too. */
export const importTime: CoreWork = {
  name: "import",
  async run({ quick }) {
    const times = new Map([
      [core, [] as number[]],
      ["data:text/javascript,", [] as number[]],
    ]);
    for (let round = 0; round < (quick ? 10 : 40); round++) {
      const order = round % 2 === 0 ? [...times] : [...times].reverse();
      for (const [module, list] of order) list.push(await timeOfImport(module));
    }
    const [ours, empty] = [...times.values()].map((list) => median(list)) as [number, number];
    const note = `an empty module's ${empty.toFixed(1)} ms are subtracted`;
    const about = { backend: "core", work: importTime.name, history: null };
    return [
      { ...about, ours: ours - empty, raw: null, ratio: null, target: mostTime, unit: "ms", note },
    ];
  },
};

async function timeOfImport(module: string): Promise<number> {
  const code = `const begin = performance.now(); await import("${module}"); console.log(performance.now() - begin)`;
  const { stdout } = await run(process.execPath, ["--input-type=module", "--eval", code], {
    cwd: import.meta.dirname,
  });
  return Number(stdout);
}

export const size: CoreWork = {
  name: "size",
  async run() {
    const bundle = await rolldown({ input: core, cwd: import.meta.dirname, platform: "node" });
    const { output } = await bundle.generate({ minify: true });
    await bundle.close();
    const code = output.map((file) => (file.type === "chunk" ? file.code : "")).join("");
    const about = { backend: "core", work: size.name, history: null };
    // Brotli is what size-limit, the usual tool for this, measures, and what servers deliver.
    const ours = brotliCompressSync(code).length;
    const gzip = gzipSync(code, { level: 9 }).length;
    const note = `everything that it exports, minified: ${code.length} bytes; brotli, with gzip ${gzip}`;
    return [{ ...about, ours, raw: null, ratio: null, target: mostBytes, unit: "bytes", note }];
  },
};
