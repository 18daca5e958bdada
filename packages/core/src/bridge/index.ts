/**
 * What bridges to frameworks share: the two layers of a message, and the writes of frameworks that drop their promises.
 * For applications there is nothing here.
 *
 * @packageDocumentation
 */
export { throwFailures, WritePromise } from "../write-promise.js";
export { toCanonical } from "./canonical.js";
export { type FilledIn, filledIn } from "./filled-in.js";
export * from "./native.js";
export {
  type SessionWriter,
  type StateChange,
  staysQueued,
  type VersionGuard,
  writerOf,
} from "./session-writer.js";
export { upsertMessages } from "./upsert.js";
export { observeKey, warn, warnOnce } from "./warnings.js";
