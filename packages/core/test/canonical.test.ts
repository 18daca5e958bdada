/** What other frameworks store without a bridge, as every reader understands it. */
import { describe, expect, test } from "vitest";
import { toCanonical, unfold } from "../src/bridge/index.ts";

const call = { id: "c1", name: "weather", input: { city: "Rome" } };
const result = { id: "c1", result: "sunny", isError: false };
const answer = { role: "user", content: "sunny", options: { toolResult: result } };
const calls = { role: "assistant", content: "", options: { toolCall: [call] } };
const pdf = { type: "file", data: "BBBB", mimeType: "application/pdf" };
const png = { type: "image", data: "AAAA", mimeType: "image/png" };

describe.each<{ of: string; message: object; read: object[] }>([
  {
    of: "OpenAI's chat completions: a call",
    message: {
      role: "assistant",
      content: null,
      tool_calls: [
        { id: "c1", type: "function", function: { name: "weather", arguments: '{"city":"Rome"}' } },
      ],
    },
    read: [calls],
  },
  {
    of: "OpenAI's chat completions: a result",
    message: { role: "tool", tool_call_id: "c1", content: "sunny" },
    read: [answer],
  },
  {
    of: "OpenAI's responses: a message",
    message: {
      type: "message",
      role: "assistant",
      content: [{ type: "output_text", text: "hello", annotations: [] }],
    },
    read: [{ role: "assistant", content: "hello" }],
  },
  {
    of: "OpenAI's responses: a file",
    message: {
      role: "user",
      content: [
        { type: "input_file", filename: "a.pdf", file_data: "data:application/pdf;base64,BBBB" },
      ],
    },
    read: [{ role: "user", content: [pdf] }],
  },
  {
    of: "OpenAI's chat completions: a file",
    message: {
      role: "user",
      content: [
        {
          type: "file",
          file: { filename: "a.pdf", file_data: "data:application/pdf;base64,BBBB" },
        },
      ],
    },
    read: [{ role: "user", content: [pdf] }],
  },
  {
    of: "AI SDK: a file and a recording",
    message: {
      role: "user",
      parts: [
        { type: "file", mediaType: "application/pdf", url: "data:application/pdf;base64,BBBB" },
        { type: "file", mediaType: "audio/mpeg", url: "data:audio/mpeg;base64,CCCC" },
      ],
    },
    read: [
      { role: "user", content: [pdf, { type: "audio", data: "CCCC", mimeType: "audio/mpeg" }] },
    ],
  },
  {
    of: "OpenAI's responses: a call",
    message: {
      type: "function_call",
      call_id: "c1",
      name: "weather",
      arguments: '{"city":"Rome"}',
    },
    read: [calls],
  },
  {
    of: "OpenAI's responses: a result",
    message: { type: "function_call_output", call_id: "c1", output: "sunny" },
    read: [answer],
  },
  {
    of: "OpenAI's responses: an input",
    message: {
      role: "user",
      content: [
        { type: "input_text", text: "look" },
        { type: "input_image", image_url: "https://example.org/a.png", detail: "auto" },
      ],
    },
    read: [
      {
        role: "user",
        content: [
          { type: "text", text: "look" },
          { type: "image_url", image_url: { url: "https://example.org/a.png" } },
        ],
      },
    ],
  },
  {
    of: "OpenAI's responses: reasoning",
    message: { type: "reasoning", id: "r1", summary: [], encrypted_content: "gAAAA" },
    read: [],
  },
  {
    of: "Anthropic: thinking, a text and a call",
    message: {
      role: "assistant",
      content: [
        { type: "thinking", thinking: "hm", signature: "s" },
        { type: "text", text: "let me look" },
        { type: "tool_use", ...call },
      ],
    },
    read: [{ ...calls, content: "let me look" }],
  },
  {
    of: "Anthropic: two results, one of which failed",
    message: {
      role: "user",
      content: [
        { type: "tool_result", tool_use_id: "c1", content: [{ type: "text", text: "sunny" }] },
        { type: "tool_result", tool_use_id: "c2", content: "no such city", is_error: true },
      ],
    },
    read: [
      answer,
      {
        role: "user",
        content: "no such city",
        options: { toolResult: { id: "c2", result: "no such city", isError: true } },
      },
    ],
  },
  {
    of: "Anthropic: an image",
    message: {
      role: "user",
      content: [
        { type: "image", source: { type: "base64", media_type: "image/png", data: "AAAA" } },
        { type: "text", text: "look" },
      ],
    },
    read: [{ role: "user", content: [png, { type: "text", text: "look" }] }],
  },
  {
    of: "Gemini: a call",
    message: {
      role: "model",
      parts: [{ functionCall: { name: "weather", args: { city: "Rome" } } }],
    },
    read: [{ ...calls, options: { toolCall: [{ ...call, id: "weather" }] } }],
  },
  {
    of: "Gemini: a result",
    message: {
      role: "user",
      parts: [{ functionResponse: { name: "weather", response: { output: "sunny" } } }],
    },
    read: [{ ...answer, options: { toolResult: { ...result, id: "weather" } } }],
  },
  {
    of: "Gemini: two answers of one tool, which have no ids, and one of which failed",
    message: {
      role: "user",
      parts: [
        { functionResponse: { name: "weather", response: { result: "sunny" } } },
        { functionResponse: { name: "weather", response: { error: "no such city" } } },
      ],
    },
    read: [
      { ...answer, options: { toolResult: { ...result, id: "weather" } } },
      {
        role: "user",
        content: "no such city",
        options: { toolResult: { id: "weather#2", result: "no such city", isError: true } },
      },
    ],
  },
  {
    of: "Gemini: two calls of one tool",
    message: {
      role: "model",
      parts: [
        { functionCall: { name: "weather", args: { city: "Rome" } } },
        { functionCall: { name: "weather", args: { city: "Oslo" } } },
      ],
    },
    read: [
      {
        ...calls,
        options: {
          toolCall: [
            { ...call, id: "weather" },
            { id: "weather#2", name: "weather", input: { city: "Oslo" } },
          ],
        },
      },
    ],
  },
  {
    of: "Gemini: a text, an image and a thought",
    message: {
      role: "user",
      parts: [
        { text: "look" },
        { text: "hm", thought: true },
        { inlineData: { mimeType: "image/png", data: "AAAA" } },
      ],
    },
    read: [{ role: "user", content: [{ type: "text", text: "look" }, png] }],
  },
  {
    of: "the AI SDK's UI messages: a step with a call and its result",
    message: {
      id: "m1",
      role: "assistant",
      parts: [
        { type: "step-start" },
        { type: "reasoning", text: "hm" },
        {
          type: "tool-weather",
          toolCallId: "c1",
          state: "output-available",
          input: { city: "Rome" },
          output: "sunny",
        },
        { type: "text", text: "It is sunny", state: "done" },
        { type: "source-url", sourceId: "s", url: "https://example.org" },
      ],
    },
    read: [calls, answer, { id: "m1", role: "assistant", content: "It is sunny" }],
  },
  {
    of: "the AI SDK's UI messages: a call that waits for approval",
    message: {
      id: "m1",
      role: "assistant",
      parts: [
        {
          type: "dynamic-tool",
          toolName: "weather",
          toolCallId: "c1",
          state: "input-available",
          input: { city: "Rome" },
        },
      ],
    },
    read: [{ id: "m1", ...calls }],
  },
  {
    of: "the AI SDK's UI messages of version 4",
    message: {
      id: "m1",
      role: "assistant",
      content: "It is sunny",
      toolInvocations: [
        {
          state: "result",
          toolCallId: "c1",
          toolName: "weather",
          args: call.input,
          result: "sunny",
        },
      ],
    },
    read: [calls, answer, { id: "m1", role: "assistant", content: "It is sunny" }],
  },
  {
    of: "the AI SDK's model messages: a call",
    message: {
      role: "assistant",
      content: [
        { type: "tool-call", toolCallId: "c1", toolName: "weather", input: { city: "Rome" } },
      ],
    },
    read: [calls],
  },
  {
    of: "the AI SDK's model messages: a result",
    message: {
      role: "tool",
      content: [
        {
          type: "tool-result",
          toolCallId: "c1",
          toolName: "weather",
          output: { type: "text", value: "sunny" },
        },
      ],
    },
    read: [answer],
  },
  {
    of: "LangChain's stored form: the user's",
    message: { type: "human", data: { content: "hello", additional_kwargs: {} } },
    read: [{ role: "user", content: "hello" }],
  },
  {
    of: "LangChain's stored form: a call",
    message: {
      type: "ai",
      data: { content: "", tool_calls: [{ name: "weather", args: { city: "Rome" }, id: "c1" }] },
    },
    read: [calls],
  },
  {
    of: "LangChain's stored form: a result",
    message: { type: "tool", data: { content: "sunny", tool_call_id: "c1" } },
    read: [answer],
  },
  ...(
    [
      [
        "Anthropic: a document",
        { type: "document", source: { type: "base64", media_type: "application/pdf", data: "AA" } },
        { type: "file", data: "AA", mimeType: "application/pdf" },
      ],
      [
        "OpenAI's chat completions: a file",
        { type: "file", file: { file_data: "data:application/pdf;base64,AA", filename: "a.pdf" } },
        { type: "file", data: "AA", mimeType: "application/pdf" },
      ],
      [
        "OpenAI's chat completions: a sound",
        { type: "input_audio", input_audio: { data: "AA", format: "wav" } },
        { type: "audio", data: "AA", mimeType: "audio/wav" },
      ],
      [
        "LangChain: a file",
        { type: "file", source_type: "base64", mime_type: "application/pdf", data: "AA" },
        { type: "file", data: "AA", mimeType: "application/pdf" },
      ],
      [
        "the AI SDK: a file",
        { type: "file", mediaType: "video/mp4", url: "data:video/mp4;base64,AA" },
        { type: "video", data: "AA", mimeType: "video/mp4" },
      ],
    ] as const
  ).map(([of, part, read]) => ({
    of,
    message: { role: "user", content: [part] },
    read: [{ role: "user", content: [read] }],
  })),
  {
    of: "OpenAI's responses: a file that is kept elsewhere",
    message: { role: "user", content: [{ type: "input_file", file_id: "file_1" }] },
    read: [{ role: "user", content: '[file: {"file_id":"file_1"}]' }],
  },
  { of: "somebody unknown", message: { role: "narrator", content: "Once upon" }, read: [] },
  { of: "an item of no known kind", message: { type: "compaction", blob: "x" }, read: [] },
  { of: "nothing", message: { role: "assistant", content: null }, read: [] },
])("$of", ({ message, read }) => {
  test("is read", () => {
    const canonical = toCanonical(message);
    expect(canonical === undefined ? [] : unfold(canonical)).toEqual(read);
  });

  test("keeps what belongs to every message", () => {
    const about = { id: "m7", createdAt: new Date(0), annotations: ["mine"] };
    const canonical = toCanonical({ ...message, ...about });
    if (read.length > 0) expect(canonical).toMatchObject(about);
  });
});

test.each([
  { role: "user", content: "hello" },
  { role: "memory", content: [{ type: "text", text: "hello" }] },
  { role: "user", content: [png] },
  { role: "user", content: [{ type: "made-up", of: "the application" }] },
  answer,
  calls,
])("what is canonical already is not touched: %o", (message) => {
  expect(toCanonical(message)).toBe(message);
});

test.each([
  {},
  { role: 1, content: [null, 1, [[]], { type: 7 }] },
  { role: "assistant", content: [{ type: "tool_use" }, { type: "tool_result" }], parts: "x" },
  { type: "ai", data: { data: { data: {} } } },
  { role: "tool", content: [{ type: "tool-result", toolCallId: 1, output: 1n }] },
  {
    role: "user",
    parts: [
      { type: "tool-", state: "result" },
      { type: "file", url: 1 },
    ],
  },
])("what makes no sense says nothing, and throws nothing: %o", (message) => {
  expect(() => toCanonical(message)).not.toThrow();
});
