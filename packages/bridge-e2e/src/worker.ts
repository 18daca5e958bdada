/** The child process with the LlamaIndex that this package is installed with. */
import { tool } from "@llamaindex/core/tools";
import * as workflow from "@llamaindex/workflow";
import * as llamaindex from "llamaindex";
import { serve } from "./serve.js";

await serve({ llamaindex, workflow, tool });
