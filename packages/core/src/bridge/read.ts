/** What a bridge reads of a conversation that others wrote, too. */
import type { NativeFormat, StoredMessage } from "../messages.js";
import { toCanonical } from "./canonical.js";
import { type CanonicalMessage, type CanonicalToolResult, nativeOf, unfold } from "./native.js";
import { toolCalls } from "./tool-messages.js";

/**
 * As many messages of the canonical layer as a stored one amounts to, each with at most one answer of a tool, and each with an
 * id of its own, the last with the message's; none when it can show nothing. Whoever stored it: a bridge, or an application
 * without one.
 */
export function partsOf(message: object): CanonicalMessage[] {
  const canonical = toCanonical(message);
  if (canonical === undefined) return [];
  if (canonical.options === undefined) return [canonical];
  const { id } = canonical;
  return unfold(canonical).map((part, index) =>
    part.id !== undefined || id === undefined ? part : { ...part, id: `${id}/${index}` },
  );
}

/** A message that a framework without the canonical layer has to be made of: an answer of a tool, or what somebody said. */
export type Part = StoredMessage<CanonicalMessage> & {
  /** The answer, and the tool's name where its call was read. */
  readonly answer: (CanonicalToolResult & { readonly name: string | undefined }) | undefined;
};

/**
 * Stored messages in a framework's form, as many as each amounts to: its own exactly as they were given, others by what their
 * canonical layer says. What an assistant left empty, such as titles and thoughts of another framework, amounts to none.
 *
 * @param messages Oldest first: the answer of a tool is named after the call before it.
 * @throws UnsupportedFormatError for messages of another version of the framework's form.
 */
export function readMessages<Native, Value>(
  messages: readonly StoredMessage[],
  form: {
    readonly format: NativeFormat;
    readonly own: (native: Native, message: StoredMessage) => readonly Value[];
    readonly others: (part: Part) => readonly Value[];
    /** Whether calls that others keep one by one are to be one message, as providers want them where results follow. */
    readonly joinsCalls?: boolean;
  },
): Value[][] {
  const names = new Map<string, string>();
  return (form.joinsCalls ? joinCalls(messages, form.format) : messages).map((message) => {
    const native = nativeOf<Native>(message, form.format);
    const parts = partsOf(message);
    for (const { id, name } of parts.flatMap(toolCalls)) names.set(id, name);
    if (native !== undefined) return [...form.own(native, message)];
    return parts.filter(saysSomething).flatMap((part) => {
      const result = part.options?.toolResult as CanonicalToolResult | undefined;
      const answer = result && { ...result, name: names.get(result.id) };
      return form.others({ ...(part as StoredMessage<CanonicalMessage>), answer });
    });
  });
}

/** Calls that no result parts, of one message. */
function joinCalls(messages: readonly StoredMessage[], format: NativeFormat): StoredMessage[] {
  const joined: StoredMessage[] = [];
  let before: CanonicalMessage | undefined;
  for (const message of messages) {
    const isOwn = nativeOf(message, format) !== undefined;
    const said = isOwn ? [] : partsOf(message).filter(saysSomething);
    if (!isOwn && said.length === 0) continue;
    const [part] = said;
    const isCalls = said.length === 1 && part !== undefined && toolCalls(part).length > 0;
    if (isCalls && before !== undefined && part.content.length === 0) {
      const toolCall = [...toolCalls(before), ...toolCalls(part)];
      before = { ...before, options: { ...before.options, toolCall } };
      joined[joined.length - 1] = before as StoredMessage;
    } else {
      before = isCalls ? part : undefined;
      joined.push(message);
    }
  }
  return joined;
}

function saysSomething(part: CanonicalMessage): boolean {
  return part.role !== "assistant" || part.content.length > 0 || toolCalls(part).length > 0;
}
