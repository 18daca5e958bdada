import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { ChatStore, ChatStoreOptions } from "./chat-store.js";
import { BackendNotInstalledError, InvalidOptionsError, redact } from "./errors.js";
import { memoryChatStore } from "./memory-backend.js";

/** A backend by name, with its options: the content of a `chatstore.config` file. */
export interface ChatStoreConfig extends ChatStoreOptions {
  /**
   * `file`, `sqlite`, `postgres`, `redis`, `mongo` or `memory`; or the name of a package, or the path of a module
   * (beginning with `.` or `/`), whose default export is a factory. Default: what the scheme of `url` says.
   */
  readonly backend?: string | undefined;
  /** Where the engine is; its scheme picks the backend. */
  readonly url?: string | undefined;
  /** The backend's own options. */
  readonly [option: string]: unknown;
}

type Factory = (options: object) => ChatStore;

const backendOfScheme: Readonly<Record<string, string>> = {
  "file:": "file",
  "sqlite:": "sqlite",
  "postgres:": "postgres",
  "postgresql:": "postgres",
  "redis:": "redis",
  "rediss:": "redis",
  "mongodb:": "mongo",
  "mongodb+srv:": "mongo",
  "memory:": "memory",
};
const ownBackends = new Set(Object.values(backendOfScheme));

/**
 * Open a chat store by URL or configuration; without one, by the environment variable `CHATSTORE_URL`. Only the backend's
 * package is imported, and only now. Packages are looked up from the working directory.
 *
 * @throws InvalidOptionsError for an unknown scheme or backend; BackendNotInstalledError with the command that installs
 *   it; and whatever opening throws.
 * @example const store = await openChatStore("sqlite:./chat.db");
 * @example const store = await openChatStore({ url: process.env.REDIS_URL, ttl: 30 * 24 * 3600 * 1000 });
 */
export async function openChatStore<Options extends object = object>(
  source: string | ChatStoreConfig | undefined = process.env["CHATSTORE_URL"],
): Promise<ChatStore<Options>> {
  if (source === undefined || source === "") {
    throw new InvalidOptionsError(
      'Which chat store? Set CHATSTORE_URL, or give a URL ("sqlite:./chat.db") or { backend: "sqlite" }',
    );
  }
  const { backend, ...options } = typeof source === "string" ? { url: source } : source;
  const factory = await loadFactory(backend ?? backendOf(options.url));
  const store = factory(options) as ChatStore<Options>;
  await store.open();
  return store;
}

function backendOf(url: unknown): string {
  const scheme =
    typeof url === "string" ? /^[a-z][a-z0-9+.-]*:/i.exec(url)?.[0].toLowerCase() : undefined;
  const backend = scheme === undefined ? undefined : backendOfScheme[scheme];
  if (backend === undefined) {
    throw new InvalidOptionsError(
      `${typeof url === "string" ? `The URL ${JSON.stringify(redact(url))}` : "The configuration"} names no known backend. ` +
        `Known schemes: ${Object.keys(backendOfScheme).join(" ")}`,
    );
  }
  return backend;
}

async function loadFactory(backend: string): Promise<Factory> {
  if (backend === "memory") return memoryChatStore;
  const specifier = ownBackends.has(backend) ? `@chatstore/${backend}` : backend;
  const module = await load(specifier);
  if (typeof module.default !== "function") {
    throw new InvalidOptionsError(
      `${specifier} is no Chatstore backend: its default export is not a factory`,
    );
  }
  return module.default as Factory;
}

async function load(specifier: string): Promise<{ default?: unknown }> {
  // The application's dependency, not core's: a strict package manager lets only the application resolve it.
  const application = createRequire(join(process.cwd(), "index.js"));
  let path: string;
  try {
    path = application.resolve(specifier);
  } catch (cause) {
    if (specifier.startsWith(".") || specifier.startsWith("/")) {
      throw new InvalidOptionsError(`There is no backend module ${specifier}`, { cause });
    }
    throw new BackendNotInstalledError(specifier, { cause });
  }
  return import(pathToFileURL(path).href);
}
