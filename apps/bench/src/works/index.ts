/** Everything that is measured, in the order of the table. */
import type { Arena } from "../arena.js";
import type { Entry } from "../entry.js";
import type { Effort } from "../measure.js";
import { conversationWorks } from "./conversation.js";
import { list } from "./list.js";
import { holdOpen, longGetLLM, openWindow } from "./memory.js";
import { importTime, size } from "./package.js";
import { bytesStored, exportAll } from "./storage.js";
import { togetherWorks } from "./together.js";

/** Work on a backend. */
export interface Work {
  /** As in `--work` and in the result. */
  readonly name: string;
  run(arena: Arena): Promise<readonly Entry[]>;
}

/** Work that needs no engine. */
export interface CoreWork {
  readonly name: string;
  run(how: { readonly effort: Effort; readonly quick: boolean }): Promise<readonly Entry[]>;
}

/** What peers do, too. */
export const comparedWorks: readonly Work[] = [
  ...conversationWorks,
  ...togetherWorks,
  list,
  bytesStored,
];

export const works: readonly Work[] = [...comparedWorks, openWindow, holdOpen, exportAll];

export const coreWorks: readonly CoreWork[] = [longGetLLM, importTime, size];
