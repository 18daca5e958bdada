import type { ChatStoreBackend } from "./backend.js";

const backends = new WeakMap<object, ChatStoreBackend>();

/** Remember what a store is made over. */
export function setBackend(store: object, backend: ChatStoreBackend): void {
  backends.set(store, backend);
}

/** The backend under a store: for the conformance suite, which lets it fail. */
export function backendOf(store: object): ChatStoreBackend {
  const backend = backends.get(store);
  if (backend !== undefined) return backend;
  throw new TypeError(
    "The store was made by another copy of @chatstore/core than the suite's: install one",
  );
}
