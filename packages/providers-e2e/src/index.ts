/**
 * Servers that validate requests as OpenAI, Anthropic, Gemini, Mistral and Ollama do, a model behind each, and turns with
 * them through LlamaIndex's own provider packages.
 *
 * @packageDocumentation
 */
export { type AnthropicBody, anthropic, anthropicRules } from "./anthropic.js";
export { type GeminiBody, gemini, geminiRules } from "./gemini.js";
export { type MistralBody, mistral, mistralRules } from "./mistral.js";
export { cities, forecast, type Hold, silent } from "./model.js";
export { type OllamaBody, ollama, ollamaRules } from "./ollama.js";
export { type OpenAIBody, openai, openaiRules } from "./openai.js";
export { openaiResponses, type ResponsesBody, responsesRules } from "./openai-responses.js";
export * from "./providers.js";
export { type Rule, refusal } from "./rules.js";
export { type FakeApi, serve } from "./server.js";
export { talk, type Way, ways } from "./talk.js";
export type { HangingTurn, Work } from "./worker.js";
