/** OpenAI's chat completions. */
import { newId } from "./model.js";
import type { Rule } from "./rules.js";
import { type Api, events, inWords } from "./server.js";

interface ToolCall {
  id: string;
  type: "function";
  function: { name: string; arguments: string };
}

interface Message {
  role: string;
  content?: string | { type: string; text?: string }[] | null;
  tool_calls?: ToolCall[];
  tool_call_id?: string;
}

export interface OpenAIBody {
  messages: Message[];
  tools?: unknown[];
  stream?: boolean;
}

const roles = ["developer", "system", "user", "assistant", "tool", "function"];
const fields = [
  ...["role", "content", "name", "refusal", "annotations", "audio"],
  ...["tool_calls", "tool_call_id", "function_call"],
];
const reference = "https://platform.openai.com/docs/api-reference/chat/create";

export const openaiRules: readonly Rule<OpenAIBody>[] = [
  {
    known: "https://github.com/run-llama/llama_index/issues/9373",
    *broken({ messages }) {
      if (messages.length === 0) yield "[] is too short - 'messages'";
    },
  },
  {
    known: reference,
    *broken({ messages }) {
      for (const [index, { role, content, tool_calls }] of messages.entries()) {
        if (!roles.includes(role)) {
          yield `Invalid value: '${role}'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', and 'developer'.`;
        }
        const isOptional = role === "assistant" && tool_calls !== undefined;
        if (typeof content !== "string" && !Array.isArray(content) && !isOptional) {
          yield `Invalid value for 'content': expected a string, got ${content}. (messages[${index}])`;
        }
        if (Array.isArray(content) && content.length === 0) {
          yield `Invalid 'messages[${index}].content': empty array. Expected an array with minimum length 1, but got an empty array instead.`;
        }
      }
    },
  },
  {
    known: reference,
    *broken({ messages }) {
      for (const [index, message] of messages.entries()) {
        const unknown = Object.keys(message).find((name) => !fields.includes(name));
        if (unknown !== undefined) {
          yield `Additional properties are not allowed ('${unknown}' was unexpected) - 'messages.${index}'`;
        }
      }
    },
  },
  {
    known: "https://github.com/openai/openai-node/pull/1341",
    *broken({ messages }) {
      for (const [index, { tool_calls }] of messages.entries()) {
        if (tool_calls?.length === 0) {
          yield `Invalid 'messages[${index}].tool_calls': empty array. Expected an array with minimum length 1, but got an empty array instead.`;
        }
      }
    },
  },
  {
    known:
      "https://github.com/continuedev/continue/issues/11645 and, of the length, the API reference",
    *broken({ messages }) {
      for (const [index, { tool_calls = [] }] of messages.entries()) {
        for (const [call, { id, function: called }] of tool_calls.entries()) {
          const path = `messages[${index}].tool_calls[${call}]`;
          if (typeof id !== "string" || id.length > 40) {
            yield `Invalid '${path}.id': string too long. Expected a string with maximum length 40, but got a string with length ${id?.length} instead.`;
          }
          if (!/^[\w-]{1,64}$/.test(called.name)) {
            yield `Invalid '${path}.function.name': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.`;
          }
          if (typeof called.arguments !== "string") {
            yield `Invalid type for '${path}.function.arguments': expected a string, but got an object instead.`;
          }
        }
      }
    },
  },
  {
    known:
      "https://github.com/agno-agi/agno/issues/3105, https://github.com/itmisx/deepx-code/issues/94",
    *broken({ messages }) {
      let open: string[] = [];
      for (const { role, tool_calls, tool_call_id } of messages) {
        if (role === "tool") {
          if (!open.includes(tool_call_id as string)) {
            yield "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.";
          }
          open = open.filter((id) => id !== tool_call_id);
        } else {
          if (open.length > 0) yield unanswered(open);
          open = tool_calls?.map(({ id }) => id) ?? [];
        }
      }
      if (open.length > 0) yield unanswered(open);
    },
  },
];

function unanswered(ids: readonly string[]): string {
  return `An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The following tool_call_ids did not have response messages: ${ids.join(", ")}`;
}

export const openai: Api<OpenAIBody> = {
  rules: openaiRules,
  see: ({ messages }) =>
    messages.map(({ role, content }) => ({
      who: role === "developer" ? "system" : (role as "user"),
      text:
        typeof content === "string" ? content : (content ?? []).map(({ text }) => text).join(""),
    })),
  hasTools: ({ tools = [] }) => tools.length > 0,
  isStream: ({ stream = false }) => stream,
  streamType: "text/event-stream",
  answer(answer, stream) {
    const calls = "calls" in answer ? answer.calls : [];
    const toolCalls = calls.map(({ name, input }) => ({
      id: `call_${newId(24)}`,
      type: "function",
      function: { name, arguments: JSON.stringify(input) },
    }));
    const finish = toolCalls.length > 0 ? "tool_calls" : "stop";
    const content = "text" in answer ? answer.text : null;
    const head = { id: `chatcmpl-${newId(24)}`, created: 1, model: "gpt-4o" };
    if (!stream) {
      const message = {
        role: "assistant",
        content,
        ...(calls.length > 0 && { tool_calls: toolCalls }),
      };
      const choices = [{ index: 0, message, finish_reason: finish }];
      return [JSON.stringify({ ...head, object: "chat.completion", choices })];
    }
    const deltas: object[] = [
      { role: "assistant", content: content === null ? null : "" },
      ...inWords(content ?? "")
        .filter(Boolean)
        .map((word) => ({ content: word })),
      ...toolCalls.flatMap(({ function: { name, arguments: given }, ...call }, index) => [
        { tool_calls: [{ ...call, index, function: { name, arguments: "" } }] },
        { tool_calls: [{ index, function: { arguments: given.slice(0, 5) } }] },
        { tool_calls: [{ index, function: { arguments: given.slice(5) } }] },
      ]),
    ];
    const chunk = (delta: object, finish_reason: string | null) => ({
      ...head,
      object: "chat.completion.chunk",
      choices: [{ index: 0, delta, finish_reason }],
    });
    return events([...deltas.map((delta) => chunk(delta, null)), chunk({}, finish), "[DONE]"]);
  },
  refuse: (message) => ({
    status: 400,
    body: { error: { message, type: "invalid_request_error", param: null, code: null } },
  }),
};
