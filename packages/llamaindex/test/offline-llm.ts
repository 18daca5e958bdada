import * as llamaindex from "llamaindex";
import { everyLineIsAFact, offlineLLM } from "../../bridge-e2e/src/offline-llm.ts";

export { type Answer, everyLineIsAFact } from "../../bridge-e2e/src/offline-llm.ts";

/** The model without a network, for this package's LlamaIndex. */
export const OfflineLLM = offlineLLM(llamaindex);
export type OfflineLLM = InstanceType<typeof OfflineLLM>;

export const factLLM = () => new OfflineLLM(everyLineIsAFact);
