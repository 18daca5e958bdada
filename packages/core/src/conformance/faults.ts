/** Failures between a store and its backend, at exactly the call that a test names: whatever the engine. */
import type { ChatStore } from "../chat-store.js";
import { BackendError } from "../errors.js";
import { backendOf } from "../store-backend.js";

/** What becomes of one call. */
export interface Fault {
  /** `lost`: it happens, and its answer never arrives. `refused`: it does not happen, and says so. */
  readonly fate: "lost" | "refused";
  /** What happens before anybody hears of the failure. */
  readonly then?: (() => Promise<unknown>) | undefined;
}

const writes = ["append", "edit", "replace", "erase"] as const;

/** Let the next calls of the backend that write fail so, one after the other. Later ones go through. */
export function failWrites(store: ChatStore, faults: readonly Fault[]): void {
  const backend = backendOf(store);
  const left = [...faults];
  for (const name of writes) {
    const sound = backend[name].bind(backend) as (...args: unknown[]) => Promise<unknown>;
    const failing = async (...args: unknown[]) => {
      const fault = left.shift();
      if (fault === undefined) return sound(...args);
      if (fault.fate === "lost") await sound(...args);
      await fault.then?.();
      const outcome = fault.fate === "lost" ? "unknown" : "not-applied";
      throw new BackendError("The line is down", { retryable: true, outcome });
    };
    Object.assign(backend, { [name]: failing });
  }
}
