import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rename, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { installed, type Program } from "./engine.js";

const run = promisify(execFile);

/**
 * A program out of a Debian or Ubuntu package, unpacked into this user's cache. Nothing is installed: no root needed,
 * no question asked, no service started, no other apt disturbed.
 */
export async function debianPackage(name: string, program: string): Promise<Program | undefined> {
  if (!installed(["apt-get"]) || !installed(["dpkg-deb"])) return undefined;
  const cache = join(
    process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"),
    "chatstore-engines",
  );
  const folder = join(cache, name);
  if (!existsSync(folder)) await unpack(name, cache, folder);
  const libraries = (await readdir(join(folder, "usr/lib"), { withFileTypes: true }))
    .filter((entry) => entry.isDirectory())
    .map((entry) => join(folder, "usr/lib", entry.name));
  const env = { ...process.env, LD_LIBRARY_PATH: libraries.join(":") };
  return { path: join(folder, program), env };
}

async function unpack(name: string, cache: string, folder: string): Promise<void> {
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(join(cache, `.${name}-`));
  try {
    const root = join(work, "root");
    const archives = join(work, "apt/archives");
    await mkdir(join(archives, "partial"), { recursive: true });
    await mkdir(join(work, "lists/partial"), { recursive: true });
    const apt = (...args: string[]) =>
      run(
        "apt-get",
        [
          "--quiet=2",
          ...["-o", `Dir::State::Lists=${work}/lists`, "-o", `Dir::Cache=${work}/apt`],
          ...["-o", "Debug::NoLocking=1", "-o", "Acquire::http::Timeout=10"],
          // Root's apt would download as a user who may not write here.
          ...(process.getuid?.() === 0 ? ["-o", "APT::Sandbox::User=root"] : []),
          ...args,
        ],
        { timeout: 120_000, env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" } },
      );
    await apt("update");
    await apt("install", "--yes", "--no-install-recommends", "--download-only", name);
    for (const file of await readdir(archives)) {
      if (file.endsWith(".deb")) await run("dpkg-deb", ["--extract", join(archives, file), root]);
    }
    await rename(root, folder).catch((error: unknown) => {
      if (!existsSync(folder)) throw error; // another process was faster
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
