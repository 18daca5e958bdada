/**
 * The conventions that a machine can check, so that nobody has to remember them. Needs built packages:
 * run it by `pnpm check`.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { checkPackage, createPackageFromTarballData } from "@arethetypeswrong/core";
import { publint } from "publint";
import { formatMessage } from "publint/utils";

process.chdir(dirname(import.meta.dirname));

/** @type {string[]} */
const failures = [];
/** @param {unknown} holds @param {string} where @param {string} message what to do about it */
function check(holds, where, message) {
  if (!holds) failures.push(`${where}: ${message}`);
}
/** @param {string} file */
const read = (file) => (existsSync(file) ? readFileSync(file, "utf8") : "");
/**
 * What this script looks at in a manifest.
 * @typedef {{
 *   name: string, private?: boolean, type?: string, license?: string, description?: string, version?: string,
 *   keywords?: string[], repository?: { directory?: string }, engines?: { node?: string }, files?: string[],
 *   sideEffects?: boolean, packageManager?: string, bin?: unknown,
 *   exports?: Record<string, string | { types?: string, default?: string }>,
 *   dependencies?: Record<string, string>, devDependencies?: Record<string, string>,
 *   optionalDependencies?: Record<string, string>, peerDependencies?: Record<string, string>,
 * }} Manifest
 */
/** @param {string} folder @returns {Manifest} */
const manifestOf = (folder) => JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));

const root = manifestOf(".");
const folders = ["packages", "apps"]
  .flatMap((parent) => readdirSync(parent).map((name) => `${parent}/${name}`))
  .filter((folder) => existsSync(`${folder}/package.json`))
  .concat("examples");
const core = await import(pathToFileURL("packages/core/dist/index.js").href);
const tarballs = mkdtempSync(join(tmpdir(), "chatstore-check-"));

for (const folder of folders) {
  const manifest = manifestOf(folder);
  const short = folder.slice(folder.indexOf("/") + 1);

  checkName(folder, short, manifest);
  checkVersions(folder, manifest);
  if (manifest.private) continue;
  checkManifest(folder, short, manifest);
  // A backend brings its driver along; a bridge's framework is its peer.
  const isBackend =
    manifest.dependencies?.["@chatstore/core"] !== undefined &&
    manifest.peerDependencies === undefined &&
    manifest.name.startsWith("@");
  if (isBackend) await checkBackend(folder, short);
  checkReadme(folder, isBackend);
  await checkTarball(folder);
}
rmSync(tarballs, { recursive: true });
checkVersions("package.json", root);
checkRepository();

/** @param {string} folder @param {string} short @param {Manifest} manifest */
function checkName(folder, short, { name, type, version }) {
  const unscoped = { cli: "chatstore", "create-chatstore-backend": "create-chatstore-backend" }[
    short
  ];
  const expected = unscoped ?? `@chatstore/${short}`;
  check(name === expected, folder, `name it "${expected}", after its folder`);
  check(type === "module", folder, 'set "type": "module"');
  check(version, folder, 'give it a "version": changesets fails without, for private packages too');
}

/** @param {string} where @param {Manifest} manifest */
function checkVersions(where, { dependencies, devDependencies, optionalDependencies }) {
  const all = { ...dependencies, ...devDependencies, ...optionalDependencies };
  for (const [name, range] of Object.entries(all)) {
    check(
      range.startsWith("catalog:") || range === "workspace:^",
      where,
      `"${name}": "${range}" states a version: put it into the catalog of pnpm-workspace.yaml, write "catalog:" here`,
    );
  }
}

/** @param {string} folder @param {string} short @param {Manifest} manifest */
function checkManifest(folder, short, manifest) {
  const { description, keywords, repository, engines, files, exports } = manifest;
  check(description, folder, 'give it a "description"');
  check(keywords?.length, folder, 'give it "keywords"');
  check(manifest.license === "MIT", folder, 'set "license": "MIT"');
  check(manifest.sideEffects === false, folder, 'set "sideEffects": false');
  check(repository?.directory === folder, folder, `set "repository.directory": "${folder}"`);
  check(
    engines?.node === root.engines?.node,
    folder,
    `set "engines.node": "${root.engines?.node}", as in the root`,
  );
  const template = short === "create-chatstore-backend" ? ["dist", "template"] : ["dist"];
  check(String(files) === String(template), folder, `set "files": ${JSON.stringify(template)}`);
  check(exports ?? manifest.bin, folder, 'give it an "exports" map');
  for (const [path, target] of Object.entries(exports ?? {})) {
    if (typeof target === "string") continue;
    const name = /^\.\/dist\/(.+)\.js$/.exec(target.default ?? "")?.[1];
    check(
      name !== undefined && target.types === `./dist/${name}.d.ts`,
      folder,
      `exports["${path}"]: write { "types": "./dist/x.d.ts", "default": "./dist/x.js" } for src/x.ts`,
    );
    check(
      existsSync(`${folder}/src/${name}.ts`),
      folder,
      `exports["${path}"]: src/${name}.ts is missing`,
    );
  }
  if (short === "core") {
    check(
      Object.keys(manifest.dependencies ?? {}).length === 0,
      folder,
      "core has no runtime dependency: remove them",
    );
    check(
      manifest.peerDependencies === undefined,
      folder,
      "core has no peers, optional ones neither: they would concern everybody who installs a backend",
    );
  }
}

/** @param {string} folder @param {string} short */
async function checkBackend(folder, short) {
  const pascal = short.replace(/(?:^|-)([a-z])/g, (_, letter) => letter.toUpperCase());
  const built = `${folder}/dist/index.js`;
  if (!existsSync(built)) return check(false, folder, `${built} is missing: add src/index.ts`);

  const module = await import(pathToFileURL(built).href);
  const factory = `${pascal[0]?.toLowerCase()}${pascal.slice(1)}ChatStore`;
  for (const name of [factory, `${pascal}Backend`]) {
    check(typeof module[name] === "function", folder, `export ${name} from src/index.ts`);
  }
  check(
    module.default === module[factory],
    folder,
    `export ${factory} as default, too: openChatStore() loads that`,
  );
  const types = read(`${folder}/dist/index.d.ts`);
  const options = `${pascal}ChatStoreOptions`;
  check(
    new RegExp(`export (type )?\\{[^}]*\\b${options}\\b`).test(types),
    folder,
    `export the type ${options} from src/index.ts`,
  );
  check(
    types.includes('export * from "@chatstore/core"') &&
      Object.keys(core).every((name) => name === "default" || module[name] === core[name]),
    folder,
    'src/index.ts must `export * from "@chatstore/core"` and shadow nothing of it',
  );
  for (const name of ["src/index.ts", "src/backend.ts", "test/conformance.test.ts"]) {
    check(existsSync(`${folder}/${name}`), folder, `${name} is missing`);
  }
  const formats = ["schema", "scripts", "format"].map((name) => `src/${name}.ts`);
  check(
    formats.filter((name) => existsSync(`${folder}/${name}`)).length === 1,
    folder,
    `the stored format stands in exactly one of ${formats.join(", ")}`,
  );
}

/** @param {string} folder @param {boolean} isBackend */
function checkReadme(folder, isBackend) {
  const wanted = isBackend
    ? ["Install", "Use", "Options", "Stored format", "Limits"]
    : ["Install", "Use"];
  const headings = [...read(`${folder}/README.md`).matchAll(/^## (.+)$/gm)].map(([, text]) => text);
  const found = headings.filter((text) => text !== undefined && wanted.includes(text));
  check(
    found.join() === wanted.join(),
    `${folder}/README.md`,
    `needs these sections in this order, others may stand between: ${wanted.map((text) => `## ${text}`).join(", ")}`,
  );
}

/** What npm would get, judged by publint and are-the-types-wrong. @param {string} folder */
async function checkTarball(folder) {
  const pack = ["pack", "--json", "--pack-destination", tarballs];
  const shell = process.platform === "win32";
  const output = execFileSync("pnpm", pack, { cwd: folder, encoding: "utf8", shell });
  const bytes = readFileSync(JSON.parse(output).filename);

  const tarball = new Uint8Array(bytes).buffer;
  const lint = await publint({ pack: { tarball }, strict: true });
  for (const message of lint.messages) {
    check(false, folder, `publint: ${formatMessage(message, lint.pkg, { color: false })}`);
  }
  const judged = await checkPackage(createPackageFromTarballData(new Uint8Array(bytes)));
  for (const problem of judged.types ? judged.problems : []) {
    // ESM only: what a CommonJS file, or a TypeScript that knows no exports map, would see does not matter.
    const kind = "resolutionKind" in problem ? problem.resolutionKind : "";
    if (kind === "node10" || kind === "node16-cjs") continue;
    check(false, folder, `are-the-types-wrong: ${JSON.stringify(problem)}`);
  }
}

/** @param {string} folder @returns {string[]} what people wrote, not what tools made */
function filesBelow(folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (!entry.isDirectory()) return [path];
    return /^(node_modules|dist|\.git|\.turbo|\.vitest)$/.test(entry.name) ? [] : filesBelow(path);
  });
}

function checkRepository() {
  const files = filesBelow(".");

  for (const file of files.filter((name) => name.endsWith(".md"))) {
    const text = read(file).replace(/^(```+).*?^\1/gms, "");
    for (const [, target = ""] of text.matchAll(/\]\(<?([^)\s>#]+)[^)]*\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      const path = join(dirname(file), decodeURIComponent(target));
      check(existsSync(path), file, `the link to ${target} leads nowhere`);
    }
  }

  const manager = root.packageManager ?? "";
  for (const file of ["README.md", ".ci/run"]) {
    check(read(file).includes(manager), file, `must name ${manager}, as package.json does`);
  }
  for (const file of files.filter((name) => /\.(md|ya?ml)$|^\.ci\//.test(name))) {
    for (const [found] of read(file).matchAll(/\bpnpm@\d+\.\d+\.\d+/g)) {
      check(found === manager, file, `names ${found}, package.json ${manager}`);
    }
  }
  check(
    !/^\s+(resolution: .*)?tarball:/m.test(read("pnpm-lock.yaml")),
    "pnpm-lock.yaml",
    "names a tarball's address, which may be a private registry's: install again from the public one",
  );
}

for (const failure of failures) console.error(`✗ ${failure}`);
console.log(failures.length === 0 ? "conventions: all hold" : `\n${failures.length} to mend`);
process.exitCode = failures.length === 0 ? 0 : 1;
