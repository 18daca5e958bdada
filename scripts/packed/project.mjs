/** A project outside the repository, as a user has it: a folder, a manifest, the packed packages, and commands that run there. */
import { execFileSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

export const repository = dirname(dirname(import.meta.dirname));
export const temporary = mkdtempSync(join(tmpdir(), "chatstore-packed-"));
process.on("exit", () => rmSync(temporary, { recursive: true, force: true }));

/** The packages that users install, as the registry would have them: a file by folder. @type {Record<string, string>} */
const tarballs = {};
for (const folder of [
  ...["core", "file", "sqlite", "postgres", "redis", "mongo"],
  ...["llamaindex", "ai-sdk", "claude-agent", "langchain", "openai-agents"],
]) {
  const to = join(temporary, "tarballs", folder);
  mkdirSync(to, { recursive: true });
  execFileSync("pnpm", ["pack", "--pack-destination", to], {
    cwd: join(repository, "packages", folder),
    stdio: ["ignore", "ignore", "inherit"],
  });
  tarballs[folder] = join(to, readdirSync(to)[0] ?? "");
}

/**
 * The version that this repository has of a package.
 *
 * @param {string} name
 * @param {string} [folder] Of the package here that has it.
 * @returns {string}
 */
export function versionOf(name, folder = "llamaindex") {
  const [manifest = ""] = [".", "packages/core", `packages/${folder}`]
    .map((folder) => join(repository, folder, "node_modules", name, "package.json"))
    .filter((path) => existsSync(path));
  return JSON.parse(readFileSync(manifest, "utf8")).version;
}

/** The code of a document's fenced blocks. @param {string} file @param {string} language */
export function snippetsOf(file, language = "ts") {
  const blocks = new RegExp(`\`\`\`${language}\\n([\\s\\S]*?)\`\`\``, "g");
  return [...readFileSync(join(repository, file), "utf8").matchAll(blocks)].map(
    ([, code]) => code ?? "",
  );
}

/**
 * @param {string} name
 * @param {object} [manifest] Default: what `npm init -y` writes.
 */
export function project(name, manifest) {
  const folder = join(temporary, name);
  mkdirSync(folder);
  const write = (/** @type {string} */ file, /** @type {string | object} */ content) => {
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    writeFileSync(
      join(folder, file),
      typeof content === "string" ? content : JSON.stringify(content, null, 2),
    );
  };
  const run = (
    /** @type {string} */ command,
    /** @type {string[]} */ args = [],
    /** @type {Record<string, string>} */ env = {},
  ) =>
    execFileSync(command, args, {
      cwd: folder,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, NODE_OPTIONS: "", ...env },
    });
  /** A command that must fail; what it says. */
  const fail = (/** @type {Parameters<typeof run>} */ ...args) => {
    let output;
    try {
      output = run(...args);
    } catch (error) {
      const { stdout, stderr } = /** @type {{ stdout: string, stderr: string }} */ (error);
      return stdout + stderr;
    }
    throw new Error(`${args.flat().join(" ")} did not fail:\n${output}`);
  };
  /**
   * Chatstore's packages by folder, others as npm takes them. No install scripts run: better-sqlite3, which compiles for
   * minutes where its binary cannot be downloaded, gets the one that this repository has.
   */
  const install = (/** @type {string[]} */ packages, /** @type {string[]} */ others = []) => {
    const ours = packages.map((each) => tarballs[each] ?? "");
    run("npm", [...quiet, "--ignore-scripts", ...ours, ...others]);
    const binary = "build/Release/better_sqlite3.node";
    if (packages.includes("sqlite")) {
      const sqlite = createRequire(join(repository, "packages/sqlite/index.js"));
      const from = dirname(sqlite.resolve("better-sqlite3/package.json"));
      cpSync(join(from, binary), join(folder, "node_modules/better-sqlite3", binary));
    }
  };
  if (manifest === undefined) run("npm", ["init", "-y"]);
  else write("package.json", manifest);
  return { folder, write, run, fail, install, tarballs };
}

export const quiet = ["install", "--no-audit", "--no-fund", "--loglevel=error"];

/** @param {boolean} condition @param {string} otherwise what a user would run into */
export function holds(condition, otherwise) {
  if (!condition) throw new Error(otherwise);
}
