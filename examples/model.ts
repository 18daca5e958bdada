import type { BaseEmbedding, ToolCallLLM } from "llamaindex";
import { OfflineEmbedding, OfflineModel } from "./offline-model.ts";

/**
 * Put your model here, for example one of these:
 *
 *     import { openai } from "@llamaindex/openai";
 *     export const llm = openai({ model: "gpt-4.1-mini" });
 *
 *     import { ollama } from "@llamaindex/ollama";
 *     export const llm = ollama({ model: "llama3.2" });
 *
 * Install a version of it that needs the `@llamaindex/core` that you have: `npm ls @llamaindex/core` must name one only.
 */
export const llm: ToolCallLLM = new OfflineModel();

/** For the index of chat-engine.ts: `new OpenAIEmbedding()`, `new OllamaEmbedding({ model: "nomic-embed-text" })`. */
export const embedModel: BaseEmbedding = new OfflineEmbedding();
