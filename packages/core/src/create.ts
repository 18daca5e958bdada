import { readOptions } from "./arguments.js";
import type { ChatStoreBackend } from "./backend.js";
import { ChatStore } from "./chat-store.js";
import { type ChatStoreError, InvalidOptionsError } from "./errors.js";
import type { ChatMessage } from "./messages.js";
import { processWide } from "./process-wide.js";
import { show } from "./show.js";
import type { ChatStoreOptions } from "./store-types.js";

/** The names of a backend's own options: all of them, each `true`. */
export type OwnOptions<Options extends ChatStoreOptions> = Readonly<
  Record<Exclude<keyof Options, keyof ChatStoreOptions>, true>
>;

const commonOptions: Readonly<Record<keyof ChatStoreOptions, true>> = {
  ttl: true,
  timeout: true,
  migrate: true,
  limits: true,
  shared: true,
  onError: true,
  onWarning: true,
};

/** So many open stores with the same options look like one per request. */
const manyOpen = 10;
/** Of so many different options the open stores are counted. */
const maxCounted = 1_000;

/** Objects and items in options; shared references could make any number of them. */
const maxOptions = 10_000;

/** Stores of this process that were made with the same options. */
interface Count {
  open: number;
  warned: boolean;
}

/**
 * What every backend's factory returns. With `shared: true` it returns one handle per set of options in this process, also
 * across the hot reloads of a development server, which evaluates modules again but keeps `globalThis`. A handle that was
 * closed is made anew. Without it, each call makes a store with connections of its own; ten of them at once with the same options
 * are a warning, once.
 *
 * @param name The backend's name.
 * @param own The names of the backend's own options. Unknown ones are refused: a misspelt one would do nothing.
 * @param createBackend Gets the options that were given, each read once.
 * @throws InvalidOptionsError for unknown options, and when `shared` ones are not plain data: an own client has no identity
 *   that survives a reload. The listeners `onError` and `onWarning` may be given; those of the first call are the handle's.
 * @example createChatStore("dynamo", options, { table: true }, (given) => new DynamoBackend(given))
 */
export function createChatStore<
  Options extends ChatStoreOptions,
  Message extends object = ChatMessage,
>(
  name: string,
  options: Options | undefined,
  own: OwnOptions<Options>,
  createBackend: (options: Options) => ChatStoreBackend,
): ChatStore<Message> {
  // Of `shared` options the first thing to say is that a client cannot be shared.
  const identity = isShared(options) ? `${name} ${identify(options)}` : undefined;
  const names = Object.keys({ ...own, ...commonOptions });
  const given = readOptions<Options>(`the options of the ${name} store`, options, names);
  if (identity === undefined) {
    return new ChatStore<Message>(
      counted(name, given, backendFrom(name, given, createBackend)),
      given,
    );
  }
  const stores = processWide("shared", () => new Map<string, ChatStore<Message>>());
  const existing = stores.get(identity);
  if (existing !== undefined && !existing.closed) return existing;
  const store = new ChatStore<Message>(backendFrom(name, given, createBackend), given);
  stores.set(identity, store);
  return store;
}

/** A backend looks at values that may be anything: where it stumbles over one, the caller is told of all. None is printed. */
function backendFrom<Options extends ChatStoreOptions>(
  name: string,
  given: Options,
  createBackend: (options: Options) => ChatStoreBackend,
): ChatStoreBackend {
  try {
    return createBackend(given);
  } catch (error) {
    // Also one of another copy of core.
    if (typeof readable(() => (error as Partial<ChatStoreError>).retryable) === "boolean")
      throw error;
    const kinds = Object.entries(given)
      .filter(([option]) => !Object.hasOwn(commonOptions, option))
      .map(
        ([option, value]) => `${option} is ${typeof value === "string" ? "a text" : show(value)}`,
      );
    throw new InvalidOptionsError(
      `No ${name} store can be made with these options: ${kinds.join(", ")}. One of them is not what it should be, or cannot be read`,
    );
  }
}

function isShared(options: ChatStoreOptions | undefined): options is ChatStoreOptions {
  const shared: unknown = readable(() => options?.shared);
  if (shared === undefined || typeof shared === "boolean") return shared === true;
  throw new InvalidOptionsError(`shared is ${show(shared)}; it must be true or false`);
}

function readable<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined; // readOptions() says so
  }
}

/** Count the backend until it is closed, and warn where somebody seems to make one for each request. */
function counted(
  name: string,
  options: ChatStoreOptions,
  backend: ChatStoreBackend,
): ChatStoreBackend {
  let identity: string;
  try {
    identity = `${name} ${identify(options)}`;
  } catch {
    return backend; // a client of somebody's own: nothing is opened for it
  }
  if (backend.capabilities.survives === "nothing") return backend; // nothing is open
  const counts = processWide("open stores", () => new Map<string, Count>());
  if (counts.size >= maxCounted) counts.clear();
  const count = counts.get(identity) ?? { open: 0, warned: false };
  counts.set(identity, count);
  count.open++;
  if (count.open >= manyOpen && !count.warned) {
    count.warned = true;
    const warning =
      `${count.open} open ${name} stores were made with the same options, each with connections of its own: make one when the ` +
      "application starts and keep it, give shared: true, or close() each";
    if (options.onWarning === undefined) process.emitWarning(warning, "ChatstoreWarning");
    else options.onWarning(warning);
  }
  const close = backend.close.bind(backend);
  let isOpen = true;
  backend.close = () => {
    if (isOpen) count.open--;
    isOpen = false;
    return close();
  };
  return backend;
}

/** What tells options apart: equal for equal data, in whatever order. */
function identify({ onError, onWarning, shared, ...options }: ChatStoreOptions): string {
  try {
    return JSON.stringify(canonical(options, "options", [], { values: 0 }));
  } catch (error) {
    if (error instanceof InvalidOptionsError) throw error;
    throw new InvalidOptionsError("shared: true needs options of plain data, these cannot be read");
  }
}

function canonical(
  value: unknown,
  path: string,
  ancestors: readonly unknown[],
  seen: { values: number },
): unknown {
  const refuse = (what: string) =>
    new InvalidOptionsError(
      `shared: true needs options of plain data, but ${path} is ${what}: make the store once yourself, and keep it`,
    );
  if (typeof value === "number") return Number.isFinite(value) ? value : [String(value)];
  if (typeof value === "bigint" || typeof value === "function" || typeof value === "symbol") {
    throw refuse(`a ${typeof value}`);
  }
  if (typeof value !== "object" || value === null) return value;
  if (ancestors.includes(value)) throw refuse("part of itself");
  if (++seen.values > maxOptions) throw refuse("more than options are");
  const within = [...ancestors, value];
  if (Array.isArray(value)) {
    if (value.length > maxOptions) throw refuse("more than options are");
    return Array.from(value, (item, index) => canonical(item, `${path}[${index}]`, within, seen));
  }
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) throw refuse("an object of a class");
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return members
    .filter(([, member]) => member !== undefined)
    .map(([name, member]) => [name, canonical(member, `${path}.${name}`, within, seen)]);
}
