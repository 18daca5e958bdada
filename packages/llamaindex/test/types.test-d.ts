/**
 * Our types held against LlamaIndex's own. `tsc` is the test: nothing here runs. Core's published types name none of
 * LlamaIndex's, so an upgrade that breaks the resemblance shows up here and nowhere else.
 */

import {
  type ChatStore,
  type ChatMessage as Message,
  type StoredMessage,
  sessionKey,
} from "@chatstore/core";
import { type AgentWorkflowState, agent, multiAgent } from "@llamaindex/workflow";
import {
  type BaseChatStore,
  type BaseMemoryBlock,
  type BaseRetriever,
  ChatMemoryBuffer,
  type ChatMessage,
  type CondenseQuestionChatEngine,
  ContextChatEngine,
  createMemory,
  type Memory,
  type MemoryMessage,
  SimpleChatEngine,
  type ToolCallLLM,
  type ToolCallLLMMessageOptions,
} from "llamaindex";
import { expectTypeOf } from "vitest";
import {
  type PersistentMemory,
  persistentChatMemoryBuffer,
  persistentMemory,
} from "../src/index.ts";

declare const store: ChatStore;
declare const llm: ToolCallLLM;
declare const retriever: BaseRetriever;
declare const condense: CondenseQuestionChatEngine;
declare const memoryBlocks: BaseMemoryBlock[];

interface Provider {
  cacheControl?: "ephemeral";
}

export function chatStore() {
  expectTypeOf<ChatStore>().toExtend<BaseChatStore>();
  expectTypeOf<ChatStore<Message<Provider>>>().toExtend<BaseChatStore<Provider>>();
  expectTypeOf<ChatStore<Message<ToolCallLLMMessageOptions>>>().toExtend<
    BaseChatStore<ToolCallLLMMessageOptions>
  >();
  return new ChatMemoryBuffer({ chatStore: store });
}

export async function messages(key: string, ours: StoredMessage, theirs: MemoryMessage) {
  expectTypeOf<StoredMessage>().toExtend<MemoryMessage>();
  expectTypeOf<StoredMessage<Message<Provider>>>().toExtend<MemoryMessage<Provider>>();
  await store.addMessages(key, [ours, theirs]);
  await store.addMessage(key, {} as ChatMessage);
  await store.setMessages(key, await createMemory().get());
  createMemory(await store.getMessages(key), {});
}

export async function memory(providerStore: ChatStore<Message<Provider>>) {
  const key = sessionKey({ user: "alice" });
  const remembering = await persistentMemory(createMemory, { store, key });
  expectTypeOf(remembering).toExtend<Memory>();
  expectTypeOf(remembering).toExtend<PersistentMemory>();

  new ContextChatEngine({ retriever, chatHistory: remembering });
  const engine = new SimpleChatEngine({ memory: remembering });
  agent({ memory: remembering, llm, tools: [] });
  condense.memory = remembering;
  await engine.chat({ message: "Hello", chatHistory: remembering });

  const stream = await engine.chat({ message: "Hello", stream: true });
  for await (const chunk of remembering.keepPartialReply(stream)) {
    expectTypeOf(chunk.delta).toEqualTypeOf<string>();
  }
  const shared = agent({ llm, tools: [] });
  await shared.run("Hello", { state: remembering.runState(shared) });
  shared.runStream("Hello", { state: remembering.runState(shared, { saveToolMessages: false }) });
  const team = multiAgent({ agents: shared.getAgents(), rootAgent: shared });
  expectTypeOf(remembering.runState(team)).toEqualTypeOf<AgentWorkflowState>();

  expectTypeOf(await remembering.get({ type: "vercel" })).items.toHaveProperty("parts");

  await persistentMemory(createMemory, { store: providerStore, key });
  await persistentMemory(createMemory, {
    store,
    key,
    window: 100,
    tokenLimit: 3_000,
    shortTermTokenLimitRatio: 0.5,
    memoryBlocks,
    llm,
    onError: (error) => error.message,
  });

  // @ts-expect-error the key is missing
  await persistentMemory(createMemory, { store });
  // @ts-expect-error no such option
  await persistentMemory(createMemory, { store, key, tokenlimit: 3_000 });
  // @ts-expect-error LlamaIndex's options keep their types
  await persistentMemory(createMemory, { store, key, tokenLimit: "3000" });
  // @ts-expect-error the cursor is restored, not given
  await persistentMemory(createMemory, { store, key, memoryCursor: 3 });
  // @ts-expect-error this makes no memory
  await persistentMemory(() => ({}), { store, key });
}

export async function oldApi(key: string) {
  const memory = await persistentChatMemoryBuffer(ChatMemoryBuffer, {
    store,
    key,
    llm,
    tokenLimit: 3_000,
    chatHistory: [{ role: "system", content: "Be brief." }],
  });
  expectTypeOf(memory.put({ role: "user", content: "Hello" })).toEqualTypeOf<Promise<void>>();
  expectTypeOf(await memory.getMessages()).items.toExtend<ChatMessage>();

  // @ts-expect-error the store is given by name
  await persistentChatMemoryBuffer(ChatMemoryBuffer, { store, key, chatStore: store });
  // @ts-expect-error no memory of the old API
  await persistentChatMemoryBuffer(SimpleChatEngine, { store, key });
}
