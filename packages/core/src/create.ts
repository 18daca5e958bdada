import type { ChatStoreBackend } from "./backend.js";
import { ChatStore, type ChatStoreOptions } from "./chat-store.js";
import { InvalidOptionsError } from "./errors.js";
import { processWide } from "./process-wide.js";

/**
 * What every backend's factory returns. With `shared: true` it returns one handle per set of options in this process, also
 * across the hot reloads of a development server, which evaluates modules again but keeps `globalThis`. A handle that was
 * closed is made anew.
 *
 * @param name The backend's name.
 * @throws InvalidOptionsError when `shared` options are not plain data: an own client has no identity that survives a reload.
 */
export function createChatStore<Options extends object = object>(
  name: string,
  options: ChatStoreOptions,
  createBackend: () => ChatStoreBackend,
): ChatStore<Options> {
  if (!options.shared) return new ChatStore(createBackend(), options);
  const stores = processWide("shared", () => new Map<string, ChatStore<Options>>());
  const identity = `${name} ${JSON.stringify(options, plainData)}`;
  const existing = stores.get(identity);
  if (existing !== undefined && !existing.closed) return existing;
  const store = new ChatStore<Options>(createBackend(), options);
  stores.set(identity, store);
  return store;
}

function plainData(name: string, value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  if (Object.getPrototypeOf(value) === Object.prototype) return value;
  throw new InvalidOptionsError(
    `shared: true needs options of plain data, but ${name} is an object of a class`,
  );
}
