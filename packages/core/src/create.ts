import type { ChatStoreBackend } from "./backend.js";
import { ChatStore, type ChatStoreOptions } from "./chat-store.js";
import { InvalidOptionsError } from "./errors.js";
import { processWide } from "./process-wide.js";

/** So many open stores with the same options look like one per request. */
const manyOpen = 10;
/** Of so many different options the open stores are counted. */
const maxCounted = 1_000;

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
 * @throws InvalidOptionsError when `shared` options are not plain data: an own client has no identity that survives a reload.
 *   The listeners `onError` and `onWarning` may be given; those of the first call are the handle's.
 */
export function createChatStore<Options extends object = object>(
  name: string,
  options: ChatStoreOptions,
  createBackend: () => ChatStoreBackend,
): ChatStore<Options> {
  if (!options.shared) return new ChatStore(counted(name, options, createBackend()), options);
  const stores = processWide("shared", () => new Map<string, ChatStore<Options>>());
  const identity = `${name} ${identify(options)}`;
  const existing = stores.get(identity);
  if (existing !== undefined && !existing.closed) return existing;
  const store = new ChatStore<Options>(createBackend(), options);
  stores.set(identity, store);
  return store;
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
    return JSON.stringify(canonical(options, "options", []));
  } catch (error) {
    if (error instanceof InvalidOptionsError) throw error;
    throw new InvalidOptionsError("shared: true needs options of plain data, these cannot be read");
  }
}

function canonical(value: unknown, path: string, ancestors: readonly unknown[]): unknown {
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
  const within = [...ancestors, value];
  if (Array.isArray(value)) {
    return Array.from(value, (item, index) => canonical(item, `${path}[${index}]`, within));
  }
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) throw refuse("an object of a class");
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return members
    .filter(([, member]) => member !== undefined)
    .map(([name, member]) => [name, canonical(member, `${path}.${name}`, within)]);
}
