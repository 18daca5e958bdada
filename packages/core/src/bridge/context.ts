/**
 * What of a conversation is shown to a model. Providers refuse a whole request over one message that they do not expect, and
 * a conversation that holds it is refused for ever; what each of them expects is tested in `packages/providers-e2e`.
 */
import type { ChatMessage } from "../messages.js";
import { type CanonicalMessage, type CanonicalToolCall, unfold } from "./native.js";
import { ToolCallIds } from "./tool-call-ids.js";
import { inOrder, isToolResult, matchResults, toolCalls } from "./tool-messages.js";

/** Options of {@link modelContext}. */
export interface ModelContextOptions {
  /** Show only the newest n messages, and what {@link cutContext} adds. Default: all. */
  readonly last?: number | undefined;
  /** Give every tool call an id of nine letters and digits, which Mistral alone insists on. Default: false. */
  readonly mistralIds?: boolean | undefined;
}

/**
 * The messages of a conversation that a model may be shown, in an order that OpenAI, Anthropic, Gemini, Mistral, Ollama and
 * Bedrock accept: also after a kill in the middle of a turn, of two tabs that wrote in between each other, and of a page of
 * a history. What is stored stays as it is. Messages that need no change are returned themselves, and a valid history whole.
 *
 * - Each tool result stands right behind its call. A call without a result and a result without a call are left out.
 * - A turn that ended with tool results is closed by an assistant's message ({@link unfinished}) before the user goes on.
 * - Messages without a text or anything else to show are left out, unless the user has just sent one; so are empty parts.
 * - It begins with a message of the user, if there is any. An answer or a tool call before the first one is left out.
 * - System messages stand first, or behind a user's message. The roles `developer` and `memory` are shown as `system` and
 *   `user`.
 * - Tool calls have ids that differ, of at most 40 letters, digits, `_` and `-`, and an object as input.
 *
 * Takes linear time.
 *
 * @param messages In stored order. They may begin anywhere: what `getMessages(key, { last: 50 })` returned.
 * @example const shown = modelContext(await store.getMessages(key, { last: 50 }));
 */
export function modelContext<Message extends ChatMessage>(
  messages: readonly Message[],
  { last, mistralIds = false }: ModelContextOptions = {},
): (Message | ChatMessage)[] {
  let shown = arrangeContext(messages);
  if (last !== undefined && last < shown.length) {
    shown = arrangeContext(cutContext(shown, shown.length - last));
  }
  return presentContext(shown, mistralIds);
}

/** What closes a turn whose end was never stored. */
export const unfinished = "(I was interrupted before I could answer.)";

/**
 * Cut a context, as {@link arrangeContext} returned it, before the message at `start`: what follows, and from before it the
 * system messages at the beginning and the newest message of the user, without which the rest has no meaning. It may have
 * been cut between a call and its result, so it has to be arranged again.
 */
export function cutContext<Message extends ChatMessage>(
  context: readonly Message[],
  start: number,
): Message[] {
  const kept = keptInCut(context).filter((index) => index < start);
  return [...kept.map((index) => context[index] as Message), ...context.slice(start)];
}

/** The positions of what every cut keeps: the system messages at the beginning, and the newest message of the user. */
export function keptInCut(context: readonly ChatMessage[]): number[] {
  const kept = [...leadingSystem(context).keys()];
  const question = context.findLastIndex(isFromUser);
  return question === -1 ? kept : [...kept, question];
}

/** Whether the user said this: tool results have the user's role. */
export function isFromUser(message: ChatMessage): boolean {
  return message.role === "user" && !isToolResult(message);
}

/** Whether it is the user's turn in this message: a model is shown what memory holds as if the user said it. */
function isUserTurn(message: ChatMessage): boolean {
  return isFromUser(message) || message.role === "memory";
}

/** Whether it instructs the model: `developer` is a newer word for `system`. */
export function isSystem({ role }: ChatMessage): boolean {
  return role === "system" || role === "developer";
}

/** The system messages at the beginning. */
export function leadingSystem<Message extends ChatMessage>(context: readonly Message[]): Message[] {
  const body = context.findIndex((message) => !isSystem(message));
  return context.slice(0, body === -1 ? context.length : body);
}

/**
 * The first half of {@link modelContext}, before a cut and after it: results behind their calls, unfinished turns closed,
 * nothing empty.
 */
export function arrangeContext<Message extends ChatMessage>(
  messages: readonly Message[],
): (Message | ChatMessage)[] {
  const given = unfoldAll(messages);
  const newest = given.findLastIndex(isFromUser);
  const results = matchResults(given);
  const context: CanonicalMessage[] = [];
  let open = false;
  const show = (message: CanonicalMessage) => {
    if (open && isUserTurn(message)) context.push({ role: "assistant", content: unfinished });
    if (!isSystem(message)) open = isToolResult(message);
    context.push(message);
  };
  for (let index = 0; index < given.length; index++) {
    const message = given[index] as CanonicalMessage;
    if (isToolResult(message)) continue;
    const answered = toolCalls(message).filter((call) => results.has(call));
    if (answered.length > 0) {
      show(withCalls(message, answered));
      for (const result of inOrder(answered, results)) show(asRole("user", result));
    } else {
      const said = withoutBlanks(withCalls(message, []));
      if (said !== undefined) show(said);
      else if (index === newest) show(message);
    }
  }
  return context as (Message | ChatMessage)[];
}

/** Call and answer, where a framework keeps them in one message, in messages of their own. */
function unfoldAll(messages: readonly ChatMessage[]): readonly CanonicalMessage[] {
  const given = messages as readonly CanonicalMessage[];
  const isFolded = ({ options }: CanonicalMessage) =>
    options?.toolResult !== undefined &&
    (options.toolCall !== undefined || Array.isArray(options.toolResult));
  return given.some(isFolded) ? given.flatMap(unfold) : given;
}

/** The message with these of its calls. */
function withCalls(
  message: CanonicalMessage,
  calls: readonly CanonicalToolCall[],
): CanonicalMessage {
  const { options } = message;
  if (options === undefined || !("toolCall" in options)) return message;
  if (calls.length === 0) {
    const { toolCall: _, ...others } = options;
    return { ...message, options: others };
  }
  const same = message.role === "assistant" && calls.length === options.toolCall?.length;
  return same
    ? message
    : { ...message, role: "assistant", options: { ...options, toolCall: calls } };
}

function asRole<Message extends ChatMessage>(role: ChatMessage["role"], message: Message): Message {
  return message.role === role ? message : { ...message, role };
}

/** Mistral refuses the roles that others do not have, Ollama passes over their messages without a word. */
function withKnownRole(message: ChatMessage): ChatMessage {
  if (message.role === "developer") return asRole("system", message);
  return message.role === "memory" ? asRole("user", message) : message;
}

/** The message without empty texts; `undefined` when it shows nothing else. */
function withoutBlanks(message: CanonicalMessage): CanonicalMessage | undefined {
  const { content } = message;
  if (!Array.isArray(content)) return isBlank(content) ? undefined : message;
  const filled = content.filter((part) => part.type !== "text" || !isBlank(part.text));
  if (filled.length === 0) return undefined;
  return filled.length === content.length ? message : { ...message, content: filled };
}

function isBlank(text: string | null | undefined): boolean {
  if (!text) return true;
  const first = text.charCodeAt(0);
  return !(first > 0x20 && first < 0x7f) && !/[^\s\p{Cc}]/u.test(text);
}

/**
 * The second half of {@link modelContext}, after a cut: begins with the user, system messages in their place, names as
 * everybody knows them.
 */
export function presentContext<Message extends ChatMessage>(
  context: readonly Message[],
  mistralIds: boolean,
): (Message | ChatMessage)[] {
  const named = systemFirst(fromUser(context)).map(withKnownRole);
  const hasTools = named.some(({ options }) => options !== undefined && "toolCall" in options);
  return (hasTools ? new ToolCallIds(mistralIds).of(named) : named) as (Message | ChatMessage)[];
}

/** From the user's first turn on; as it is where there is none, since nothing else would be left. */
function fromUser(context: readonly ChatMessage[]): readonly ChatMessage[] {
  const first = context.findIndex(isUserTurn);
  if (first === -1 || first === leadingSystem(context).length) return context;
  return context.filter((message, index) => index >= first || isSystem(message));
}

/**
 * Mistral takes a system message at the beginning and behind a user's, but not at the end: those that stand elsewhere come
 * first, where Anthropic has all of them.
 */
function systemFirst(context: readonly ChatMessage[]): readonly ChatMessage[] {
  const body = leadingSystem(context).length;
  const end = context.findLastIndex((message) => !isSystem(message));
  const misplaced = new Set<ChatMessage>();
  let behindUser = false;
  for (let index = body; index < context.length; index++) {
    const message = context[index] as ChatMessage;
    if (!isSystem(message)) behindUser = isUserTurn(message);
    else if (!behindUser || index > end) misplaced.add(message);
  }
  if (misplaced.size === 0) return context;
  const others = context.slice(body).filter((message) => !misplaced.has(message));
  return [...context.slice(0, body), ...misplaced, ...others];
}
