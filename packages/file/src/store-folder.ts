/** The folder of a store: created and checked, walked, and kept free of what is empty. */
import { randomUUID } from "node:crypto";
import {
  access,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rmdir,
  statfs,
  writeFile,
} from "node:fs/promises";
import { dirname, join } from "node:path";
import {
  BackendError,
  CorruptSessionError,
  type MigrateMode,
  SchemaError,
  UnsupportedFormatError,
} from "@chatstore/core";
import {
  declaredFormat,
  formatVersion,
  internalFolder,
  type Place,
  sessionExtension,
  temporaryExtension,
  tenantFolder,
} from "./format.js";
import { failedWith, succeeds, toFailure, unless } from "./fs-failure.js";

export class StoreFolder {
  readonly dir: string;
  /** Holds the locks. */
  readonly locks: string;
  readonly #format: string;

  constructor(dir: string) {
    this.dir = dir;
    this.locks = join(dir, internalFolder, "locks");
    this.#format = join(dir, internalFolder, "format");
  }

  path([tenant, user, session]: Place): string {
    return join(this.dir, tenant, user, session + sessionExtension);
  }

  /** Beside the session's file, so that it can take its place. Only the holder of the session's lock uses it. */
  temporaryPath([tenant, user, session]: Place): string {
    return join(this.dir, tenant, user, session + temporaryExtension);
  }

  /**
   * Create the folder or check it. Many processes may create it at once: all write the same.
   *
   * @throws SchemaError, UnsupportedFormatError; BackendError when the parent is missing.
   */
  async open(migrate: MigrateMode): Promise<void> {
    if (migrate === "off") return;
    const text = await unless(["ENOENT"], () => readFile(this.#format));
    if (text === undefined && migrate === "auto") return this.#create();
    if (text === undefined) {
      throw new SchemaError(
        `${this.dir} is no chat store: check the path, or open it once with migrate: "auto"`,
      );
    }
    const format = declaredFormat(text);
    if (format === undefined) {
      throw new CorruptSessionError(`${this.#format} does not say the format version`);
    }
    if (format > formatVersion) {
      throw new UnsupportedFormatError(
        `${this.dir} has format version ${format}, this @chatstore/file reads up to ${formatVersion}: upgrade it`,
      );
    }
  }

  /** Fails when the folder is gone: an absent session must not be a disk that is not mounted. */
  async checkPresent(): Promise<void> {
    await access(this.#format);
  }

  /** What may lose data. */
  async warnings(): Promise<string[]> {
    if (process.platform !== "linux") return [];
    const doubt = doubts.get((await statfs(this.dir)).type);
    return doubt === undefined ? [] : [`${this.dir} ${doubt}`];
  }

  /** All places, of one tenant or of all, in a stable order, from behind one of them. */
  async *places(tenant?: string, after: Place = ["", "", ""]): AsyncGenerator<Place> {
    const tenants = tenant === undefined ? await this.#folders("") : [tenantFolder(tenant)];
    for (const inTenant of tenants.filter((name) => name >= after[0])) {
      const atTenant = inTenant === after[0];
      for (const user of await this.#folders(inTenant)) {
        if (atTenant && user < after[1]) continue;
        const atUser = atTenant && user === after[1];
        for (const session of await this.sessions(inTenant, user)) {
          if (!atUser || session > after[2]) yield [inTenant, user, session];
        }
      }
    }
  }

  /** The names of a user's sessions, also of those of which only a temporary file is left. */
  async sessions(tenant: string, user: string): Promise<string[]> {
    const names = new Set<string>();
    for (const file of await namesIn(join(this.dir, tenant, user))) {
      for (const extension of [temporaryExtension, sessionExtension]) {
        if (file.endsWith(extension)) names.add(file.slice(0, -extension.length));
      }
    }
    return [...names].sort();
  }

  /** Make the folders of a session. Somebody who tidies up may remove them again before they are used. */
  async make([tenant, user]: Place, durable: boolean): Promise<void> {
    const inTenant = join(this.dir, tenant);
    await makeFolder(inTenant, durable);
    await unless(["ENOENT"], () => makeFolder(join(inTenant, user), durable));
  }

  /**
   * After removals: make them last, and remove the folders that are empty now, whose names say whose they were.
   *
   * @throws BackendError with outcome `unknown`.
   */
  async tidy(
    [tenant, user]: readonly [tenant: string, user: string, session?: string],
    durable: boolean,
  ): Promise<void> {
    const inTenant = join(this.dir, tenant);
    const sync = async (path: string) => {
      if (durable) await unless(["ENOENT"], () => syncFolder(path));
    };
    try {
      for (const path of [join(inTenant, user), inTenant]) {
        await sync(path);
        if (!(await succeeds(["EEXIST", "ENOENT", "ENOTEMPTY"], () => rmdir(path)))) return;
      }
      await sync(this.dir);
    } catch (error) {
      throw toFailure(error, inTenant, "unknown");
    }
  }

  async #create(): Promise<void> {
    try {
      await makeFolder(this.dir, true);
    } catch (error) {
      if (!failedWith(error, "ENOENT")) throw error;
      throw new BackendError(
        `${this.dir} cannot be created, since ${dirname(this.dir)} does not exist: create that, or choose another \`dir\``,
        { retryable: false, outcome: "not-applied", cause: error },
      );
    }
    const internal = dirname(this.#format);
    await makeFolder(internal, true);
    const temporary = `${this.#format}.${randomUUID()}`;
    const text = `${JSON.stringify({ chatstore: formatVersion })}\n`;
    await writeFile(temporary, text, { mode: 0o600, flush: true });
    await rename(temporary, this.#format);
    await syncFolder(internal);
    await syncFolder(this.dir);
  }

  async #folders(tenant: string): Promise<string[]> {
    const names = await namesIn(join(this.dir, tenant));
    return names.filter((name) => !name.startsWith(".")).sort();
  }
}

async function makeFolder(path: string, durable: boolean): Promise<void> {
  const isNew = await succeeds(["EEXIST"], () => mkdir(path, 0o700));
  // A parent that is not ours may let us enter, but not read.
  if (isNew && durable) await unless(["EACCES"], () => syncFolder(dirname(path)));
}

/** Make what was created, renamed or removed in a folder survive a power failure. */
export async function syncFolder(path: string): Promise<void> {
  // Windows opens no folders, and its file systems keep a journal of what happens in them.
  if (process.platform === "win32") return;
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Also of a file, and of what is gone by now: none. */
async function namesIn(path: string): Promise<string[]> {
  return (await unless(["ENOENT", "ENOTDIR"], () => readdir(path))) ?? [];
}

const network =
  "is on a network file system: use it from one host only, and mind that a sync may not reach the disk";
const memory = "is in memory: a restart of the machine loses everything";
/** By the magic numbers of Linux's statfs: NFS, three of SMB; tmpfs, ramfs. */
const doubts: ReadonlyMap<number, string> = new Map([
  ...[0x6969, 0x517b, 0xfe534d42, 0xff534d42].map((type) => [type, network] as const),
  ...[0x01021994, 0x858458f6].map((type) => [type, memory] as const),
]);
