import type { ChatStoreBackend } from "./backend.js";
import type { ChatStore } from "./chat-store.js";

const backends = new WeakMap<ChatStore, ChatStoreBackend>();

/** Remember what a store is made over. */
export function setBackend(store: ChatStore, backend: ChatStoreBackend): void {
  backends.set(store, backend);
}

/** The backend under a store: for the conformance suite, which lets it fail. */
export function backendOf(store: ChatStore): ChatStoreBackend {
  const backend = backends.get(store);
  if (backend !== undefined) return backend;
  throw new TypeError(
    "The store was made by another copy of @chatstore/core than the suite's: install one",
  );
}
