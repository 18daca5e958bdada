/** Who takes part in a conversation: a framework with its bridge, or none, each with a real client of its provider. */
import { randomUUID } from "node:crypto";
import { createOpenAI } from "@ai-sdk/openai";
import Anthropic from "@anthropic-ai/sdk";
import { aiSdkChat } from "@chatstore/ai-sdk";
import { claudeSessionKey, claudeSessionStore } from "@chatstore/claude-agent";
import { type ChatStore, nativeContext, parseSessionKey } from "@chatstore/core";
import { ChatstoreMessageHistory } from "@chatstore/langchain";
import { persistentMemory } from "@chatstore/llamaindex";
import { openAIAgentsSession } from "@chatstore/openai-agents";
import { forecast, modelsAt, talk } from "@chatstore/providers-e2e";
import { AIMessage, type BaseMessage, HumanMessage, ToolMessage } from "@langchain/core/messages";
import { ChatOpenAI } from "@langchain/openai";
import { Agent, OpenAIProvider, Runner, tool } from "@openai/agents";
import { convertToModelMessages, isStepCount, jsonSchema, streamText } from "ai";
import { createMemory } from "llamaindex";
import OpenAI from "openai";
import { z } from "zod";

/** Where the APIs are. */
export interface Urls {
  readonly openai: string;
  readonly responses: string;
  readonly anthropic: string;
}

/** One turn of a conversation, with the tool `weather`, until the model has answered. All of it is stored then. */
export type Turn = (store: ChatStore, key: string, message: string, urls: Urls) => Promise<void>;

/** The session of a transcript, which Claude's SDK names by project and session. */
const transcript = { projectKey: "across", sessionId: "" };

export const keyOf = (conversation: string) =>
  claudeSessionKey({ ...transcript, sessionId: conversation });

const parameters = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
};
const description = "The weather of a city";
const apiKey = "none";

export const participants: Readonly<Record<string, Turn>> = {
  async llamaindex(store, key, message, urls) {
    const memory = await persistentMemory(createMemory, { store, key });
    const models = modelsAt({ openai: urls.openai } as Parameters<typeof modelsAt>[0]);
    await talk.agent(memory, models.openai, message);
    await memory.flush();
  },

  async "openai-agents"(store, key, message, urls) {
    const weather = tool({
      name: "weather",
      description,
      parameters: z.object({ city: z.string() }),
      execute: async ({ city }) => forecast(city),
    });
    const agent = new Agent({ name: "Forecaster", tools: [weather] });
    const client = new OpenAI({ baseURL: `${urls.responses}/v1`, apiKey, maxRetries: 0 });
    const modelProvider = new OpenAIProvider({ openAIClient: client, useResponses: true });
    const runner = new Runner({ modelProvider, model: "gpt-4.1", tracingDisabled: true });
    await runner.run(agent, message, { session: openAIAgentsSession({ store, key }) });
  },

  /** Without the program that the SDK starts: entries as it writes them, one block of an answer each, and as it resumes from them. */
  async "claude-agent"(store, key, message, urls) {
    const { user: sessionId } = parseSessionKey(key) as { user: string };
    const session = { ...transcript, sessionId };
    const sessions = claudeSessionStore({ store });
    const client = new Anthropic({ baseURL: urls.anthropic, apiKey, maxRetries: 0 });
    let parentUuid: string | null = null;
    const append = async (type: "user" | "assistant", content: unknown) => {
      const uuid = randomUUID();
      const time = { timestamp: new Date().toISOString(), isSidechain: false };
      const entry = { type, uuid, parentUuid, ...time, message: { role: type, content } };
      await sessions.append(session, [entry]);
      parentUuid = uuid;
    };
    await append("user", message);
    for (;;) {
      const messages = resumed((await sessions.load(session)) ?? []);
      const { content } = await client.messages.create({
        model: "claude-latest",
        max_tokens: 1_000,
        messages,
        tools: [{ name: "weather", description, input_schema: parameters as { type: "object" } }],
      });
      for (const block of content) await append("assistant", [block]);
      const calls = content.filter((block) => block.type === "tool_use");
      if (calls.length === 0) {
        await sessions.append(session, [{ type: "ai-title", aiTitle: "The weather" }]);
        return;
      }
      for (const { id, input } of calls) {
        const { city } = input as { city: string };
        const result = { type: "tool_result", tool_use_id: id, content: forecast(city) };
        await append("user", [result]);
      }
    }
  },

  async "ai-sdk"(store, key, message, urls) {
    const chat = aiSdkChat({ store, key });
    const before = await chat.load();
    const asked = {
      id: randomUUID(),
      role: "user" as const,
      parts: [{ type: "text", text: message }],
    };
    const request = { id: "x", trigger: "submit-message", messages: [...before.messages, asked] };
    const { messages } = await chat.receive(request as never);
    const provider = createOpenAI({ baseURL: `${urls.openai}/v1`, apiKey });
    const result = streamText({
      model: provider.chat("gpt-4o"),
      messages: await convertToModelMessages(messages),
      tools: {
        weather: {
          description,
          inputSchema: jsonSchema<{ city: string }>(parameters as never),
          execute: async ({ city }: { city: string }) => forecast(city),
        },
      },
      stopWhen: isStepCount(5),
      maxRetries: 0,
    });
    await result.toUIMessageStreamResponse(chat.streamOptions(messages)).text();
  },

  async langchain(store, key, message, urls) {
    const history = new ChatstoreMessageHistory({ store, key });
    const configuration = { baseURL: `${urls.openai}/v1` };
    const model = new ChatOpenAI({
      model: "gpt-4o",
      apiKey,
      configuration,
      maxRetries: 0,
    }).bindTools([{ type: "function", function: { name: "weather", description, parameters } }]);
    const turn: BaseMessage[] = [new HumanMessage(message)];
    const before = await history.getMessages();
    for (;;) {
      const answer = await model.invoke([...before, ...turn]);
      turn.push(answer);
      if (!AIMessage.isInstance(answer) || !answer.tool_calls?.length) break;
      for (const { id = "", args } of answer.tool_calls) {
        turn.push(new ToolMessage({ tool_call_id: id, content: forecast(args["city"]) }));
      }
    }
    await history.addMessages(turn);
  },

  /** OpenAI's chat completions, stored as the SDK gives them. */
  async none(store, key, message, urls) {
    type Message = OpenAI.ChatCompletionMessageParam;
    const messages = store as object as ChatStore<Message>;
    const client = new OpenAI({ baseURL: `${urls.openai}/v1`, apiKey, maxRetries: 0 });
    await messages.addMessage(key, { role: "user", content: message });
    for (;;) {
      const { choices } = await client.chat.completions.create({
        model: "gpt-4o",
        messages: nativeContext(await messages.getMessages(key)),
        tools: [{ type: "function", function: { name: "weather", description, parameters } }],
      });
      const answer = choices[0]?.message as OpenAI.ChatCompletionMessage;
      await messages.addMessage(key, answer);
      if (answer.tool_calls === undefined) return;
      const results = answer.tool_calls.map((call): Message => {
        const { city } = JSON.parse(
          (call as { function: { arguments: string } }).function.arguments,
        );
        return { role: "tool", tool_call_id: call.id, content: forecast(city) };
      });
      await messages.addMessages(key, results);
    }
  },
};

/** The spoken entries as the SDK's program sends them: blocks of one role in one message. */
function resumed(entries: readonly { readonly type: string }[]): Anthropic.MessageParam[] {
  const messages: { role: "user" | "assistant"; content: Anthropic.ContentBlockParam[] }[] = [];
  for (const entry of entries) {
    if (entry.type !== "user" && entry.type !== "assistant") continue;
    const { content } = (entry as unknown as { message: Anthropic.MessageParam }).message;
    const blocks =
      typeof content === "string" ? [{ type: "text" as const, text: content }] : content;
    const last = messages.at(-1);
    if (last?.role === entry.type) last.content.push(...blocks);
    else messages.push({ role: entry.type, content: [...blocks] });
  }
  return messages;
}
