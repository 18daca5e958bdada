import type { ChatMessage } from "llamaindex";

export const isToolCall = (message: ChatMessage): boolean => callIds(message).length > 0;
export const isToolResult = (message: ChatMessage): boolean => resultId(message) !== undefined;

/**
 * Why a model API would refuse these messages, as OpenAI's and Anthropic's do; `undefined` if it would not. Right behind
 * a message with tool calls stand their results, one for each, and nowhere else stands a result.
 */
export function refusal(messages: readonly ChatMessage[]): string | undefined {
  let open: string[] = [];
  for (const [index, message] of messages.entries()) {
    const id = resultId(message);
    if (id !== undefined) {
      if (!open.includes(id)) return `message ${index} is a result of no call before it: ${id}`;
      open = open.filter((one) => one !== id);
    } else {
      if (open.length > 0)
        return `message ${index} stands before the results of ${open.join(", ")}`;
      open = callIds(message);
      if (new Set(open).size < open.length) return `message ${index} has two calls with one id`;
    }
  }
  return open.length > 0 ? `there is no result of ${open.join(", ")}` : undefined;
}

function callIds({ options }: ChatMessage): string[] {
  const calls = options && "toolCall" in options ? options.toolCall : [];
  return (calls as { id: string }[]).map(({ id }) => id);
}

function resultId({ options }: ChatMessage): string | undefined {
  const result = options && "toolResult" in options ? options.toolResult : undefined;
  return (result as { id: string } | undefined)?.id;
}
