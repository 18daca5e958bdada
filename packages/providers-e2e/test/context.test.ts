/** Whatever is stored, and wherever it is cut: every provider accepts the context. */
import type { ChatMessage } from "@chatstore/core";
import {
  arrangeContext,
  type CanonicalMessage,
  cutContext,
  isFromUser,
  modelContext,
} from "@chatstore/core/bridge";
import { persistentMemory } from "@chatstore/llamaindex";
import {
  type AnthropicBody,
  anthropicRules,
  type GeminiBody,
  geminiRules,
  type MistralBody,
  mistralRules,
  modelsAt,
  type OllamaBody,
  type OpenAIBody,
  ollamaRules,
  openaiRules,
  type ProviderName,
  providerNames,
  refusal,
} from "@chatstore/providers-e2e";
import { memoryChatStore, sessionKey } from "@chatstore/sqlite";
import type { ToolCallLLM } from "@llamaindex/core/llms";
import { OpenAI } from "@llamaindex/openai";
import fc from "fast-check";
import { createMemory } from "llamaindex";
import { expect, test } from "vitest";

const nowhere = "http://127.0.0.1:9";
const models = modelsAt({
  openai: nowhere,
  anthropic: nowhere,
  gemini: nowhere,
  mistral: nowhere,
  ollama: nowhere,
});

/** What LlamaIndex's packages make of messages, in methods that are private in TypeScript only. */
interface Formats extends ToolCallLLM {
  formatMessages(messages: readonly ChatMessage[]): unknown[];
  prepareChatContext(
    messages: readonly ChatMessage[],
  ): Promise<{ history: unknown[]; message: unknown }>;
  ollama: { chat(body: OllamaBody): Promise<unknown> };
}
const formats = models as Record<ProviderName, Formats>;

/** Each message as it goes over the wire: names with underscores. */
const onTheWire = (messages: unknown[]) =>
  JSON.parse(
    JSON.stringify(messages)
      .replaceAll('"toolCalls":', '"tool_calls":')
      .replaceAll('"toolCallId":', '"tool_call_id":'),
  );

/** Why a provider would refuse the context, asked through LlamaIndex's package for it. */
const refusals: Readonly<
  Record<ProviderName, (context: ChatMessage[]) => Promise<string | undefined>>
> = {
  openai: async (context) => {
    const messages = OpenAI.toOpenAIMessage(context as never) as OpenAIBody["messages"];
    return refusal(openaiRules, { messages });
  },
  anthropic: async (context) => {
    const system = context
      .filter(({ role }) => role === "system")
      .map(({ content }) => ({ type: "text", text: textOf(content) }));
    const messages = formats.anthropic.formatMessages(context) as AnthropicBody["messages"];
    return refusal(anthropicRules, { messages, system });
  },
  gemini: async (context) => {
    const { history, message } = await formats.gemini.prepareChatContext(context);
    const contents = [...history, { role: "user", parts: message }] as GeminiBody["contents"];
    return refusal(geminiRules, { contents });
  },
  mistral: async (context) => {
    const messages = onTheWire(formats.mistral.formatMessages(context)) as MistralBody["messages"];
    return refusal(mistralRules, { messages });
  },
  ollama: async (context) => {
    let sent: OllamaBody | undefined;
    formats.ollama.ollama = {
      async chat(body) {
        sent = body;
        return { message: {} };
      },
    };
    await models.ollama.chat({ messages: context as never });
    return refusal(ollamaRules, sent as OllamaBody);
  },
};

/** Amazon Bedrock has no package here; its Converse API begins with a user. https://github.com/langgenius/dify/issues/12340 */
function bedrock(context: readonly ChatMessage[]): string | undefined {
  const first = context.find(({ role }) => role !== "system");
  return first && isFromUser(first) ? undefined : "A conversation must start with a user message.";
}

async function refusedBy(context: ChatMessage[], mistralContext = context): Promise<string[]> {
  const asked = await Promise.all(
    providerNames.map(async (name) => {
      const message = await refusals[name](name === "mistral" ? mistralContext : context);
      return message && `${name}: ${message}`;
    }),
  );
  return [...asked, bedrock(context)].filter((message) => message !== undefined);
}

function textOf(content: ChatMessage["content"]): string {
  if (typeof content === "string") return content;
  return content.map((part) => (part.type === "text" ? part.text : "")).join("");
}

const blank = fc.constantFrom("", " ", "\n\t ", "\u0085", "\u00a0");
const words = fc.constantFrom("Hello", "How is it?", " …and so on ", "É\n");
const text = fc.oneof({ weight: 4, arbitrary: words }, { weight: 1, arbitrary: blank });
const part = text.map((said) => ({ type: "text" as const, text: said }));
const content = fc.oneof(
  { weight: 4, arbitrary: text },
  { weight: 1, arbitrary: fc.array(part, { maxLength: 3 }) },
);
/** Some that no provider knows, some too long, and some twice. */
const id = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom("abcdefgh1", "abcdefgh2", "abcdefgh3") },
  { weight: 1, arbitrary: fc.constantFrom("call_0", "functions.weather:0", "", "x".repeat(64)) },
);
const toolInput = fc.oneof(
  fc.constant({ city: "Oslo" }),
  fc.constantFrom('{"city":"Oslo"}', "", '{"city":', "[1]", "null"),
);
const call = fc.record({ id, name: fc.constant("weather"), input: toolInput });
const said: fc.Arbitrary<ChatMessage> = fc.record({
  role: fc.constantFrom("user", "user", "assistant", "assistant", "system", "memory", "developer"),
  content,
});
const calling: fc.Arbitrary<ChatMessage> = fc.record({
  role: fc.constant("assistant"),
  content: text,
  options: fc.record({ toolCall: fc.array(call, { maxLength: 3 }) }),
});
const result: fc.Arbitrary<ChatMessage> = fc.tuple(id, text).map(([of, answer]) => ({
  role: "user",
  content: answer,
  options: { toolResult: { id: of, result: answer, isError: false } },
}));
const stored = fc.oneof(
  { weight: 3, arbitrary: said },
  { weight: 2, arbitrary: calling },
  { weight: 3, arbitrary: result },
);
const question: ChatMessage = { role: "user", content: "And now?" };
/** What the user said last, and what its turn has come to: nothing, or tools that were called. */
const history = fc.tuple(
  fc.array(stored, { maxLength: 12 }),
  fc.array(fc.oneof(calling, result), { maxLength: 4 }),
);
const at = fc.double({ min: 0, max: 1, noNaN: true });

test("every provider accepts the context of any history, cut anywhere, with the user's newest message", async () => {
  await fc.assert(
    fc.asyncProperty(history, at, async ([before, after], where) => {
      const all = [...before, question, ...after];
      const last = Math.max(1, Math.ceil(where * all.length));
      for (const [messages, options] of [
        [all, {}],
        [all, { last }],
      ] as const) {
        const context = modelContext(messages, options);
        expect(context).toContainEqual(question);
        // Its turn may have come to a text that calls no tool any more: then the model is not asked.
        if (context.at(-1)?.role === "assistant") context.push(question);
        const forMistral = modelContext(context, { mistralIds: true });
        expect(await refusedBy(context, forMistral)).toEqual([]);
        expect(modelContext(context)).toEqual(context);
      }
    }),
    { numRuns: 3_000 },
  );
});

test("a page of a history is as good as its cut", () => {
  fc.assert(
    fc.property(history, at, ([before, after], where) => {
      const all = [...before, question, ...after];
      const page = all.slice(Math.floor(where * before.length));
      expect(modelContext(page)).toContainEqual(question);
    }),
  );
});

/** Turns that have come to their end, with tools or without. */
const turn = fc
  .tuple(words, fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 2 }), words)
  .map(([asked, rounds, answer]) => ({ asked, rounds, answer }));
const valid = fc
  .tuple(fc.option(words), fc.array(turn, { maxLength: 5 }))
  .map(([instructions, turns]) => {
    let made = 0;
    const messages: CanonicalMessage[] = [];
    if (instructions !== null) messages.push({ role: "system", content: instructions });
    for (const { asked, rounds, answer } of turns) {
      messages.push({ role: "user", content: asked });
      for (const count of rounds) {
        const ids = Array.from({ length: count }, () => `id${made++}`.padEnd(9, "x"));
        const toolCall = ids.map((one) => ({ id: one, name: "weather", input: { of: one } }));
        messages.push({ role: "assistant", content: "", options: { toolCall } });
        for (const one of ids) {
          const toolResult = { id: one, result: "Sunny", isError: false };
          messages.push({ role: "user", content: "Sunny", options: { toolResult } });
        }
      }
      messages.push({ role: "assistant", content: answer });
    }
    return [...messages, question] as ChatMessage[];
  });

test("a complete, valid history passes through unchanged", async () => {
  await fc.assert(
    fc.asyncProperty(valid, async (messages) => {
      expect(await refusedBy(messages)).toEqual([]);
      const context = modelContext(messages, { mistralIds: true });
      expect(context).toHaveLength(messages.length);
      for (const [index, message] of context.entries()) expect(message).toBe(messages[index]);
    }),
  );
});

test("a cut keeps the instructions, and whole turns of tools", async () => {
  await fc.assert(
    fc.asyncProperty(valid, fc.nat({ max: 40 }), async (messages, last) => {
      const context = modelContext(messages, { last });
      expect(await refusedBy(context)).toEqual([]);
      const systems = messages.filter(({ role }) => role === "system");
      expect(context.slice(0, systems.length)).toEqual(systems);
      expect(context.length).toBeLessThanOrEqual(Math.max(last, 1) + systems.length);
      // A cut in two steps is no other.
      const arranged = arrangeContext(messages);
      const start = Math.max(0, arranged.length - last);
      expect(modelContext(cutContext(arranged, start))).toEqual(context);
    }),
  );
});

test("the window and the token limit of a memory cut so that every provider accepts what is left", async () => {
  const key = sessionKey({ user: "alice" });
  const limits = fc.record({
    window: fc.option(fc.integer({ min: 1, max: 14 }), { nil: undefined }),
    tokenLimit: fc.option(fc.integer({ min: 1, max: 60 }), { nil: undefined }),
  });
  await fc.assert(
    fc.asyncProperty(history, limits, async ([before, after], { window, tokenLimit }) => {
      const store = memoryChatStore();
      const all = [...before, question, ...after];
      await store.addMessages(key, all);
      const memory = await persistentMemory(createMemory, {
        store,
        key,
        window,
        ...(tokenLimit !== undefined && { tokenLimit, shortTermTokenLimitRatio: 1 }),
      });
      const [context, mistralContext] = [
        await memory.getLLM(),
        await memory.getLLM(mistralOf(tokenLimit)),
      ];
      expect(context.map(({ content }) => content)).toContainEqual(question.content);
      const [first] = all;
      if (first?.role === "system" && /[^\s\u0085]/.test(textOf(first.content))) {
        expect(context[0]).toMatchObject({ role: "system" });
      }
      if ([context, mistralContext].some((one) => one.at(-1)?.role === "assistant")) return;
      expect(await refusedBy(context as ChatMessage[], mistralContext as ChatMessage[])).toEqual(
        [],
      );
    }),
    { numRuns: 500 },
  );
});

/** Mistral's model, with a context window that makes for this limit. */
function mistralOf(tokenLimit: number | undefined): ToolCallLLM {
  if (tokenLimit === undefined) return models.mistral;
  const metadata = { ...models.mistral.metadata, contextWindow: Math.floor(tokenLimit / 0.7) };
  return Object.create(models.mistral, { metadata: { value: metadata } });
}
