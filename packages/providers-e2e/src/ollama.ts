/** Ollama's chat. */
import { isObject, type Rule } from "./rules.js";
import { type Api, inWords } from "./server.js";

interface Message {
  role: string;
  content?: unknown;
  tool_calls?: { function: { name: string; arguments: unknown } }[];
}

export interface OllamaBody {
  messages: Message[];
  tools?: unknown[];
  stream?: boolean;
}

export const ollamaRules: readonly Rule<OllamaBody>[] = [
  {
    known: "https://github.com/ollama/ollama/issues/10255",
    *broken({ messages }) {
      for (const { content } of messages) {
        if (content !== undefined && typeof content !== "string") {
          const type = Array.isArray(content) ? "array" : typeof content;
          yield `json: cannot unmarshal ${type} into Go struct field ChatRequest.messages.content of type string`;
        }
      }
    },
  },
  {
    known: "https://github.com/rashadphz/farfalle/issues/89",
    *broken({ messages }) {
      for (const { function: called } of messages.flatMap(({ tool_calls = [] }) => tool_calls)) {
        if (!isObject(called.arguments)) {
          yield "json: cannot unmarshal string into Go struct field ChatRequest.messages.tool_calls.function.arguments of type api.ToolCallFunctionArguments";
        }
      }
    },
  },
  {
    known:
      "https://github.com/earendil-works/pi/pull/140: the real one passes over other roles without a word, and the model never sees the message",
    *broken({ messages }) {
      for (const { role } of messages) {
        if (!["system", "user", "assistant", "tool"].includes(role)) yield `invalid role: ${role}`;
      }
    },
  },
];

export const ollama: Api<OllamaBody> = {
  rules: ollamaRules,
  see: ({ messages }) =>
    messages.map(({ role, content }) => ({ who: role as "user", text: String(content) })),
  hasTools: ({ tools = [] }) => tools.length > 0,
  isStream: ({ stream = true }) => stream,
  streamType: "application/x-ndjson",
  answer(answer, stream) {
    const calls = "calls" in answer ? answer.calls : [];
    const tool_calls = calls.map(({ name, input }) => ({ function: { name, arguments: input } }));
    const content = "text" in answer ? answer.text : "";
    const line = (message: object, done: boolean) => ({
      model: "llama3.1",
      created_at: "2026-01-01T00:00:00Z",
      message: { role: "assistant", content: "", ...message },
      done,
      ...(done && { done_reason: "stop" }),
    });
    if (!stream)
      return [JSON.stringify(line({ content, ...(calls.length > 0 && { tool_calls }) }, true))];
    const messages =
      calls.length > 0 ? [{ tool_calls }] : inWords(content).map((word) => ({ content: word }));
    const lines = [...messages.map((message) => line(message, false)), line({}, true)];
    return lines.map((one) => `${JSON.stringify(one)}\n`);
  },
  refuse: (message) => ({ status: 400, body: { error: message } }),
};
