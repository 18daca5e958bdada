import { processWide } from "../process-wide.js";

/** Writes that wait in front of a store, because an attempt at them is under way or has failed. */
export interface Backlog {
  /** Write all of it. Rejects with what failed, and keeps that. */
  attempt(): Promise<void>;
}

const backlogs = processWide("backlogs", () => new WeakMap<object, Map<string, Backlog>>());

/** The backlogs of a store, by session. Bridges keep them; the store's `flush()` and `close()` write them. */
export function backlogsOf(store: object): Map<string, Backlog> {
  let found = backlogs.get(store);
  if (found === undefined) {
    found = new Map();
    backlogs.set(store, found);
  }
  return found;
}

/** Write all that waits in front of a store. Resolves to what failed. */
export async function writeBacklogs(store: object): Promise<unknown[]> {
  const attempts = [...backlogsOf(store).values()].map((backlog) => backlog.attempt());
  const outcomes = await Promise.allSettled(attempts);
  return outcomes.flatMap((one) => (one.status === "rejected" ? [one.reason] : []));
}
