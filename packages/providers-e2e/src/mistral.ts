/** Mistral's chat completions. */
import { newId } from "./model.js";
import { isBlank, type Rule } from "./rules.js";
import { type Api, events, inWords } from "./server.js";

interface Message {
  role: string;
  content?: string | { text?: string }[] | null;
  tool_calls?: { id?: string; function: { name: string } }[] | null;
  tool_call_id?: string | null;
}

export interface MistralBody {
  messages: Message[];
  tools?: unknown[] | null;
  stream?: boolean;
}

/** Mistral's own validator of requests. */
const validator =
  "https://github.com/mistralai/mistral-common/blob/main/src/mistral_common/protocol/instruct/validator.py";

const after: Readonly<Record<string, readonly string[]>> = {
  system: ["user", "assistant", "system"],
  user: ["assistant", "system", "user"],
  assistant: ["assistant", "user", "tool"],
  tool: ["assistant", "tool"],
};

export const mistralRules: readonly Rule<MistralBody>[] = [
  {
    known: `${validator} (structure)`,
    *broken({ messages }) {
      const [first] = messages;
      const last = messages.at(-1);
      if (first === undefined) yield "Conversation must have at least one message";
      else if (messages.length === 1 && first.role !== "user" && first.role !== "system") {
        yield "Conversation must start with a user message or system message";
      } else if (messages.length > 1 && last?.role !== "user" && last?.role !== "tool") {
        yield `Expected last role User or Tool (or Assistant with prefix True) for serving but got ${last?.role}`;
      }
    },
  },
  {
    known: "https://docs.mistral.ai/api/#operation/chat_completion_v1_chat_completions_post",
    *broken({ messages }) {
      for (const [index, { role }] of messages.entries()) {
        if (!(role in after)) {
          yield `body.messages.${index}: Input tag '${role}' found using 'role' does not match any of the expected tags: 'assistant', 'system', 'tool', 'user'`;
        }
      }
    },
  },
  {
    known: `${validator} (order), https://github.com/datapizza-labs/datapizza-ai/issues/98`,
    *broken({ messages }) {
      for (const [index, { role }] of messages.entries()) {
        const before = messages[index - 1]?.role;
        if (before !== undefined && !after[before]?.includes(role)) {
          yield `Unexpected role '${role}' after role '${before}'`;
        }
      }
    },
  },
  {
    known: `${validator} (calls followed by results)`,
    *broken({ messages }) {
      let expected = 0;
      for (const { role, tool_calls } of messages) {
        if (role === "tool") expected--;
        if (role !== "assistant") continue;
        if (expected !== 0) yield "Not the same number of function calls and responses";
        expected = tool_calls?.length ?? 0;
      }
      if (expected !== 0) yield "Not the same number of function calls and responses";
    },
  },
  {
    known: `${validator} (assistant's content)`,
    *broken({ messages }) {
      for (const { role, content, tool_calls } of messages) {
        const says = typeof content === "string" ? !isBlank(content) : !!content?.length;
        if (role === "assistant" && !says && !tool_calls?.length) {
          yield "Assistant message must have either content or tool_calls, but not both.";
        }
      }
    },
  },
  {
    known: `${validator} (ids), https://github.com/langchain-ai/langchain/pull/24668`,
    *broken({ messages }) {
      for (const { role, tool_calls, tool_call_id } of messages) {
        const ids = (tool_calls ?? []).map(({ id }) => id);
        for (const id of role === "tool" ? [tool_call_id] : ids) {
          if (!/^[a-zA-Z0-9]{9}$/.test(id ?? "")) {
            yield `Tool call id was ${id} but must be a-z, A-Z, 0-9, with a length of 9.`;
          }
        }
        for (const { function: called } of tool_calls ?? []) {
          if (!/^[a-zA-Z0-9_-]{1,64}$/.test(called.name)) {
            yield `Function name was ${called.name} but must be a-z, A-Z, 0-9, or contain underscores and dashes, with a maximum length of 64.`;
          }
        }
      }
    },
  },
];

export const mistral: Api<MistralBody> = {
  rules: mistralRules,
  see: ({ messages }) =>
    messages.map(({ role, content }) => ({
      who: role as "user",
      text:
        typeof content === "string" ? content : (content ?? []).map(({ text }) => text).join(""),
    })),
  hasTools: ({ tools }) => (tools ?? []).length > 0,
  isStream: ({ stream = false }) => stream,
  streamType: "text/event-stream",
  answer(answer, stream) {
    const calls = "calls" in answer ? answer.calls : [];
    const tool_calls = calls.map(({ name, input }, index) => ({
      id: newId(9),
      index,
      function: { name, arguments: JSON.stringify(input) },
    }));
    const finish_reason = calls.length > 0 ? "tool_calls" : "stop";
    const content = "text" in answer ? answer.text : "";
    const head = { id: newId(32), created: 1, model: "mistral-large-latest" };
    const usage = { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 };
    if (!stream) {
      const message = {
        role: "assistant",
        content,
        tool_calls: calls.length > 0 ? tool_calls : null,
      };
      const choices = [{ index: 0, message, finish_reason }];
      return [JSON.stringify({ ...head, object: "chat.completion", usage, choices })];
    }
    const deltas: object[] =
      calls.length > 0
        ? tool_calls.map((call) => ({ content: "", tool_calls: [call] }))
        : inWords(content).map((word) => ({ content: word }));
    const chunks = deltas.map((delta, index) => {
      const finish = index === deltas.length - 1 ? finish_reason : null;
      const choices = [{ index: 0, delta, finish_reason: finish }];
      return { ...head, object: "chat.completion.chunk", choices };
    });
    return events([...chunks, "[DONE]"]);
  },
  refuse: (message) => ({
    status: 400,
    body: {
      object: "error",
      message,
      type: "invalid_request_message_order",
      param: null,
      code: "3230",
    },
  }),
};
