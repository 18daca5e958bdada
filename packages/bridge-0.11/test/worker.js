/** The child process of bridge-e2e, with this package's LlamaIndex. */
import { serve } from "@chatstore/bridge-e2e";
import { tool } from "@llamaindex/core/tools";
import * as workflow from "@llamaindex/workflow";
import * as llamaindex from "llamaindex";

await serve({ llamaindex, workflow, tool });
