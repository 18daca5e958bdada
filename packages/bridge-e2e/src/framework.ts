import type { tool } from "@llamaindex/core/tools";

/** LlamaIndex as a value, so that the same conversations can be held with any version of it. */
export interface Framework {
  readonly llamaindex: typeof import("llamaindex");
  readonly workflow: typeof import("@llamaindex/workflow");
  readonly tool: typeof tool;
}
