/**
 * OpenAI's responses alone, without LlamaIndex's packages.
 *
 * @packageDocumentation
 */
export type { Answer, Seen } from "./model.js";
export { openaiResponses, type ResponsesBody } from "./openai-responses.js";
export { type FakeApi, serve } from "./server.js";
