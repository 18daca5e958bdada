import type {
  ChatMessage,
  ChatResponse,
  ChatResponseChunk,
  LLMChatParamsNonStreaming,
  LLMChatParamsStreaming,
  LLMMetadata,
  ToolCallLLM,
} from "llamaindex";

/** What a model answers: a text, or calls of tools. */
export type Answer = string | { readonly tool: string; readonly input: object }[];

/** A model without a network: its answer is a function of what it is shown, and it notes what it was shown. */
export interface OfflineLLM extends ToolCallLLM {
  /** The messages of each request. */
  readonly requests: ChatMessage[][];
  /** The texts of the newest request. */
  readonly shown: unknown[];
  /** It answers no earlier. */
  ready: Promise<unknown>;
}

/** By default the model repeats what the user said. */
export type OfflineLLMClass = new (answer?: (messages: ChatMessage[]) => Answer) => OfflineLLM;

/** The class for the LlamaIndex whose `ToolCallLLM` is given. */
export function offlineLLM({
  ToolCallLLM,
}: Pick<typeof import("llamaindex"), "ToolCallLLM">): OfflineLLMClass {
  return class extends ToolCallLLM implements OfflineLLM {
    readonly supportToolCall = true;
    readonly metadata: LLMMetadata = {
      model: "offline",
      temperature: 0,
      topP: 1,
      contextWindow: 8_000,
      tokenizer: undefined,
      structuredOutput: false,
    };
    readonly requests: ChatMessage[][] = [];
    ready: Promise<unknown> = Promise.resolve();
    readonly #answer: (messages: ChatMessage[]) => Answer;

    constructor(answer: (messages: ChatMessage[]) => Answer = repeatWhatWasSaid) {
      super();
      this.#answer = answer;
    }

    get shown(): unknown[] {
      return (this.requests.at(-1) ?? []).map(({ content }) => content);
    }

    override chat(params: LLMChatParamsStreaming): Promise<AsyncIterable<ChatResponseChunk>>;
    override chat(params: LLMChatParamsNonStreaming): Promise<ChatResponse>;
    override async chat(
      params: LLMChatParamsStreaming | LLMChatParamsNonStreaming,
    ): Promise<AsyncIterable<ChatResponseChunk> | ChatResponse> {
      this.requests.push(structuredClone(params.messages));
      await this.ready;
      const answer = this.#answer(params.messages);
      const content = typeof answer === "string" ? answer : "";
      const calls = typeof answer === "string" ? [] : answer;
      const toolCall = calls.map(({ tool, input }, index) => ({
        id: `call-${this.requests.length}-${index}`,
        name: tool,
        input,
      }));
      const options = toolCall.length > 0 ? { options: { toolCall } } : {};
      return params.stream
        ? inChunks(content, options)
        : { message: { role: "assistant", content, ...options }, raw: null };
    }
  };
}

async function* inChunks(content: string, options: object): AsyncGenerator<ChatResponseChunk> {
  for (const word of content.split(/(?<= )/)) yield { delta: word, raw: null, ...options };
}

/** What a model answers by default. */
export function repeatWhatWasSaid(messages: ChatMessage[]): string {
  const said = messages.filter(({ role }) => role === "user").map(({ content }) => content);
  return `You said: ${said.join(", ")}.`;
}

/** A model for `factExtractionBlock`: every line of the conversation is a fact. */
export function everyLineIsAFact(messages: ChatMessage[]): Answer {
  const lines = String(messages[0]?.content).match(/(?<=^\t).+$/gm) ?? [];
  return JSON.stringify({ facts: lines });
}
