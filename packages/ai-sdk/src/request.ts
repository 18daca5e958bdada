/** What a client's request makes of the stored conversation. */
import { InvalidMessageError, InvalidOptionsError } from "@chatstore/core";
import type { UIMessage } from "ai";
import { checked, digestOf } from "./messages.js";

/** The body that `useChat` sends, or one with the last `message` alone. Other fields do not matter. */
export interface ChatRequest {
  /** All that the tab shows, as the default transport sends it. */
  readonly messages?: readonly UIMessage[] | undefined;
  /** Only the last one: less to send. */
  readonly message?: UIMessage | undefined;
  /** What the person did. Default: `submit-message`. */
  readonly trigger?: "submit-message" | "regenerate-message" | (string & {}) | undefined;
  /** The message that is edited, continued or answered anew. */
  readonly messageId?: string | undefined;
  /**
   * The last message that the tab showed before an edit or a regeneration cut it: with it, a tab that has not seen what another
   * one wrote never cuts that.
   */
  readonly lastMessageId?: string | undefined;
}

/**
 * The conversation as the tab wants it. Of stored messages the stored form counts, whatever the client says of them: it adds
 * a question, answers tool calls that wait for it, or goes back.
 *
 * @returns `undefined` when the tab has not seen what is stored.
 * @throws InvalidOptionsError, InvalidMessageError for what no client sends.
 */
export function applyRequest(
  known: readonly UIMessage[],
  request: ChatRequest,
): UIMessage[] | undefined {
  if (typeof request !== "object" || request === null) {
    throw new InvalidOptionsError("The request's body is no object: give what useChat sends");
  }
  const { messageId, trigger, lastMessageId } = request;
  const given = request.messages ?? (request.message ? [request.message] : []);
  const sent = fromFirst(checked(given), known);
  if (lastMessageId !== undefined && !isLast(known, lastMessageId)) return undefined;
  const last = sent.at(-1);
  const before = request.messages === undefined ? undefined : sent.slice(0, -1);
  const position = indexOf(known, last?.id);
  if (trigger === "regenerate-message" && (last === undefined || position >= 0)) {
    const end = request.messages === undefined ? undefined : sent;
    return regenerated(known, end, messageId);
  }
  if (last === undefined) {
    throw new InvalidOptionsError('The request holds neither "messages" nor a "message"');
  }
  if (last.role === "system") {
    throw new InvalidMessageError("A client must not send system messages: set them on the server");
  }
  if (last.role === "assistant") {
    const stored = known[position];
    if (stored === undefined || position < known.length - 1) return undefined;
    if (before !== undefined && !isSame(known.slice(0, -1), before)) return undefined;
    const continued = advanced(stored, last);
    return continued && [...known.slice(0, -1), continued];
  }
  if (position >= 0) {
    // An edit, or a question that is sent again because its answer did not come.
    if (messageId !== last.id && position < known.length - 1) return undefined;
    const kept = known.slice(0, position);
    return before === undefined || isSame(kept, before) ? goneOn(kept, last) : undefined;
  }
  if (before === undefined || isSame(known, before)) return goneOn(known, last);
  // The answer that a person has stopped, or that a crash cut off, is known to the tab alone.
  const stopped = before.at(-1);
  return stopped?.role === "assistant" &&
    known.at(-1)?.role === "user" &&
    isSame(known, before.slice(0, -1))
    ? goneOn([...known, stopped], last)
    : undefined;
}

/**
 * A conversation that goes on with a question. Calls of tools that nobody answered, because a person or a crash stopped them,
 * are ended: providers refuse a call without a result, for ever.
 */
function goneOn(known: readonly UIMessage[], question: UIMessage): UIMessage[] {
  const last = known.at(-1);
  if (last?.role !== "assistant" || !last.parts.some(isPending)) return [...known, question];
  const parts = last.parts.map((part) => (isPending(part) ? ended(part) : part));
  return [...known.slice(0, -1), { ...last, parts }, question];
}

function isPending(part: Part): part is Part & Tool {
  return isTool(part) && part.state !== "input-streaming" && stages.includes(part.state);
}

function ended({ approval, ...part }: Part & Tool): Part {
  if (approval?.approved === false) return { ...part, approval, state: "output-denied" } as Part;
  const outcome = approval?.approved
    ? { approval, errorText: "It was interrupted, and it is not known whether it happened" }
    : {
        errorText: part.state === "input-available" ? "It was interrupted" : "It was not approved",
      };
  return { ...part, ...outcome, state: "output-error" } as Part;
}

function regenerated(
  known: readonly UIMessage[],
  sent: readonly UIMessage[] | undefined,
  messageId: string | undefined,
): UIMessage[] | undefined {
  const target = messageId === undefined ? known.length - 1 : indexOf(known, messageId);
  const isAnswer = known[target]?.role === "assistant";
  // An answer that failed is known to the tab alone.
  const end = target < 0 ? sent?.length : isAnswer ? target : target + 1;
  if (end === undefined) return undefined;
  if (sent !== undefined && !isSame(known.slice(0, end), sent)) return undefined;
  return target < 0 && end < known.length ? undefined : known.slice(0, end);
}

/** Of a long conversation only the end was read. */
function fromFirst(sent: readonly UIMessage[], known: readonly UIMessage[]): UIMessage[] {
  return sent.slice(Math.max(0, indexOf(sent, known[0]?.id)));
}

function indexOf(messages: readonly UIMessage[], id: string | undefined): number {
  return messages.findIndex((message) => message.id === id);
}

function isLast(known: readonly UIMessage[], id: string): boolean {
  const index = indexOf(known, id);
  return index < 0 ? known.at(-1)?.role !== "assistant" : index === known.length - 1;
}

function isSame(some: readonly UIMessage[], others: readonly UIMessage[]): boolean {
  return some.length === others.length && some.every(({ id }, index) => id === others[index]?.id);
}

type Part = UIMessage["parts"][number];
type Tool = {
  readonly toolCallId: string;
  readonly state: string;
  readonly preliminary?: boolean;
  readonly approval?: { readonly approved?: boolean };
};

/** How far a call has come. */
const stages = ["input-streaming", "input-available", "approval-requested", "approval-responded"];

/** A stored message with what the client adds to it; `undefined` when it has come further than the client knows. */
function advanced(stored: UIMessage, sent: UIMessage): UIMessage | undefined {
  if (sent.parts.length < stored.parts.length) return undefined;
  const parts: Part[] = [];
  for (const [index, part] of stored.parts.entries()) {
    const other = sent.parts[index] as Part;
    if (!isTool(part)) {
      parts.push(part);
      continue;
    }
    if (!isTool(other) || other.toolCallId !== part.toolCallId) return undefined;
    const [old, now] = [stageOf(part), stageOf(other)];
    const isOtherDecision = old === now && old >= 3 && digestOf(part) !== digestOf(other);
    if (now < old || isOtherDecision) return undefined;
    parts.push(now > old ? other : part);
  }
  return { ...stored, parts: [...parts, ...sent.parts.slice(parts.length)] };
}

function stageOf({ state, preliminary }: Tool): number {
  const stage = stages.indexOf(state);
  return stage >= 0 ? stage : stages.length + (preliminary ? 0 : 1);
}

function isTool(part: Part): part is Part & Tool {
  return "toolCallId" in part;
}
