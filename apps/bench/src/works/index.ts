/** Everything that is measured, in the order of the table. */
import type { Arena } from "../arena.js";
import type { Entry } from "../entry.js";
import { conversationWorks } from "./conversation.js";

export interface Work {
  /** As in `--work` and in the result. */
  readonly name: string;
  run(arena: Arena): Promise<readonly Entry[]>;
}

/** Of each backend. */
export const works: readonly Work[] = [...conversationWorks];
