/** The peers' packages: an npm project of its own in `peers`, which nothing else needs. */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const folder = join(import.meta.dirname, "../../peers");

/** Requires from the peers' folder. What it gives is typed by who uses it, since the packages need not be there. */
export const requirePeer = createRequire(join(folder, "package.json"));

/** Install them, in the versions of their lock file, unless they are there. */
export function installPeers(): void {
  if (Object.entries(wanted()).every(([name, version]) => installed(name) === version)) return;
  console.error(`Installing the peers into ${folder}, once: this takes minutes`);
  execFileSync("npm", ["ci", "--no-audit", "--no-fund"], {
    cwd: folder,
    stdio: ["ignore", process.stderr, process.stderr], // standard output is the result's
    shell: process.platform === "win32",
  });
}

function wanted(): Readonly<Record<string, string>> {
  return JSON.parse(readFileSync(join(folder, "package.json"), "utf8")).dependencies;
}

/** The version that is there. */
function installed(name: string): string | undefined {
  const manifest = join(folder, "node_modules", name, "package.json");
  return existsSync(manifest) ? JSON.parse(readFileSync(manifest, "utf8")).version : undefined;
}
