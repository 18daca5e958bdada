import type { ChatMessage } from "../messages.js";

/**
 * The order in which a model accepts tool messages: each result right behind the message that calls the tool. A call
 * without a result and a result without a call are left out, because providers refuse the whole request over one of
 * them. Returns a new array; messages that stay as they are are not copied.
 *
 * Two tabs may have stored their messages in between each other, and a token limit may have cut between a call and its
 * result.
 */
export function arrangeToolMessages<Message extends ChatMessage>(
  messages: readonly Message[],
): Message[] {
  const results = matchResults(messages);
  return messages.flatMap((message) => {
    if (toolResultId(message) !== undefined) return [];
    const calls = toolCalls(message);
    if (calls.length === 0) return [message];
    const answered = calls.filter((call) => results.has(call));
    const answers = answered.map((call) => results.get(call) as Message);
    return [...withCalls(message, calls, answered), ...new Set(answers)];
  });
}

interface ToolCall {
  readonly id: string;
}

/** The result of each call. An id may be used again later: a result belongs to the nearest call before it, if there is one. */
function matchResults<Message extends ChatMessage>(
  messages: readonly Message[],
): ReadonlyMap<ToolCall, Message> {
  const results = new Map<ToolCall, Message>();
  const open = new Map<string, ToolCall[]>();
  const early: Message[] = [];
  for (const message of messages) {
    for (const call of toolCalls(message)) {
      const calls = open.get(call.id);
      if (calls === undefined) open.set(call.id, [call]);
      else calls.push(call);
    }
    const id = toolResultId(message);
    if (id === undefined) continue;
    const call = open.get(id)?.pop();
    if (call === undefined) early.push(message);
    else results.set(call, message);
  }
  for (const message of early) {
    const call = open.get(toolResultId(message) ?? "")?.shift();
    if (call !== undefined) results.set(call, message);
  }
  return results;
}

/** The message with only those calls that have a result; nothing, when nothing is left of it. */
function withCalls<Message extends ChatMessage>(
  message: Message,
  calls: readonly ToolCall[],
  answered: readonly ToolCall[],
): Message[] {
  if (answered.length === calls.length) return [message];
  if (answered.length > 0) {
    return [{ ...message, options: { ...message.options, toolCall: answered } }];
  }
  if (message.content.length === 0) return [];
  const { toolCall: _, ...options } = message.options as { toolCall: unknown };
  return [{ ...message, options }];
}

function toolCalls(message: ChatMessage): readonly ToolCall[] {
  const { options } = message;
  if (!options || !("toolCall" in options) || !Array.isArray(options.toolCall)) return [];
  return (options.toolCall as ToolCall[]).filter((call) => typeof call?.id === "string");
}

function toolResultId(message: ChatMessage): string | undefined {
  const { options } = message;
  if (!options || !("toolResult" in options)) return undefined;
  return (options.toolResult as Partial<ToolCall> | undefined)?.id;
}
