/** The providers, each as LlamaIndex's own package reaches it. */
import { Anthropic, AnthropicSession } from "@llamaindex/anthropic";
import type { ToolCallLLM } from "@llamaindex/core/llms";
import { GEMINI_MODEL, Gemini } from "@llamaindex/google";
import { MistralAI } from "@llamaindex/mistral";
import { Ollama } from "@llamaindex/ollama";
import { OpenAI } from "@llamaindex/openai";
import { Mistral } from "@mistralai/mistralai";
import { anthropic } from "./anthropic.js";
import { gemini } from "./gemini.js";
import { mistral } from "./mistral.js";
import { ollama } from "./ollama.js";
import { openai } from "./openai.js";
import { type FakeApi, serve } from "./server.js";

export const providerNames = ["openai", "anthropic", "gemini", "mistral", "ollama"] as const;
export type ProviderName = (typeof providerNames)[number];

/** Where each API is. */
export type Urls = Readonly<Record<ProviderName, string>>;

const apiKey = "none";

/** A new model of each provider. */
export function modelsAt(urls: Urls): Record<ProviderName, ToolCallLLM> {
  const session = new AnthropicSession({ apiKey, baseURL: urls.anthropic, maxRetries: 0 });
  const mistralAI = new MistralAI({ model: "mistral-large-latest", apiKey });
  // It takes no address.
  Object.assign(mistralAI, {
    session: { getClient: async () => new Mistral({ apiKey, serverURL: urls.mistral }) },
  });
  return {
    openai: new OpenAI({ model: "gpt-4o", apiKey, baseURL: `${urls.openai}/v1`, maxRetries: 0 }),
    anthropic: new Anthropic({ model: "claude-3-5-sonnet", session }),
    gemini: new Gemini({
      model: GEMINI_MODEL.GEMINI_2_0_FLASH,
      apiKey,
      httpOptions: { baseUrl: urls.gemini },
    }),
    mistral: mistralAI,
    ollama: new Ollama({ model: "llama3.1", config: { host: urls.ollama } }),
  };
}

export type FakeApis = Readonly<Record<ProviderName, FakeApi<unknown>>>;

/** Serve them all. */
export async function serveAll(): Promise<FakeApis> {
  return {
    openai: await serve(openai),
    anthropic: await serve(anthropic),
    gemini: await serve(gemini),
    mistral: await serve(mistral),
    ollama: await serve(ollama),
  } as FakeApis;
}

export function urlsOf(apis: FakeApis): Urls {
  return Object.fromEntries(providerNames.map((name) => [name, apis[name].url])) as unknown as Urls;
}
