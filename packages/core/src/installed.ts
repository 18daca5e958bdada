/** Packages of the application, found at run time: by whoever is told a backend's name instead of importing it. */
import { existsSync, readFileSync, realpathSync } from "node:fs";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

// Not imported: bundlers understand `createRequire`, and would look up now what is to be looked up when the program runs.
const { createRequire } = process.getBuiltinModule("node:module");

/** A module that is there, and can be imported. */
export interface Installed {
  /** As it was asked for. */
  readonly specifier: string;
  readonly url: string;
}

/**
 * Where packages are looked up, and what each place is: the working directory, the program that was started, this package
 * itself. One of them is the application's: a strict package manager shows a dependency only to who declared it, and the
 * working directory of a service is often `/`.
 */
export function places(): readonly { readonly name: string; readonly folder: string }[] {
  const started = process.argv[1];
  const candidates = [
    ["the working directory", () => process.cwd()],
    ["the main module", () => started && dirname(resolve(started))],
    // A command in node_modules/.bin is a link.
    ["the main module", () => started && dirname(realpathSync(started))],
    // Bundlers leave no URL, or one of another kind.
    ["@chatstore/core", () => dirname(fileURLToPath(import.meta.url))],
  ] as const;
  const found = new Map<string, { name: string; folder: string }>();
  for (const [name, folderOf] of candidates) {
    const folder = quietly(folderOf);
    if (folder && !found.has(folder)) found.set(folder, { name, folder });
  }
  return [...found.values()];
}

/** Whether it is the path of a module, and no package's name. */
export function isPath(specifier: string): boolean {
  return specifier.startsWith(".") || isAbsolute(specifier);
}

/** Find a package by its name, or a module by its path (relative to the working directory). `undefined`: it is not there. */
export function findInstalled(specifier: string): Installed | undefined {
  if (isPath(specifier)) {
    const path = resolve(specifier);
    const found = quietly(() => createRequire(path).resolve(path));
    return found === undefined ? undefined : { specifier, url: pathToFileURL(found).href };
  }
  for (const { folder } of places()) {
    const { resolve: find } = createRequire(join(folder, "index.js"));
    const path =
      entryOf(find.paths(specifier) ?? [], specifier) ??
      // Some package managers have no folders: they teach `require` to find things.
      quietly(() => find(specifier));
    if (path !== undefined) return { specifier, url: pathToFileURL(path).href };
  }
  return undefined;
}

/** The file that `import` takes of a package. `require.resolve` would not find one that is for `import` only. */
function entryOf(folders: readonly string[], name: string): string | undefined {
  const folder = folders
    .map((each) => join(each, name))
    .find((each) => existsSync(join(each, "package.json")));
  if (folder === undefined) return undefined;
  const manifest = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as {
    readonly exports?: unknown;
    readonly main?: unknown;
  };
  const target = targetOf(manifest.exports) ?? manifest.main ?? "index.js";
  return join(folder, String(target));
}

const conditions = new Set(["node", "import", "module-sync", "default"]);

/** What an `exports` field says of the package itself. */
function targetOf(exports: unknown): string | undefined {
  if (typeof exports === "string") return exports;
  if (typeof exports !== "object" || exports === null) return undefined;
  if ("." in exports) return targetOf(exports["."]);
  for (const [name, value] of Object.entries(exports)) {
    const target = Array.isArray(exports) || conditions.has(name) ? targetOf(value) : undefined;
    if (target !== undefined) return target;
  }
  return undefined;
}

function quietly<T>(find: () => T): T | undefined {
  try {
    return find();
  } catch {
    return undefined;
  }
}
