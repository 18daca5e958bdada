/**
 * Messages of other frameworks, as their SDKs type them, go in and come out. `tsc` is the test: nothing here runs. The types
 * are written down by their structure: `openai` 6, `@anthropic-ai/sdk` 0.7, `ai` 6, `@openai/agents-core` 0.2.
 */
import { expectTypeOf } from "vitest";
import { type CanonicalMessage, nativeOf, withNative } from "../src/bridge/index.ts";
import { type ChatMessage, type ChatStore, memoryChatStore, sessionKey } from "../src/index.ts";

const key = sessionKey({ user: "alice" });

type OpenAIMessage =
  | {
      role: "developer" | "system";
      content: string | { type: "text"; text: string }[];
      name?: string;
    }
  | {
      role: "user";
      content:
        | string
        | ({ type: "text"; text: string } | { type: "image_url"; image_url: { url: string } })[];
      name?: string;
    }
  | {
      role: "assistant";
      content?: string | null;
      refusal?: string | null;
      tool_calls?: {
        id: string;
        type: "function";
        function: { name: string; arguments: string };
      }[];
    }
  | { role: "tool"; content: string | { type: "text"; text: string }[]; tool_call_id: string };

interface AnthropicMessage {
  role: "user" | "assistant";
  content:
    | string
    | (
        | { type: "text"; text: string }
        | { type: "tool_use"; id: string; name: string; input: unknown }
      )[];
}

interface UIMessage {
  id: string;
  role: "system" | "user" | "assistant";
  metadata?: unknown;
  parts: (
    | { type: "text"; text: string }
    | { type: `tool-${string}`; toolCallId: string; state: string }
  )[];
}

type AgentItem =
  | { type?: "message"; role: "user"; content: string; providerData?: Record<string, unknown> }
  | { type: "function_call"; callId: string; name: string; arguments: string }
  | { type: "reasoning"; id?: string; content: { type: "input_text"; text: string }[] };

async function goesInAndComesOut<Message extends object>(
  store: ChatStore<Message>,
  messages: Message[],
): Promise<Message[]> {
  await store.addMessages(key, messages);
  await store.addMessages(key, [...(await store.getMessages(key)), ...messages]);
  await store.importSession(key, {
    messages,
    createdAt: "2026-01-01T00:00:00Z",
    updatedAt: new Date(),
  });
  return store.getMessages(key);
}

export async function frameworks(
  openai: OpenAIMessage[],
  anthropic: AnthropicMessage[],
  ui: UIMessage[],
  items: AgentItem[],
) {
  const store = memoryChatStore<OpenAIMessage>();
  await goesInAndComesOut(store, openai);
  await goesInAndComesOut(memoryChatStore<AnthropicMessage>(), anthropic);
  await goesInAndComesOut(memoryChatStore<UIMessage>(), ui);
  await goesInAndComesOut(memoryChatStore<AgentItem>(), items);
  const [first] = await store.getMessages(key);
  if (first?.role === "tool") expectTypeOf(first.tool_call_id).toEqualTypeOf<string>();
  expectTypeOf(first?.createdAt).toEqualTypeOf<Date | undefined>();

  // @ts-expect-error a message of another framework
  await store.addMessage(key, ui[0]);
  // @ts-expect-error LlamaIndex's roles are the default
  await memoryChatStore().addMessage(key, { role: "tool", content: "x" });
  await memoryChatStore().addMessage(key, {
    role: "user",
    content: "x",
    createdAt: "2026-01-01T00:00:00Z",
  });
}

export async function layers(store: ChatStore, message: CanonicalMessage, ui: UIMessage) {
  await store.addMessage(key, withNative(message, "ai-sdk/5", ui));
  const [stored] = await store.getMessages(key);
  if (stored)
    expectTypeOf(nativeOf<UIMessage>(stored, "ai-sdk/5")).toEqualTypeOf<UIMessage | undefined>();
  expectTypeOf<ChatStore>().toExtend<ChatStore<ChatMessage<{ toolCall?: object[] }>>>();
}
