/** What of a conversation the model is shown, and how that is counted. */
import type { ChatMessage, MessageContent } from "@chatstore/core";

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
  // Most conversations have none.
  if (messages.every(({ options }) => options === undefined)) return [...messages];
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

/** The id of the call that a message answers; `undefined` when it is no tool's result. */
export function toolResultId(message: ChatMessage): string | undefined {
  const { options } = message;
  if (!options || !("toolResult" in options)) return undefined;
  return (options.toolResult as Partial<ToolCall> | undefined)?.id;
}

type Count = (messages: readonly ChatMessage[]) => number;

/**
 * Counts tokens as LlamaIndex does: of all texts, with a space in between. `getLLM` asks for the count of an array that
 * grows by one message at a time; each time takes only as long as the new message, unless an application's own tokenizer
 * has tokens that reach over a space behind a word.
 */
export function tokenCount(count: Count): Count {
  return dividesAtSpaces(count) ? growingCount(count) : count;
}

/** More tokens than any tokenizer adds to a text, such as marks of its begin and end. */
const maxAddedTokens = 256;

/** Counts at least as many tokens as there can be, without tokenising: one for each byte, and what is added. */
export function tokenBound(): Count {
  // Of the array that grows: the one that is asked for again.
  let last = { messages: [] as readonly ChatMessage[], length: 0, bytes: 0 };
  return (messages) => {
    const known = last.messages === messages ? last : { messages, length: 0, bytes: 0 };
    for (; known.length < messages.length; known.length++) {
      known.bytes += bytesOf((messages[known.length] as ChatMessage).content);
    }
    if (messages.length > 1) last = known;
    return maxAddedTokens + known.bytes;
  };
}

/** Bytes of the text of a message, with those that LlamaIndex puts between texts. */
function bytesOf(content: MessageContent): number {
  const parts = typeof content === "string" ? 0 : content.length;
  return Buffer.byteLength(textOf(content)) + 2 * parts + 1;
}

/** Tried with texts of many lengths, so that a tokenizer which only divides by some number shows its rounding. */
function dividesAtSpaces(count: Count): boolean {
  return ["I", "am", "now", "here", "again", "with 1", "message"].every((text) => {
    const once = count([message(""), message(text)]);
    return count([message(""), ...Array(8).fill(message(text))]) === 8 * once;
  });
}

function message(content: string): ChatMessage {
  return { role: "user", content };
}

/** Tokenises together only what follows the last space behind a word. */
function growingCount(count: Count): Count {
  const nothing = { length: 0, tokens: 0, settled: 0, tail: [] as readonly ChatMessage[] };
  const counts = new WeakMap<readonly ChatMessage[], typeof nothing>();
  return (messages) => {
    let { length, tokens, settled, tail } = counts.get(messages) ?? nothing;
    for (const added of messages.slice(length)) {
      const last = tail.at(-1);
      if (last !== undefined && (endsInWord(last) || tail.length > maxTailLength)) {
        settled = tokens;
        tail = [message("")];
      }
      tail = [...tail, added];
      tokens = settled + count(tail);
      length++;
    }
    counts.set(messages, { length, tokens, settled, tail });
    return tokens;
  };
}

/** Keeps the count linear where many texts end in white space, at the price of a token more or less. */
const maxTailLength = 16;

function endsInWord({ content }: ChatMessage): boolean {
  return /\S$/.test(typeof content === "string" ? content : textOf(content));
}

/** The text of a message, without its other parts. */
export function textOf(content: MessageContent): string {
  if (typeof content === "string") return content;
  return content.map((part) => (part.type === "text" ? part.text : "")).join("");
}
