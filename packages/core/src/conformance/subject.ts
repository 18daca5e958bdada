import { randomBytes } from "node:crypto";
import { isAbsolute } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import type { TestContext } from "vitest";
import type { Capabilities } from "../backend.js";
import type { ChatStore } from "../chat-store.js";
import { type SessionKey, sessionKey } from "../session-key.js";
import type { ChatStoreOptions } from "../store-types.js";
import { Child } from "./child.js";
import { callStore, type Handle, type Opening, toHandle } from "./remote.js";
import { type Routine, routines } from "./routines.js";
import { onTestFinished } from "./tools.js";

/** How to open a store, here and in child processes. */
export interface SubjectOptions {
  /** The backend's name, as the report shows it. */
  readonly name: string;
  /** The built module that exports the factory: a URL, an absolute path, or a package's name. */
  readonly module: URL | string;
  /** Name of the factory, for example `redisChatStore`. */
  readonly factory: string;
  /**
   * The factory's options for a namespace, as plain JSON. The same namespace twice: the same data. Another one: none of
   * it. Namespaces match `[a-z][a-z0-9_]{0,30}`. The suite adds `ttl`, `timeout` and `limits`.
   */
  readonly options: (namespace: string) => Readonly<Record<string, unknown>>;
  /**
   * Options with which the engine cannot be reached, for example a port where nobody listens; with the password
   * `hunter2-canary`, where they take one: no error may tell it. Without them the tests of an absent engine are skips.
   */
  readonly unreachable?: Readonly<Record<string, unknown>> | undefined;
  readonly hooks?: ConformanceHooks | undefined;
  /**
   * Role and text of a message stand in the engine as they are, for people who look there. Default: false, of a store that
   * encrypts or compresses. Needs the `dump` hook.
   */
  readonly readable?: boolean | undefined;
}

/**
 * What the suite can see of the engine beside the store, so that a backend does not vouch for itself. All run in the
 * test's process. Without a hook, the tests that need it are visible skips that name it.
 */
export interface ConformanceHooks {
  /**
   * All that the engine holds of a namespace, live or orphaned, as text that was read outside the store; decrypted and
   * decompressed, where a store encrypts or compresses.
   */
  readonly dump?: (namespace: string) => Promise<string>;
  /** Replace a text in the namespace's stored messages, behind the store's back. */
  readonly tamper?: (namespace: string, search: string, replacement: string) => Promise<void>;
  /** Cut all connections of the engine, as a restart or a network failure does. New ones work. */
  readonly cutConnections?: (namespace: string) => Promise<void>;
  /** Take the engine away while `during` runs: connections break, and new ones are refused or never answered. */
  readonly outage?: (namespace: string, during: () => Promise<unknown>) => Promise<void>;
  /**
   * While `run` runs, let the engine carry out its nth request, run `meanwhile`, and break the connection without an answer.
   * Resolves to whether there were so many requests.
   */
  readonly loseAnswer?: (
    namespace: string,
    nth: number,
    run: () => Promise<unknown>,
    meanwhile: () => Promise<unknown>,
  ) => Promise<boolean>;
  /** How many round trips to the engine `run` makes. */
  readonly roundTrips?: (namespace: string, run: () => Promise<unknown>) => Promise<number>;
  /** How much stored data `run` makes the engine look at: rows, keys, documents or bytes. */
  readonly work?: (namespace: string, run: () => Promise<unknown>) => Promise<number>;
  /** How many connections, or open files, this process has to the engine. */
  readonly connections?: (namespace: string) => Promise<number>;
  /** End the engine's processes at once (`SIGKILL`), and start them again on the same data. */
  readonly crash?: (namespace: string) => Promise<void>;
  /** The names of all that `open()` makes in the engine for a namespace: tables, indexes, collections. */
  readonly schema?: (namespace: string) => Promise<string>;
  /** Let the stored schema say that it is of a version that is not out yet. */
  readonly newerSchema?: (namespace: string) => Promise<void>;
  /** Remove a namespace and all that is in it. Runs once for each, after all tests. */
  readonly drop?: (namespace: string) => Promise<void>;
}

type Factory = (options: ChatStoreOptions) => ChatStore;

/** The backend under test. */
export class Subject {
  readonly name: string;
  readonly hooks: ConformanceHooks;
  readonly unreachable: Readonly<Record<string, unknown>> | undefined;
  /** As the store itself declares them. */
  readonly capabilities: Capabilities;
  readonly readable: boolean;
  readonly #options: SubjectOptions;
  readonly #namespaces: string[] = [];
  readonly #factory: Factory;
  readonly #run = randomBytes(4).toString("hex");
  readonly #pool: Child[] = [];
  #count = 0;

  constructor(options: SubjectOptions, factory: Factory, capabilities: Capabilities) {
    this.name = options.name;
    this.hooks = options.hooks ?? {};
    this.unreachable = options.unreachable;
    this.capabilities = capabilities;
    this.readable = options.readable ?? false;
    this.#options = options;
    this.#factory = factory;
  }

  /** A namespace that nobody used. */
  namespace(): string {
    const namespace = `t${this.#run}_${++this.#count}`;
    this.#namespaces.push(namespace);
    return namespace;
  }

  /** A user that nobody used, so that tests in one namespace do not meet. */
  user(): string {
    return `user-${this.#run}-${++this.#count}`;
  }

  /** A session that nobody used. */
  key(conversation?: string): SessionKey {
    return sessionKey({ tenant: "acme", user: this.user(), conversation });
  }

  /** A store in this process; closed after the test. */
  open(namespace: string, options: ChatStoreOptions = {}): ChatStore {
    return this.openWith(this.optionsOf(namespace, options));
  }

  /** A store with options of one's own; closed after the test. */
  openWith(options: object): ChatStore {
    const store = this.#factory({ onWarning: () => {}, ...options });
    // What a test left to fail is the test's affair; a store that does not close must not hang the others.
    onTestFinished(() => settled(store.close()));
    return store;
  }

  /** A {@link Handle} on a store in this process; closed after the test. */
  near(namespace: string, options: ChatStoreOptions = {}): Handle {
    return toNear(this.open(namespace, options));
  }

  /** A handle in another process where the store can do that, otherwise a second one here; closed after the test. */
  async far(namespace: string, options: ChatStoreOptions = {}): Promise<Handle> {
    return (await this.handles(namespace, 2, options))[1] as Handle;
  }

  /** Several handles on the same data: in as many processes where the store can do that. */
  async handles(
    namespace: string,
    count: number,
    options: ChatStoreOptions = {},
  ): Promise<Handle[]> {
    if (!this.capabilities.multiProcess) {
      return Array.from({ length: count }, () => this.near(namespace, options));
    }
    const far = Array.from({ length: count - 1 }, async (_, index) => {
      const pooled = this.#pool[index];
      const child = pooled?.alive ? pooled : Child.start();
      this.#pool[index] = child;
      const handle = await child.open(this.opening(namespace, options));
      onTestFinished(() => settled(handle.close()));
      return handle;
    });
    return [this.near(namespace, options), ...(await Promise.all(far))];
  }

  /** A process of its own, to be killed or to have a wrong clock; killed after the test at the latest. */
  child(clockSkew = 0): Child {
    const child = Child.start(clockSkew);
    onTestFinished(() => child.kill());
    return child;
  }

  /** The options that open a namespace anywhere. A slow machine is no failing engine: `timeout` is long. */
  optionsOf(namespace: string, options: ChatStoreOptions = {}): object {
    return { ...this.#options.options(namespace), timeout: 30_000, ...options };
  }

  /** How a child process opens a namespace. */
  opening(namespace: string, options: ChatStoreOptions = {}): Opening {
    const { module, factory } = this.#options;
    return { module: moduleOf(module), factory, options: this.optionsOf(namespace, options) };
  }

  /** End what was started, and remove what was written. */
  async dispose(): Promise<void> {
    await Promise.all(this.#pool.map((child) => child.kill()));
    for (const namespace of this.#namespaces) await this.hooks.drop?.(namespace);
  }
}

/** Import the backend and ask it what it promises. */
export async function loadSubject(options: SubjectOptions): Promise<Subject> {
  const exports = (await import(/* @vite-ignore */ moduleOf(options.module))) as object;
  const factory = (exports as Record<string, unknown>)[options.factory];
  if (typeof factory !== "function") {
    throw new TypeError(`${options.module} exports no function ${options.factory}`);
  }
  const namespace = `t${randomBytes(4).toString("hex")}_0`;
  const probe = (factory as Factory)({ ...options.options(namespace), onWarning: () => {} });
  await probe.open();
  const { capabilities } = probe;
  await settled(probe.close());
  await options.hooks?.drop?.(namespace);
  return new Subject(options, factory as Factory, capabilities);
}

/** A store in this process as a {@link Handle}. */
export function toNear(store: ChatStore): Handle {
  return toHandle((method, args) => callStore(store, method, args), ((
    name: keyof typeof routines,
    args: unknown,
    onEmit = () => {},
  ) => (routines[name] as Routine)(store, args, onEmit)) as Handle["run"]);
}

/** Skip a test visibly when the subject has not the hook that it needs. */
export function need<T>(context: TestContext, hook: T | undefined, name: string): T {
  if (hook === undefined) context.skip(`needs the ${name} hook`);
  return hook as T;
}

function moduleOf(module: URL | string): string {
  if (module instanceof URL) return module.href;
  return isAbsolute(module) ? pathToFileURL(module).href : module;
}

/** Wait until it settled, whichever way, but not for ever. */
async function settled(promise: Promise<unknown>): Promise<void> {
  await Promise.race([promise.catch(() => undefined), delay(5_000, undefined, { ref: false })]);
}
