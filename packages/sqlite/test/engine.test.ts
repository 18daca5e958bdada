/** What is said where better-sqlite3 cannot be loaded. */
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { whyNot } from "../src/engine.ts";

const root = mkdtempSync(join(tmpdir(), "chatstore-sqlite-engine-"));
afterAll(() => rmSync(root, { recursive: true }));

const here = createRequire(import.meta.url);
const engine = dirname(here.resolve("better-sqlite3/package.json"));

/** An application with its own copy of the package and its engine. */
function application(name: string): { readonly run: () => string; readonly engine: string } {
  const folder = join(root, name);
  const modules = join(folder, "node_modules");
  const copy = join(modules, "better-sqlite3");
  cpSync(join(import.meta.dirname, "../dist"), join(folder, "dist"), { recursive: true });
  writeFileSync(join(folder, "package.json"), '{"type":"module"}');
  const core = dirname(dirname(here.resolve("@chatstore/core")));
  cpSync(core, join(modules, "@chatstore/core"), {
    recursive: true,
    filter: (path) => !path.includes("node_modules"),
  });
  mkdirSync(copy);
  for (const part of ["package.json", "lib"]) {
    cpSync(join(engine, part), join(copy, part), { recursive: true });
  }
  const bindings = dirname(
    createRequire(realpathSync(join(engine, "package.json"))).resolve("bindings"),
  );
  cpSync(bindings, join(modules, "bindings"), { recursive: true });
  const uri = dirname(createRequire(join(bindings, "package.json")).resolve("file-uri-to-path"));
  cpSync(uri, join(modules, "file-uri-to-path"), { recursive: true });
  const script = `
    import { sqliteChatStore } from "./dist/index.js";
    const error = await sqliteChatStore({ path: ":memory:" }).open().catch((error) => error);
    console.log(JSON.stringify({ ...error, message: error?.message, caused: error?.cause !== undefined }));`;
  writeFileSync(join(folder, "start.js"), script);
  return {
    engine: copy,
    run: () => spawnSync(process.execPath, ["start.js"], { cwd: folder, encoding: "utf8" }).stdout,
  };
}

describe("an engine that cannot be loaded", () => {
  const typed = { code: "BACKEND", retryable: false, outcome: "not-applied", caused: true };

  test("was never built: the application hears how to build it", () => {
    expect(JSON.parse(application("unbuilt").run())).toMatchObject({
      ...typed,
      message: expect.stringMatching(/no native part.*npm rebuild better-sqlite3/s),
    });
  });

  test("was built for another system, or is damaged", () => {
    const { engine: copy, run } = application("damaged");
    mkdirSync(join(copy, "build", "Release"), { recursive: true });
    writeFileSync(join(copy, "build", "Release", "better_sqlite3.node"), "not for this system");
    expect(JSON.parse(run())).toMatchObject({
      ...typed,
      message: expect.stringMatching(/on this system.*npm rebuild better-sqlite3/s),
    });
  });

  test("was left behind by a bundler", () => {
    const { engine: copy, run } = application("bundled");
    rmSync(copy, { recursive: true });
    expect(JSON.parse(run())).toMatchObject({
      ...typed,
      message: expect.stringMatching(/--external:better-sqlite3.*serverExternalPackages/s),
    });
  });

  const dlopen = (message: string) =>
    Object.assign(new Error(message), { code: "ERR_DLOPEN_FAILED" });
  // As these runtimes and bundlers said it, when they were tried.
  test.each([
    [
      "another Node.js",
      dlopen("was compiled against a different Node.js version using\nNODE_MODULE_VERSION 115."),
      {},
      /another version of Node\.js.*npm rebuild/s,
    ],
    [
      "Bun",
      dlopen("'better-sqlite3' is not yet supported in Bun."),
      { bun: "1.3" },
      /under Bun.*Node\.js.*@chatstore\/file/s,
    ],
    [
      "Deno",
      new TypeError(
        "it was built against the legacy Node.js native addon API, which Deno does not support.",
      ),
      { deno: "2.9" },
      /under Deno.*Node\.js.*@chatstore\/file/s,
    ],
    ["an ESM bundle", new Error('Dynamic require of "fs" is not supported'), {}, /bundler/],
    [
      "a CommonJS bundle",
      new TypeError("Cannot read properties of null (reading 'indexOf')"),
      {},
      /bundler/,
    ],
    [
      "a bundle that has require()",
      new Error("Could not locate the bindings file. Tried:\n → /app/build/better_sqlite3.node"),
      {},
      /bundler/,
    ],
  ])("%s", (_, cause, versions, said) => {
    expect(whyNot(cause, versions)).toMatch(said);
  });
});
