import { createChatStore, MemoryBackend, memoryChatStore, sessionKey } from "@chatstore/core";
import { InMemoryChatMessageHistory } from "@langchain/core/chat_history";
import {
  AIMessage,
  type BaseMessage,
  ChatMessage,
  FunctionMessage,
  HumanMessage,
  mapChatMessagesToStoredMessages,
  RemoveMessage,
  SystemMessage,
  ToolMessage,
} from "@langchain/core/messages";
import { ChatPromptTemplate, MessagesPlaceholder } from "@langchain/core/prompts";
import { RunnableLambda, RunnableWithMessageHistory } from "@langchain/core/runnables";
import * as oldest from "langchain-core-oldest/messages";
import { describe, expect, test } from "vitest";
import { ChatstoreMessageHistory } from "../src/index.ts";
import { onEveryBackend } from "./stores.ts";

/** One of every kind. */
const messages: BaseMessage[] = [
  new SystemMessage("Be kind."),
  new HumanMessage({ content: "Hello", id: "h1", name: "alice", additional_kwargs: { n: 1 } }),
  new HumanMessage({
    content: [
      { type: "text", text: "Look" },
      { type: "image_url", image_url: { url: "data:image/png;base64,AAAA" } },
      { type: "audio", source_type: "base64", mime_type: "audio/wav", data: "BBBB" },
    ],
  }),
  new AIMessage({
    content: "",
    id: "run-1",
    tool_calls: [
      { id: "c1", name: "get_weather", args: { city: "Bonn" }, type: "tool_call" },
      { id: "c2", name: "get_weather", args: { city: "Rome" }, type: "tool_call" },
    ],
    invalid_tool_calls: [{ id: "c3", name: "x", args: "{", error: "no JSON" }],
    usage_metadata: { input_tokens: 1, output_tokens: 2, total_tokens: 3 },
    response_metadata: { model: "m", logprobs: null },
  } as unknown as ConstructorParameters<typeof AIMessage>[0]),
  new ToolMessage({ content: "rain", tool_call_id: "c1", artifact: { raw: [1, 2] } }),
  new ToolMessage({ content: "too hot", tool_call_id: "c2", status: "error", id: "t2" }),
  new FunctionMessage({ content: "old", name: "f" }),
  new ChatMessage({ content: "I object.", role: "critic" }),
  new AIMessage("It rains.\u0000 \u2028"),
];
const dicts = (list: readonly BaseMessage[]) => mapChatMessagesToStoredMessages([...list]);

await onEveryBackend((_, store) => {
  let number = 0;
  const newKey = () => sessionKey({ user: "alice", conversation: `${++number}` });

  test("messages of every kind come back as they were, to another history", async () => {
    const key = newKey();
    await new ChatstoreMessageHistory({ store: store(), key }).addMessages(messages);
    const found = await new ChatstoreMessageHistory({ store: store(), key }).getMessages();
    expect(dicts(found)).toEqual(dicts(messages));
    expect(found.map((one) => one.constructor.name)).toEqual(
      messages.map((one) => one.constructor.name),
    );
    expect((found[3] as AIMessage).tool_calls).toHaveLength(2);
    expect((found[4] as ToolMessage).artifact).toEqual({ raw: [1, 2] });
  });

  test("it behaves as the history in memory does", async () => {
    const transcript = async (history: InMemoryChatMessageHistory | ChatstoreMessageHistory) => {
      await history.addUserMessage("Hi");
      await history.addAIMessage("Hello");
      await history.addMessage(new HumanMessage("Hi"));
      await history.addMessages([]);
      await history.addMessages([new HumanMessage("a"), new AIMessage("b")]);
      const before = dicts(await history.getMessages());
      await history.clear();
      const cleared = dicts(await history.getMessages());
      await history.addUserMessage("again");
      return [before, cleared, dicts(await history.getMessages())];
    };
    const history = new ChatstoreMessageHistory({ store: store(), key: newKey() });
    expect(await transcript(history)).toEqual(await transcript(new InMemoryChatMessageHistory()));
  });

  test("many requests at once lose nothing, and mix up no batch", async () => {
    const key = newKey();
    await Promise.all(
      Array.from({ length: 20 }, (_, n) =>
        new ChatstoreMessageHistory({ store: store(), key }).addMessages([
          new HumanMessage(`question ${n}`),
          new AIMessage(`answer ${n}`),
        ]),
      ),
    );
    const texts = (await store().getMessages(key)).map(({ content }) => String(content));
    expect(texts).toHaveLength(40);
    for (let n = 0; n < texts.length; n += 2) {
      expect(texts[n + 1]).toBe(texts[n]?.replace("question", "answer"));
    }
  });

  test("a message that comes again is stored once; with other content it takes its place", async () => {
    const key = newKey();
    const history = new ChatstoreMessageHistory({ store: store(), key });
    await history.addMessages([new HumanMessage({ content: "a", id: "1" }), new AIMessage("b")]);
    await history.addMessage(new HumanMessage({ content: "a", id: "1" }));
    await history.addMessages([
      new HumanMessage({ content: "edited", id: "1" }),
      new AIMessage({ content: "c", id: "2" }),
    ]);
    expect((await history.getMessages()).map(({ content }) => content)).toEqual([
      "edited",
      "b",
      "c",
    ]);
  });

  test("RunnableWithMessageHistory remembers with it", async () => {
    const key = newKey();
    const prompt = ChatPromptTemplate.fromMessages([
      ["system", "You help."],
      new MessagesPlaceholder("history"),
      ["human", "{input}"],
    ]);
    const model = RunnableLambda.from((value: { toChatMessages(): BaseMessage[] }) => {
      const said = value.toChatMessages().filter((one) => one.getType() === "human");
      return new AIMessage(`You said: ${said.map(({ content }) => content).join(" | ")}`);
    });
    const chain = new RunnableWithMessageHistory({
      runnable: prompt.pipe(model as never) as never,
      getMessageHistory: (session: string) =>
        new ChatstoreMessageHistory({ store: store(), key: session }) as never,
      inputMessagesKey: "input",
      historyMessagesKey: "history",
    });
    const config = { configurable: { sessionId: key } };
    await chain.invoke({ input: "My cat is called Mia" }, config);
    const answer = (await chain.invoke({ input: "Who is Mia?" }, config)) as AIMessage;
    expect(answer.content).toBe("You said: My cat is called Mia | Who is Mia?");
  });
});

describe("a history", () => {
  const key = sessionKey({ user: "alice" });

  test("takes the messages of the oldest LangChain that it supports", async () => {
    const history = new ChatstoreMessageHistory({ store: memoryChatStore(), key });
    const old = [
      new oldest.HumanMessage({ content: "Hello", id: "1" }),
      new oldest.AIMessage({
        content: "",
        tool_calls: [{ id: "c1", name: "f", args: { a: 1 }, type: "tool_call" }],
      }),
      new oldest.ToolMessage({ content: "r", tool_call_id: "c1" }),
    ];
    await history.addMessages(old as unknown as BaseMessage[]);
    const found = await history.getMessages();
    const expected = oldest.mapChatMessagesToStoredMessages(old);
    expect(oldest.mapStoredMessagesToChatMessages(dicts(found)).map((one) => one.toDict())).toEqual(
      oldest.mapStoredMessagesToChatMessages(expected).map((one) => one.toDict()),
    );
  });

  test("shows other frameworks who said what, calls and answers", async () => {
    const store = memoryChatStore();
    await new ChatstoreMessageHistory({ store, key }).addMessages(messages);
    const seen = await store.getMessages(key);
    expect(seen.map(({ role, content, options }) => [role, content, options])).toEqual([
      ["system", "Be kind.", undefined],
      ["user", "Hello", undefined],
      [
        "user",
        [
          { type: "text", text: "Look" },
          { type: "image_url", image_url: { url: "data:image/png;base64,AAAA" } },
          { type: "audio", data: "BBBB", mimeType: "audio/wav" },
        ],
        undefined,
      ],
      [
        "assistant",
        "",
        {
          toolCall: [
            { id: "c1", name: "get_weather", input: { city: "Bonn" } },
            { id: "c2", name: "get_weather", input: { city: "Rome" } },
          ],
        },
      ],
      ["user", "rain", { toolResult: { id: "c1", result: "rain", isError: false } }],
      ["user", "too hot", { toolResult: { id: "c2", result: "too hot", isError: true } }],
      ["user", "old", { toolResult: { id: "f", result: "old", isError: false } }],
      ["user", "I object.", undefined],
      ["assistant", "It rains.\u0000 \u2028", undefined],
    ]);
  });

  test("reads what other frameworks have stored", async () => {
    const store = memoryChatStore();
    await store.addMessages(key, [
      { role: "developer", content: "Be kind." },
      {
        role: "user",
        content: [{ type: "file", data: "AAAA", mimeType: "application/pdf" }],
        id: "1",
      },
      {
        role: "assistant",
        content: "2",
        options: {
          toolCall: [{ id: "c", name: "add", input: { a: 1, b: 1 } }],
          toolResult: [{ id: "c", result: "2", isError: false }],
        },
      },
    ]);
    const found = await new ChatstoreMessageHistory({ store, key }).getMessages();
    expect(found.map((one) => [one.getType(), one.content])).toEqual([
      ["system", "Be kind."],
      [
        "human",
        [{ type: "file", source_type: "base64", mime_type: "application/pdf", data: "AAAA" }],
      ],
      ["ai", ""],
      ["tool", "2"],
      ["ai", "2"],
    ]);
    expect((found[2] as AIMessage).tool_calls).toEqual([
      { type: "tool_call", id: "c", name: "add", args: { a: 1, b: 1 } },
    ]);
    expect(found[3]).toMatchObject({ tool_call_id: "c", name: "add", status: "success" });
  });

  test("takes one round trip to read and one to add", async () => {
    const backend = new MemoryBackend();
    let trips = 0;
    const counting = new Proxy(backend, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name, target);
        if (typeof value !== "function") return value;
        if (name !== "open" && name !== "close") trips++;
        return value.bind(target);
      },
    });
    const store = createChatStore("memory", {}, {}, () => counting);
    const history = new ChatstoreMessageHistory({ store, key });
    await history.getMessages();
    await history.addMessages(messages);
    expect(trips).toBe(2);
  });

  test("says what is wrong with its options and messages", async () => {
    for (const options of [undefined, {}, { store: "chat.db", key }]) {
      expect(() => new ChatstoreMessageHistory(options as never)).toThrow(/Which store/);
    }
    const store = memoryChatStore();
    const history = new ChatstoreMessageHistory({ store, key });
    for (const wrong of [
      undefined,
      "Hello",
      { role: "user", content: "Hello" },
      new RemoveMessage({ id: "1" }),
    ]) {
      await expect(history.addMessages([new HumanMessage("a"), wrong as never])).rejects.toThrow(
        expect.objectContaining({ code: "INVALID_MESSAGE" }),
      );
    }
    expect(await history.getMessages()).toEqual([]);
    await store.addMessages(key, [
      { role: "user", content: "x", native: { format: "langchain/9", value: {} } },
    ]);
    await expect(history.getMessages()).rejects.toThrow(
      expect.objectContaining({ code: "UNSUPPORTED_FORMAT" }),
    );
    await expect(
      new ChatstoreMessageHistory({ store, key: "chat_history" }).getMessages(),
    ).rejects.toThrow(expect.objectContaining({ code: "INVALID_SESSION_KEY" }));
  });

  test("prints no store, with its password, when it is serialised", () => {
    const store = memoryChatStore({ name: "hunter2-canary" });
    const history = new ChatstoreMessageHistory({ store, key });
    expect(JSON.stringify(history)).not.toContain("hunter2-canary");
  });
});
