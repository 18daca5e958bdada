/**
 * What bridges to frameworks share: the two layers of a message, what of a conversation a model is shown, and the writes of
 * frameworks that drop their promises.
 * For applications there is nothing here.
 *
 * @packageDocumentation
 */
export { throwFailures, WritePromise } from "../write-promise.js";
export { toCanonical } from "./canonical.js";
export {
  arrangeContext,
  cutContext,
  isFromUser,
  isSystem,
  keptInCut,
  leadingSystem,
  type ModelContextOptions,
  modelContext,
  presentContext,
  unfinished,
} from "./context.js";
export { type FilledIn, filledIn } from "./filled-in.js";
export * from "./native.js";
export { type Part, partsOf, readMessages } from "./read.js";
export {
  type SessionWriter,
  type StateChange,
  staysQueued,
  type VersionGuard,
  writerOf,
} from "./session-writer.js";
export { toolResultId } from "./tool-messages.js";
export { inputOf, objectInput, textOf } from "./tool-values.js";
export { upsertMessages } from "./upsert.js";
export { observeKey, warn, warnOnce } from "./warnings.js";
