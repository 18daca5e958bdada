import type { NewMessage } from "../messages.js";
import { processWide } from "../process-wide.js";

/**
 * What of a message a bridge has filled in, as core does where a caller gives no id or no time: a message with an id made
 * just now cannot be stored yet, and a time made up is no part of what the caller said.
 */
export interface FilledIn {
  readonly id: boolean;
  readonly createdAt: boolean;
}

/** By the message, the very object that the store is given. */
export const filledIn = processWide("filled-in", () => new WeakMap<NewMessage, FilledIn>());
