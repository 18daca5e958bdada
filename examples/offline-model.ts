import { randomUUID } from "node:crypto";
import { setTimeout } from "node:timers/promises";
import {
  BaseEmbedding,
  type BaseTool,
  type ChatMessage,
  type ChatResponse,
  type ChatResponseChunk,
  extractText,
  type LLMChatParamsNonStreaming,
  type LLMChatParamsStreaming,
  type ToolCall,
  ToolCallLLM,
  type ToolResult,
} from "llamaindex";

/**
 * A stand-in for a language model, so that the examples need no key and no network. Like a real one it knows nothing but the
 * messages that it is given: it repeats what the user said and the tools found, and calls each tool for the newest number
 * that the user named, unless it sees that this was done.
 */
export class OfflineModel extends ToolCallLLM {
  override readonly supportToolCall = true;
  override readonly metadata = {
    model: "offline",
    temperature: 0,
    topP: 1,
    contextWindow: 128_000,
    tokenizer: undefined,
    structuredOutput: false,
  };

  override chat(params: LLMChatParamsStreaming): Promise<AsyncIterable<ChatResponseChunk>>;
  override chat(params: LLMChatParamsNonStreaming): Promise<ChatResponse>;
  override async chat(
    params: LLMChatParamsStreaming | LLMChatParamsNonStreaming,
  ): Promise<AsyncIterable<ChatResponseChunk> | ChatResponse> {
    const message = answer(params.messages, params.tools ?? []);
    return params.stream ? speak(message) : { message, raw: null };
  }
}

type Message = ChatMessage<{ toolCall?: ToolCall[]; toolResult?: ToolResult }>;

function answer(messages: readonly Message[], tools: readonly BaseTool[]) {
  const results = messages.flatMap(({ options }) => options?.toolResult?.result ?? []);
  const said = messages
    .filter(({ role, options }) => role === "user" && options?.toolResult === undefined)
    .map(({ content }) => extractText(content));

  const done = messages
    .flatMap(({ options }) => options?.toolCall ?? [])
    .map(({ name, input }) => JSON.stringify([name, input]));
  const [number] = said.flatMap((text) => text.match(/\d+/g) ?? []).slice(-1);
  const [call] = tools
    .map(({ metadata: { name, parameters } }) => {
      const names = Object.keys((parameters as { properties: object }).properties);
      return { name, input: Object.fromEntries(names.map((one) => [one, number ?? ""])) };
    })
    .filter(({ name, input }) => !done.includes(JSON.stringify([name, input])));

  if (number !== undefined && call !== undefined) {
    const options = { toolCall: [{ id: randomUUID(), ...call }] };
    return { role: "assistant" as const, content: "", options };
  }
  const quote = (texts: string[]) => texts.map((text) => `“${text}”`).join(", ");
  const found = results.length > 0 ? ` I found ${quote(results)}.` : "";
  return { role: "assistant" as const, content: `You said ${quote(said)}.${found}`, options: {} };
}

async function* speak({ content, options }: ReturnType<typeof answer>) {
  for (const delta of content.split(/(?<= )/)) {
    await setTimeout(10);
    yield { delta, options, raw: null };
  }
}

/** Texts are alike that have the same letters. */
export class OfflineEmbedding extends BaseEmbedding {
  // biome-ignore lint/complexity/noUselessConstructor: the inherited one is protected
  constructor() {
    super();
  }

  override async getTextEmbedding(text: string): Promise<number[]> {
    const letters = [..."abcdefghijklmnopqrstuvwxyz"];
    return letters.map((letter) => text.toLowerCase().split(letter).length);
  }
}
