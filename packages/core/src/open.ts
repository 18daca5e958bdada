import { ChatStore } from "./chat-store.js";
import { BackendNotInstalledError, BackendNotLoadedError, InvalidOptionsError } from "./errors.js";
import { findInstalled, type Installed, isPath, places } from "./installed.js";
import { memoryChatStore } from "./memory-backend.js";
import type { ChatMessage } from "./messages.js";
import type { ChatStoreOptions } from "./store-types.js";
import { schemeOf } from "./url.js";

/** A backend with its options: the content of a `chatstore.config` file. */
export interface ChatStoreConfig extends ChatStoreOptions {
  /**
   * - a name, as a URL's scheme would give it: `file`, `sqlite`, `postgres`, `redis`, `mongo`, `memory`, or another one's;
   * - the name of a package, or the path of a module (beginning with `.` or `/`), whose default export is a factory;
   * - a factory itself, `redisChatStore`: then nothing is looked up. That is the way in a bundle.
   *
   * Default: what the scheme of `url` says.
   */
  readonly backend?: string | ChatStoreFactory | undefined;
  /** Where the engine is; its scheme picks the backend. */
  readonly url?: string | undefined;
  /** The backend's own options. */
  readonly [option: string]: unknown;
}

/** What makes a store: `redisChatStore`. A backend's package has it as its default export. */
// biome-ignore lint/suspicious/noExplicitAny: each factory has options of its own, and they cannot be known here.
export type ChatStoreFactory = (options: any) => ChatStore<any>;

/** Schemes that are not the name of their package. */
const backendOfScheme: Readonly<Record<string, string>> = {
  postgresql: "postgres",
  rediss: "redis",
  mongodb: "mongo",
};
/** Schemes that are followed by a path. */
const pathSchemes = ["file", "sqlite", "memory"];
/** The backends that have their packages from this project. */
const own = new Set(["file", "sqlite", "postgres", "redis", "mongo"]);
const known = "file: sqlite: postgres: redis: mongodb: memory:";

/**
 * Open a chat store by URL or configuration; without one, by the environment variable `CHATSTORE_URL`. Only the backend's
 * package is imported, and only now.
 *
 * A scheme `x` means the package `@chatstore/x`, and if that is not installed, `chatstore-x`: so a backend of anybody's
 * works without being known here. What follows a `+` (`mongodb+srv`) does not count. Packages are looked up from the working
 * directory, the program that was started, and this package itself.
 *
 * @throws InvalidOptionsError for a URL without a scheme, or a package that is no backend; {@link BackendNotInstalledError}
 *   with the command that installs it; {@link BackendNotLoadedError} for one that is installed and does not load, or is of
 *   another version; and whatever opening throws.
 * @example const store = await openChatStore("sqlite:./chat.db");
 * @example const store = await openChatStore({ url: process.env.REDIS_URL, ttl: 30 * 24 * 3600 * 1000 });
 * @example const store = await openChatStore({ backend: redisChatStore, url: process.env.REDIS_URL }); // in a bundle
 */
export async function openChatStore<Message extends object = ChatMessage>(
  source?: string | ChatStoreConfig,
): Promise<ChatStore<Message>> {
  const { backend, ...options } = configOf(source);
  const { name, factory } =
    typeof backend === "function"
      ? { name: "The given factory", factory: backend }
      : await loadFactory(backend ?? backendOf(options.url, source), backend === undefined);
  const store = factory(options) as unknown as ChatStore<Message>;
  checkStore(store, name);
  try {
    await store.open();
  } catch (error) {
    // Nobody else holds it: what it goes on doing would keep the process from ending.
    if (!options.shared) await store.close().catch(() => undefined);
    throw error;
  }
  return store;
}

function configOf(source: string | ChatStoreConfig | undefined): ChatStoreConfig {
  const given = source ?? process.env["CHATSTORE_URL"];
  if (given === undefined || given === "") {
    throw new InvalidOptionsError(
      'Which chat store? Set CHATSTORE_URL, or give a URL ("sqlite:./chat.db") or { backend: "sqlite" }',
    );
  }
  if (typeof given === "string") return { url: given };
  if (typeof given !== "object" || Array.isArray(given)) {
    throw new InvalidOptionsError(
      `openChatStore takes a URL or a configuration, not a value of type ${typeof given}`,
    );
  }
  return given;
}

/** The name that a URL's scheme gives. The URL is not shown: without a scheme nothing tells where its password begins. */
function backendOf(url: unknown, source: unknown): string {
  const scheme = typeof url === "string" ? schemeOf(url, pathSchemes) : undefined;
  if (scheme !== undefined) {
    const name = scheme.replace(/\+.*/, "");
    return backendOfScheme[name] ?? name;
  }
  const what =
    source === undefined
      ? "CHATSTORE_URL"
      : typeof url === "string"
        ? "The URL"
        : "The configuration";
  const hint =
    typeof url === "string" && /^["'\s]/.test(url)
      ? " (it begins with a quote or white space)"
      : "";
  throw new InvalidOptionsError(
    `${what} names no backend${hint}: a URL begins with a scheme, as in sqlite:./chat.db or ` +
      `redis://user:password@localhost:6379. Known schemes: ${known} Another one, x:, is that of the package @chatstore/x ` +
      "or chatstore-x",
  );
}

interface Loaded {
  /** For error messages. */
  readonly name: string;
  readonly factory: ChatStoreFactory;
}

async function loadFactory(name: unknown, isScheme: boolean): Promise<Loaded> {
  if (typeof name !== "string" || name === "") {
    throw new InvalidOptionsError("backend must be a name, a path or a factory");
  }
  if (name === "memory") return { name, factory: memoryChatStore };
  const specifiers = packagesOf(name, isScheme);
  for (const specifier of specifiers) {
    const installed = findInstalled(specifier);
    if (installed !== undefined) return load(installed);
  }
  if (isPath(name)) throw new InvalidOptionsError(`There is no backend module ${name}`);
  const [first = name, second = first] = specifiers;
  const from = places().map(({ name: place, folder }) => `${place} (${folder})`);
  throw new BackendNotInstalledError(
    own.has(name) ? first : second,
    `Looked for ${specifiers.join(", ")} from ${from.join(", ")}`,
  );
}

/** Where a backend of this name may be: a plain name is that of a scheme before it is a package's. */
function packagesOf(name: string, isScheme: boolean): readonly string[] {
  const conventional = [`@chatstore/${name}`, `chatstore-${name}`];
  if (isScheme) return conventional;
  return /^[a-z][a-z0-9.-]*$/.test(name) && !name.startsWith("chatstore-")
    ? [...conventional, name]
    : [name];
}

async function load({ specifier, url }: Installed): Promise<Loaded> {
  let module: { readonly default?: unknown };
  try {
    // A bundler shall leave it alone: what is installed is known when it runs.
    module = await import(
      /* webpackIgnore: true */ /* turbopackIgnore: true */ /* @vite-ignore */ url
    );
  } catch (cause) {
    throw new BackendNotLoadedError(specifier, reasonOf(cause), { cause });
  }
  const exported = module.default;
  // What a compiler made of `export default` in a CommonJS module is a property of its default export.
  const factory =
    typeof exported === "object" && exported !== null && "default" in exported
      ? exported.default
      : exported;
  if (typeof factory !== "function") {
    throw new InvalidOptionsError(
      `${specifier} (${url}) is no Chatstore backend: its default export is not a factory. ` +
        "A backend named x is looked for in @chatstore/x and chatstore-x first",
    );
  }
  return { name: specifier, factory: factory as ChatStoreFactory };
}

function reasonOf(cause: unknown): string {
  return cause instanceof Error ? (cause.message.split("\n")[0] ?? "") : String(cause);
}

/** A package of another version makes stores that lack what applications of this one call. */
function checkStore(store: unknown, name: string): void {
  if (typeof store !== "object" || store === null || !("open" in store)) {
    throw new InvalidOptionsError(
      `${name} is no Chatstore backend: its factory made no chat store`,
    );
  }
  const missing = Object.getOwnPropertyNames(ChatStore.prototype).filter(
    (each) => !(each in store),
  );
  if (missing.length > 0) {
    throw new BackendNotLoadedError(
      name,
      `its stores have no ${missing.join(", ")}. It is of another version than @chatstore/core: install the same of both`,
    );
  }
}
