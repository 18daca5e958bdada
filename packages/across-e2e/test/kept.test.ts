/** The table of docs/contract.md says what conversions keep: each cell is tried. */
import { readFileSync } from "node:fs";
import type { SessionStoreEntry } from "@anthropic-ai/claude-agent-sdk";
import { aiSdkChat } from "@chatstore/ai-sdk";
import { claudeSessionKey, claudeSessionStore } from "@chatstore/claude-agent";
import { type ChatStore, memoryChatStore, type NewMessage } from "@chatstore/core";
import { ChatstoreMessageHistory } from "@chatstore/langchain";
import { openAIAgentsSession } from "@chatstore/openai-agents";
import { mapStoredMessagesToChatMessages, type StoredMessage } from "@langchain/core/messages";
import type { UIMessage } from "ai";
import { expect, test } from "vitest";

const session = { projectKey: "across", sessionId: "kept" };
const key = claudeSessionKey(session);
const uuid = "11111111-1111-4111-8111-111111111111";
const call = { id: "call_1", name: "weather", input: { city: "Rome" } };
const address = "https://example.org/a.png";
const [picture, sound, paper] = ["UElDVFVSRQ", "U09VTkQ", "UEFQRVI"] as const;
const pictureUrl = `data:image/png;base64,${picture}`;

const user = (content: unknown) => ({ role: "user", content });
const ui = (role: string, ...parts: object[]) => ({ id: uuid, role, parts });
const tool = (more: object) =>
  ui("assistant", { type: "tool-weather", toolCallId: call.id, input: call.input, ...more });
const human = (content: unknown, more = {}) => ({ type: "human", data: { content, ...more } });
const spoken = (type: string, content: unknown, more = {}) => ({
  type,
  uuid,
  message: { role: type, content },
  ...more,
});
const answerOf = (content: string, isError: boolean) => ({
  role: "user",
  content,
  options: { toolResult: { id: call.id, result: content, isError } },
});
const called = { role: "assistant", content: "", options: { toolCall: [call] } };

/** What is said, in the canonical layer and in each framework's form; and how it is found in the other one. */
const rows: Readonly<
  Record<
    string,
    {
      readonly canonical: readonly object[];
      readonly "AI SDK": readonly object[];
      readonly "OpenAI Agents": readonly object[];
      readonly "Claude Agent": readonly object[];
      readonly "LangChain.js": readonly object[];
      readonly found: RegExp;
    }
  >
> = {
  "a text": {
    canonical: [user("Hello")],
    "AI SDK": [ui("user", { type: "text", text: "Hello" })],
    "OpenAI Agents": [user("Hello")],
    "Claude Agent": [spoken("user", "Hello")],
    "LangChain.js": [human("Hello")],
    found: /Hello/,
  },
  "who speaks: a system message": {
    canonical: [{ role: "system", content: "Be kind" }],
    "AI SDK": [ui("system", { type: "text", text: "Be kind" })],
    "OpenAI Agents": [{ role: "system", content: "Be kind" }],
    "Claude Agent": [{ type: "system", uuid, content: "Be kind" }],
    "LangChain.js": [{ type: "system", data: { content: "Be kind" } }],
    found: /"system".*Be kind|Be kind.*"system"/,
  },
  "a call: its id, name and arguments": {
    canonical: [called],
    "AI SDK": [tool({ state: "input-available" })],
    "OpenAI Agents": [
      { type: "function_call", callId: call.id, name: "weather", arguments: '{"city":"Rome"}' },
    ],
    "Claude Agent": [spoken("assistant", [{ type: "tool_use", ...call }])],
    "LangChain.js": [
      {
        type: "ai",
        data: { content: "", tool_calls: [{ id: call.id, name: "weather", args: call.input }] },
      },
    ],
    found: /(?=.*call_1)(?=.*weather)(?=.*city\W+Rome)/,
  },
  "a tool's answer": {
    canonical: [called, answerOf("Sunny", false)],
    "AI SDK": [tool({ state: "output-available", output: "Sunny" })],
    "OpenAI Agents": [{ type: "function_call_result", callId: call.id, output: "Sunny" }],
    "Claude Agent": [
      spoken("user", [{ type: "tool_result", tool_use_id: call.id, content: "Sunny" }]),
    ],
    "LangChain.js": [{ type: "tool", data: { content: "Sunny", tool_call_id: call.id } }],
    found: /(?=.*call_1)(?=.*Sunny)/,
  },
  "that a tool failed": {
    canonical: [called, answerOf("No such city", true)],
    "AI SDK": [tool({ state: "output-error", errorText: "No" })],
    "OpenAI Agents": [
      { type: "function_call_result", callId: call.id, output: "No", status: "incomplete" },
    ],
    "Claude Agent": [
      spoken("user", [
        { type: "tool_result", tool_use_id: call.id, content: "No", is_error: true },
      ]),
    ],
    "LangChain.js": [
      { type: "tool", data: { content: "No", tool_call_id: call.id, status: "error" } },
    ],
    found: /"is_?error":true|"status":"(error|incomplete)"|output-error/i,
  },
  "an image with an address": {
    canonical: [user([{ type: "image_url", image_url: { url: address } }])],
    "AI SDK": [ui("user", { type: "file", mediaType: "image/png", url: address })],
    "OpenAI Agents": [user([{ type: "input_image", image: address }])],
    "Claude Agent": [spoken("user", [{ type: "image", source: { type: "url", url: address } }])],
    "LangChain.js": [human([{ type: "image_url", image_url: { url: address } }])],
    found: /"https:\/\/example.org\/a.png"/,
  },
  "an image as data": {
    canonical: [user([{ type: "image", data: picture, mimeType: "image/png" }])],
    "AI SDK": [ui("user", { type: "file", mediaType: "image/png", url: pictureUrl })],
    "OpenAI Agents": [user([{ type: "input_image", image: pictureUrl }])],
    "Claude Agent": [
      spoken("user", [
        { type: "image", source: { type: "base64", media_type: "image/png", data: picture } },
      ]),
    ],
    "LangChain.js": [human([{ type: "image_url", image_url: pictureUrl }])],
    found: new RegExp(picture),
  },
  "a sound": {
    canonical: [user([{ type: "audio", data: sound, mimeType: "audio/wav" }])],
    "AI SDK": [
      ui("user", { type: "file", mediaType: "audio/wav", url: `data:audio/wav;base64,${sound}` }),
    ],
    "OpenAI Agents": [user([{ type: "audio", audio: sound, format: "wav" }])],
    "Claude Agent": [],
    "LangChain.js": [human([{ type: "audio", data: sound, mime_type: "audio/wav" }])],
    found: new RegExp(sound),
  },
  "a file": {
    canonical: [user([{ type: "file", data: paper, mimeType: "application/pdf" }])],
    "AI SDK": [
      ui("user", {
        type: "file",
        mediaType: "application/pdf",
        url: `data:application/pdf;base64,${paper}`,
      }),
    ],
    "OpenAI Agents": [user([{ type: "input_file", file: `data:application/pdf;base64,${paper}` }])],
    "Claude Agent": [
      spoken("user", [
        {
          type: "document",
          source: { type: "base64", media_type: "application/pdf", data: paper },
        },
      ]),
    ],
    "LangChain.js": [human([{ type: "file", data: paper, mime_type: "application/pdf" }])],
    found: new RegExp(paper),
  },
  "what a model thought": {
    canonical: [{ role: "assistant", content: "", options: { reasoning: "Hm, so" } }],
    "AI SDK": [ui("assistant", { type: "reasoning", text: "Hm, so" })],
    "OpenAI Agents": [
      { type: "reasoning", id: "rs_1", content: [{ type: "input_text", text: "Hm, so" }] },
    ],
    "Claude Agent": [
      spoken("assistant", [{ type: "thinking", thinking: "Hm, so", signature: "s" }]),
    ],
    "LangChain.js": [{ type: "ai", data: { content: [{ type: "thinking", thinking: "Hm, so" }] } }],
    found: /Hm, so/,
  },
  "a message's id": {
    canonical: [{ id: uuid, ...user("Hello") }],
    "AI SDK": [ui("user", { type: "text", text: "Hello" })],
    "OpenAI Agents": [{ id: uuid, ...user("Hello") }],
    "Claude Agent": [spoken("user", "Hello")],
    "LangChain.js": [human("Hello", { id: uuid })],
    found: new RegExp(uuid),
  },
  "a message's time": {
    canonical: [{ ...user("Hello"), createdAt: new Date("2020-02-02T02:02:02.000Z") }],
    "AI SDK": [],
    "OpenAI Agents": [],
    "Claude Agent": [spoken("user", "Hello", { timestamp: "2020-02-02T02:02:02.000Z" })],
    "LangChain.js": [],
    found: /2020-02-02T02:02:02/,
  },
};

/** A framework's bridge: what it is given it stores, what is stored it gives. */
interface Bridge {
  write(store: ChatStore, given: readonly object[]): Promise<unknown>;
  read(store: ChatStore): Promise<unknown>;
}

const bridges: Readonly<
  Record<"AI SDK" | "OpenAI Agents" | "Claude Agent" | "LangChain.js", Bridge>
> = {
  "AI SDK": {
    async write(store, messages) {
      const chat = aiSdkChat({ store, key });
      await chat.load();
      await chat.save(messages as UIMessage[], { title: null });
    },
    async read(store) {
      return (await aiSdkChat({ store, key, onWarning() {} }).load()).messages;
    },
  },
  "OpenAI Agents": {
    write: (store, items) => openAIAgentsSession({ store, key }).addItems(items as never),
    read: (store) => openAIAgentsSession({ store, key }).getItems(),
  },
  "Claude Agent": {
    write: (store, entries) =>
      claudeSessionStore({ store }).append(session, entries as SessionStoreEntry[]),
    read: (store) => claudeSessionStore({ store }).load(session),
  },
  "LangChain.js": {
    write: (store, messages) =>
      new ChatstoreMessageHistory({ store, key }).addMessages(
        mapStoredMessagesToChatMessages(messages as unknown as StoredMessage[]),
      ),
    async read(store) {
      const messages = await new ChatstoreMessageHistory({ store, key }).getMessages();
      return messages.map((message) => message.toDict());
    },
  },
};

async function cell(row: keyof typeof rows, framework: keyof typeof bridges): Promise<string> {
  const { canonical, found, ...native } = rows[row] as (typeof rows)[string];
  const [written, read] = [memoryChatStore(), memoryChatStore()];
  const given = native[framework];
  if (given.length > 0) await bridges[framework].write(written, given);
  const stored = (await written.getMessages(key)).map(({ native: _, ...others }) => others);
  await read.addMessages(key, canonical as readonly NewMessage[]);
  const isStored = found.test(JSON.stringify(stored));
  const isRead = found.test(JSON.stringify(await bridges[framework].read(read)));
  if (isStored && isRead) return "both ways";
  return isStored ? "from it" : isRead ? "to it" : "–";
}

test("the contract says what conversions keep", async () => {
  const contract = readFileSync(new URL("../../../docs/contract.md", import.meta.url), "utf8");
  const [, section = ""] = contract.split(/^### What conversions keep$/m);
  const [table = ""] = /^\|[\s\S]*?\n(?!\|)/m.exec(section) ?? [];
  const names = Object.keys(bridges) as (keyof typeof bridges)[];
  const tried = [`| | ${names.join(" | ")} |`, `|---${"|---".repeat(names.length)}|`];
  for (const row of Object.keys(rows)) {
    const cells = await Promise.all(names.map((name) => cell(row, name)));
    tried.push(`| ${row} | ${cells.join(" | ")} |`);
  }
  expect(`${tried.join("\n")}\n`).toBe(table);
});

const text = { type: "text", text: "How is Rome?" };
const said = "It is sunny in Rome.";
const withoutBridge: Readonly<Record<string, readonly object[]>> = {
  "OpenAI's responses": [
    user("How is Rome?"),
    { type: "reasoning", id: "rs_1", summary: [] },
    { type: "function_call", call_id: "c1", name: "weather", arguments: '{"city":"Rome"}' },
    { type: "function_call_output", call_id: "c1", output: "Sunny" },
    { type: "message", role: "assistant", content: [{ type: "output_text", text: said }] },
  ],
  "Anthropic's messages": [
    user([text]),
    { role: "assistant", content: [{ type: "tool_use", ...call }] },
    user([{ type: "tool_result", tool_use_id: call.id, content: "Sunny" }]),
    { role: "assistant", content: [{ type: "text", text: said }] },
  ],
  "Gemini's contents": [
    { role: "user", parts: [{ text: text.text }] },
    { role: "model", parts: [{ functionCall: { name: "weather", args: call.input } }] },
    {
      role: "user",
      parts: [{ functionResponse: { name: "weather", response: { result: "Sunny" } } }],
    },
    { role: "model", parts: [{ text: said }] },
  ],
  "LangChain's stored form": [
    human("How is Rome?"),
    { type: "ai", data: { content: "", tool_calls: [{ ...call, args: call.input }] } },
    { type: "tool", data: { content: "Sunny", tool_call_id: call.id } },
    { type: "ai", data: { content: said } },
  ],
};

test.each(
  Object.entries(withoutBridge).flatMap(([form, messages]) =>
    Object.entries(bridges).map(([name, bridge]) => ({ form, messages, name, bridge })),
  ),
)("$form, stored without a bridge, are read by the bridge of $name", async (one) => {
  const store = memoryChatStore<object>();
  await store.addMessages(key, one.messages as never);
  const read = JSON.stringify(await one.bridge.read(store as ChatStore));
  const found = ["How is Rome?", "weather", "Sunny", said].map((some) => read.indexOf(some));
  expect(found).toEqual(found.toSorted((a, b) => a - b));
  expect(found).not.toContain(-1);
});
