import type { ChatStore, ChatStoreBackend, ChatStoreOptions } from "@chatstore/core";
import type { Guarantee } from "@chatstore/core/conformance";
import type { Database } from "better-sqlite3";

export interface Defect {
  readonly breaks: Guarantee;
  /** The test that must notice; no other one runs on this store. Absent: any of the guarantee. */
  readonly caughtBy?: string;
  /** What that test must say. Absent: anything. */
  readonly says?: RegExp;
  /** Methods that replace the sound ones. `engine` is a connection of its own to the sound backend's database. */
  readonly backend?: (sound: ChatStoreBackend, engine: () => Database) => Partial<ChatStoreBackend>;
  /** A store that replaces the sound one. */
  readonly store?: new (
    backend: ChatStoreBackend,
    options: ChatStoreOptions,
  ) => ChatStore;
  /** Options that replace the given ones. */
  readonly options?: (options: { path: string }) => { path: string };
  /** What replaces the check of a URL. */
  readonly url?: (url: string) => void;
}

/** What happens when the engine crashes, where a defect is in what it has on its disk by then. */
export const crashing: Set<() => void> = new Set();

/** All methods of a backend, some of them replaced. */
export function delegate(
  backend: ChatStoreBackend,
  replaced: Partial<ChatStoreBackend> = {},
): ChatStoreBackend {
  return {
    name: backend.name,
    capabilities: backend.capabilities,
    open: (...args) => backend.open(...args),
    read: (...args) => backend.read(...args),
    append: (...args) => backend.append(...args),
    edit: (...args) => backend.edit(...args),
    replace: (...args) => backend.replace(...args),
    erase: (...args) => backend.erase(...args),
    list: (...args) => backend.list(...args),
    purge: (...args) => backend.purge(...args),
    close: () => backend.close(),
    ...replaced,
  };
}
