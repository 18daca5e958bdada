/** Turns with a model, in the ways that LlamaIndex has for them. */
import type { PersistentMemory } from "@chatstore/llamaindex";
import type { ToolCallLLM } from "@llamaindex/core/llms";
import { tool } from "@llamaindex/core/tools";
import { agent } from "@llamaindex/workflow";
import {
  BaseRetriever,
  type ChatMessage,
  ContextChatEngine,
  type Memory,
  SimpleChatEngine,
  TextNode,
} from "llamaindex";
import { forecast } from "./model.js";

type Remembering = Memory & PersistentMemory;

/** A turn. `onCall` is awaited before the tool answers. */
type Talk = (
  memory: Remembering,
  llm: ToolCallLLM,
  message: string,
  onCall?: (city: string) => Promise<void>,
) => Promise<string>;

export const ways = [
  "SimpleChatEngine",
  "SimpleChatEngine, streaming",
  "ContextChatEngine",
  "agent",
  "tools, not streaming",
] as const;

export type Way = (typeof ways)[number];

export const talk: Readonly<Record<Way, Talk>> = {
  async SimpleChatEngine(memory, llm, message) {
    const reply = await new SimpleChatEngine({ memory, llm }).chat({ message });
    return textOf(reply.message);
  },

  async "SimpleChatEngine, streaming"(memory, llm, message) {
    const engine = new SimpleChatEngine({ memory, llm });
    const stream = await engine.chat({ message, stream: true });
    let reply = "";
    for await (const { delta } of memory.keepPartialReply(stream)) reply += delta;
    return reply;
  },

  async ContextChatEngine(memory, chatModel, message) {
    const retriever = new OneDocument();
    const engine = new ContextChatEngine({ retriever, chatHistory: memory, chatModel });
    return textOf((await engine.chat({ message })).message);
  },

  /** It always streams. */
  async agent(memory, llm, message, onCall) {
    const forecaster = agent({ llm, tools: [weather(onCall)] });
    const { data } = await forecaster.run(message, { state: memory.runState(forecaster) });
    return String(data.result);
  },

  /** A loop of the application's own, which adds each message as it comes. */
  async "tools, not streaming"(memory, llm, message, onCall) {
    const tools = [weather(onCall)];
    await memory.add({ role: "user", content: message });
    for (;;) {
      const messages = await memory.getLLM(llm);
      const { newMessages, toolCalls } = await llm.exec({ messages, tools, stream: false });
      for (const one of newMessages) await memory.add(one as ChatMessage);
      if (toolCalls.length === 0) return textOf(newMessages.at(-1) as ChatMessage);
    }
  },
};

function textOf({ content }: ChatMessage): string {
  if (typeof content === "string") return content;
  return content.map((part) => (part.type === "text" ? part.text : "")).join("");
}

function weather(onCall: (city: string) => Promise<void> = async () => {}) {
  const execute = async ({ city }: { city: string }) => {
    await onCall(city);
    return forecast(city);
  };
  return tool(execute, {
    name: "weather",
    description: "The weather of a city",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  });
}

class OneDocument extends BaseRetriever {
  // biome-ignore lint/complexity/noUselessConstructor: the inherited one is protected
  constructor() {
    super();
  }

  async _retrieve() {
    return [{ node: new TextNode({ text: "Chatstore remembers." }), score: 1 }];
  }
}
