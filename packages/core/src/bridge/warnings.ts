import type { ChatStore } from "../chat-store.js";

/** What was seen of a store handle. */
interface Observation {
  /** The sessions that were opened, while none of them existed; `undefined` once one did, or after the warning. */
  newKeys: Set<string> | undefined;
  readonly warnings: Set<string>;
}

const observations = new WeakMap<ChatStore, Observation>();

/** So many different sessions, all new, are suspicious. */
const suspiciouslyMany = 20;

function observationOf(store: ChatStore): Observation {
  const observation = observations.get(store) ?? { newKeys: new Set(), warnings: new Set() };
  observations.set(store, observation);
  return observation;
}

/** A key that is made anew for each request is the commonest cause of lost memory. Returns what to warn of. */
export function observeKey(store: ChatStore, key: string, existed: boolean): string[] {
  const observation = observationOf(store);
  const { newKeys } = observation;
  newKeys?.add(key);
  const many = newKeys?.size === suspiciouslyMany && !existed;
  if (existed || many) observation.newKeys = undefined;
  if (!many) return [];
  return [
    `The first ${suspiciouslyMany} sessions that were opened did not exist before (the last one: ${key}). ` +
      "If some of these users have been here before, their memory is lost: check that the session key is made of ids " +
      "that stay the same (a user's id from your database; not a random id, a time or a socket's id made for each " +
      "request), and that the store is the same at each start (path, URL, prefix)",
  ];
}

/** Warn of the same thing once per store handle. */
export function warnOnce(
  store: ChatStore,
  warning: string,
  onWarning: (warning: string) => void,
): void {
  const { warnings } = observationOf(store);
  if (warnings.has(warning)) return;
  warnings.add(warning);
  onWarning(warning);
}

/** What is warned of when nobody listens. */
export function warn(message: string): void {
  process.emitWarning(message, "ChatstoreWarning");
}
