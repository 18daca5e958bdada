/** Loads better-sqlite3, whose native part is built for one kind of runtime, and says why it cannot. */
import { arch, platform, version, versions } from "node:process";
import { BackendError } from "@chatstore/core";
import type Database from "better-sqlite3";

/**
 * Open a database file, or one in memory.
 *
 * @throws BackendError when the engine cannot be loaded; what SQLite throws when it cannot open the file.
 */
export async function openDatabase(path: string): Promise<Database.Database> {
  try {
    // Only now: in a bundle it may fail to load, and the application would end before it can hear why.
    const { default: Engine } = await import("better-sqlite3");
    return new Engine(path, { timeout: 0 });
  } catch (cause) {
    if (codeOf(cause) !== undefined) throw cause;
    throw new BackendError(
      `better-sqlite3, the engine of @chatstore/sqlite, ${whyNot(cause, versions)}`,
      { retryable: false, outcome: "not-applied", cause },
    );
  }
}

/** SQLite's code. By its shape, because an own database may come from another copy of better-sqlite3. */
export function codeOf(error: unknown): string | undefined {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return typeof code === "string" && code.startsWith("SQLITE_") ? code : undefined;
}

/** What is the matter with the engine, and what to do. Goes on after its name. */
export function whyNot(
  cause: unknown,
  runtimes: Readonly<Record<string, string | undefined>>,
): string {
  const runtime =
    runtimes["bun"] !== undefined ? "Bun" : runtimes["deno"] !== undefined ? "Deno" : undefined;
  if (runtime !== undefined) {
    return (
      `does not run under ${runtime}: its native part is made for Node.js. Run the application with Node.js, ` +
      "or use another backend (@chatstore/file needs no server either)"
    );
  }
  const { code, message } = cause as { code?: unknown; message?: unknown };
  const text = String(message);
  if (text.includes("NODE_MODULE_VERSION")) {
    return (
      `was built for another version of Node.js than this ${version}. ` +
      "Run, with this Node.js: npm rebuild better-sqlite3"
    );
  }
  if (
    /not locate the bindings file/.test(text) &&
    /[\\/]better-sqlite3[\\/]build[\\/]/.test(text)
  ) {
    return (
      "has no native part: its install script did not run. Allow it (pnpm approve-builds, or " +
      "npm install without --ignore-scripts), then run: npm rebuild better-sqlite3"
    );
  }
  if (code === "ERR_DLOPEN_FAILED") {
    return (
      `has a native part that cannot be loaded on this system (${platform}-${arch}): it was built for another one, or is ` +
      "damaged. Install on the system where it runs (in a container: inside it), or run there: npm rebuild better-sqlite3"
    );
  }
  return (
    "cannot be loaded: a bundler has taken it in, or left it behind. Name it as external (esbuild: " +
    "--external:better-sqlite3; webpack: externals; Next.js: serverExternalPackages), and install it where the application runs"
  );
}
