/** Anthropic's messages. */
import { newId, type Seen } from "./model.js";
import { isBlank, isObject, type Rule } from "./rules.js";
import { type Api, inWords } from "./server.js";

interface Block {
  type: string;
  text?: string;
  id?: string;
  name?: string;
  input?: unknown;
  tool_use_id?: string;
  content?: string | Block[];
}

interface Message {
  role: string;
  content: string | Block[];
}

export interface AnthropicBody {
  messages: Message[];
  system?: string | Block[];
  tools?: unknown[];
  stream?: boolean;
}

const toolUse = "https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/implement-tool-use";

const blocksOf = ({ content }: Message): Block[] =>
  typeof content === "string" ? [{ type: "text", text: content }] : content;

const idsOf = (message: Message | undefined, type: "tool_use" | "tool_result"): string[] =>
  message === undefined
    ? []
    : blocksOf(message)
        .filter((block) => block.type === type)
        .map((block) => (type === "tool_use" ? block.id : block.tool_use_id) as string);

export const anthropicRules: readonly Rule<AnthropicBody>[] = [
  {
    known: "https://docs.anthropic.com/en/api/messages: the first message is a user's",
    *broken({ messages }) {
      if (messages.length === 0) yield "messages: at least one message is required";
      else if (messages[0]?.role !== "user")
        yield 'messages: first message must use the "user" role';
    },
  },
  {
    known: "https://docs.anthropic.com/en/api/messages",
    *broken({ messages }) {
      for (const [index, { role, content: _, ...others }] of messages.entries()) {
        for (const name of Object.keys(others)) {
          yield `messages.${index}.${name}: Extra inputs are not permitted`;
        }
        if (role !== "user" && role !== "assistant") {
          yield `messages.${index}.role: Input should be 'user' or 'assistant'`;
        }
      }
    },
  },
  {
    known:
      "https://github.com/anthropics/claude-code/issues/59812 (empty), https://github.com/anthropics/claude-code/issues/23369 (white space)",
    *broken({ messages, system = [] }) {
      for (const [index, message] of messages.entries()) {
        if (
          message.content.length === 0 &&
          (message.role === "user" || index < messages.length - 1)
        ) {
          yield `messages.${index}: all messages must have non-empty content except for the optional final assistant message`;
        }
      }
      const own = typeof system === "string" ? [] : system;
      for (const { type, text = "" } of [...own, ...messages.flatMap(blocksOf)]) {
        if (type !== "text") continue;
        if (text === "") yield "messages: text content blocks must be non-empty";
        if (isBlank(text)) yield "messages: text content blocks must contain non-whitespace text";
      }
    },
  },
  {
    known: "https://github.com/anthropics/claude-code/issues/7327",
    *broken({ messages }) {
      for (const [index, message] of messages.entries()) {
        const next = messages[index + 1];
        const answered = next?.role === "user" ? idsOf(next, "tool_result") : [];
        const open = idsOf(message, "tool_use").filter((id) => !answered.includes(id));
        if (open.length > 0) {
          yield `messages.${index}: \`tool_use\` ids were found without \`tool_result\` blocks immediately after: ${open.join(", ")}. Each \`tool_use\` block must have a corresponding \`tool_result\` block in the next message.`;
        }
      }
    },
  },
  {
    known: "https://github.com/anthropics/claude-code/issues/18947",
    *broken({ messages }) {
      for (const [index, message] of messages.entries()) {
        const called = idsOf(messages[index - 1], "tool_use");
        const answered = idsOf(message, "tool_result");
        for (const [place, id] of answered.entries()) {
          if (!called.includes(id)) {
            yield `messages.${index}.content.${place}: unexpected \`tool_use_id\` found in \`tool_result\` blocks: ${id}. Each \`tool_result\` block must have a corresponding \`tool_use\` block in the previous message.`;
          }
        }
        if (new Set(answered).size < answered.length) {
          yield `messages.${index}: each tool_use must have a single result. Found multiple \`tool_result\` blocks with id: ${answered.join(", ")}`;
        }
      }
    },
  },
  {
    known: `${toolUse}: results come first in their message`,
    *broken({ messages }) {
      for (const [index, message] of messages.entries()) {
        const types = blocksOf(message).map(({ type }) => type);
        const first = types.findIndex((type) => type !== "tool_result");
        if (first !== -1 && types.lastIndexOf("tool_result") > first) {
          yield `messages.${index}: \`tool_result\` blocks must come before other content`;
        }
      }
    },
  },
  {
    known:
      "https://github.com/BerriAI/litellm/issues/23510, https://github.com/trycua/cua/issues/524",
    *broken({ messages }) {
      const ids = messages.flatMap((message) => idsOf(message, "tool_use"));
      if (new Set(ids).size < ids.length) yield "messages: `tool_use` ids must be unique";
    },
  },
  {
    known: "https://github.com/HKUDS/nanobot/pull/4356; of name and input, the API's reference",
    *broken({ messages }) {
      for (const { type, id = "", name = "", input } of messages.flatMap(blocksOf)) {
        if (type !== "tool_use") continue;
        if (!/^[a-zA-Z0-9_-]+$/.test(id)) {
          yield "messages.content.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'";
        }
        if (!/^[a-zA-Z0-9_-]{1,128}$/.test(name)) {
          yield "messages.content.tool_use.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'";
        }
        if (!isObject(input)) {
          yield "messages.content.tool_use.input: Input should be a valid dictionary";
        }
      }
    },
  },
];

export const anthropic: Api<AnthropicBody> = {
  rules: anthropicRules,
  see: ({ messages }) =>
    messages.flatMap((message) =>
      blocksOf(message).flatMap(({ type, text, content }): Seen[] => {
        if (type === "tool_result") return [{ who: "tool", text: String(content) }];
        return type === "text" ? [{ who: message.role as "user", text: text ?? "" }] : [];
      }),
    ),
  hasTools: ({ tools = [] }) => tools.length > 0,
  isStream: ({ stream = false }) => stream,
  streamType: "text/event-stream",
  answer(answer, stream) {
    const content =
      "text" in answer
        ? [{ type: "text" as const, text: answer.text }]
        : answer.calls.map((call) => ({
            type: "tool_use" as const,
            id: `toolu_${newId(24)}`,
            ...call,
          }));
    const stop_reason = "text" in answer ? "end_turn" : "tool_use";
    const usage = { input_tokens: 1, output_tokens: 1 };
    const id = `msg_${newId(24)}`;
    const head = {
      id,
      type: "message",
      role: "assistant",
      model: "claude",
      stop_sequence: null,
      usage,
    };
    if (!stream) return [JSON.stringify({ ...head, content, stop_reason })];
    const blocks = content.flatMap((block, index) => {
      const [empty, deltas] =
        block.type === "text"
          ? [{ text: "" }, inWords(block.text).map((text) => ({ type: "text_delta", text }))]
          : [{ input: {} }, inHalves(JSON.stringify(block.input))];
      return [
        { type: "content_block_start", index, content_block: { ...block, ...empty } },
        ...deltas.map((delta) => ({ type: "content_block_delta", index, delta })),
        { type: "content_block_stop", index },
      ];
    });
    return [
      { type: "message_start", message: { ...head, content: [], stop_reason: null } },
      ...blocks,
      { type: "message_delta", delta: { stop_reason, stop_sequence: null }, usage },
      { type: "message_stop" },
    ].map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
  },
  refuse: (message) => ({
    status: 400,
    body: { type: "error", error: { type: "invalid_request_error", message } },
  }),
};

function inHalves(json: string) {
  return ["", json.slice(0, 5), json.slice(5)].map((partial_json) => ({
    type: "input_json_delta",
    partial_json,
  }));
}
