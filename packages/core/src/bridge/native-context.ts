/** What of a conversation is sent again to the API that it was held with, in the very form that its SDK gave. */
import type { StoredMessage } from "../messages.js";
import { isFromUser } from "./context.js";
import { partsOf } from "./read.js";
import { matchResults, toolCalls, toolResultId } from "./tool-messages.js";

/**
 * Messages that were stored as the SDK of OpenAI (chat completions or responses), Anthropic or Gemini gave them, so that its API
 * takes them again: after a kill in the middle of a turn, of two tabs that wrote in between each other, and of a page of a
 * history. What is stored stays as it is. For messages of LlamaIndex's form there is {@link modelContext}.
 *
 * - What the store has added is left out: `createdAt`, `annotations`, and ids that are not the API's own.
 * - It begins with a message of the user, if there is any: a page may begin between a call of a tool and its result.
 * - A call of a tool goes with its results, and stands right before them. A message with a call that has no result is left
 *   out, with the results of its other calls; so is a result without a call, and the reasoning before a call that is left out.
 *
 * Takes linear time.
 *
 * @param messages In stored order. They may begin anywhere: what `getMessages(key, { last: 50 })` returned.
 * @example const messages = nativeContext(await store.getMessages(key, { last: 50 }));
 */
export function nativeContext<Message extends object>(
  messages: readonly StoredMessage<Message>[],
): Message[] {
  const units = unitsOf(messages);
  const start = units.findIndex(({ isQuestion }) => isQuestion);
  const some = start === -1 ? units : units.slice(start);
  const context: StoredMessage<Message>[] = [];
  let waiting: readonly Unit<Message>[] = [];
  const shown = new Set<Unit<Message>>();
  const show = (unit: Unit<Message>) => {
    if (shown.has(unit)) return;
    shown.add(unit);
    context.push(...unit.messages);
  };
  const answers = pairsOf(some);
  for (const unit of some) {
    const results = answers.get(unit);
    if (results === "incomplete") continue;
    // Items of the responses API are one answer of the model's together: their results may follow all of them.
    const goesOn = waiting.includes(unit) || (unit.isItem && results !== undefined);
    if (!goesOn) for (const result of waiting) show(result);
    waiting = results === undefined ? (goesOn ? waiting : []) : [...waiting, ...results];
    show(unit);
  }
  for (const result of waiting) show(result);
  return context.map(withoutOurs);
}

/** A message, with the reasoning before it that has no meaning without it. */
interface Unit<Message extends object> {
  readonly messages: readonly StoredMessage<Message>[];
  readonly parts: ReturnType<typeof partsOf>;
  readonly isQuestion: boolean;
  /** Whether it has no role, as in the responses API. */
  readonly isItem: boolean;
}

function unitsOf<Message extends object>(
  messages: readonly StoredMessage<Message>[],
): Unit<Message>[] {
  const units: Unit<Message>[] = [];
  let reasoning: StoredMessage<Message>[] = [];
  for (const message of messages) {
    const { type, role } = message as { type?: unknown; role?: unknown };
    if (type === "reasoning") {
      reasoning.push(message);
      continue;
    }
    const parts = partsOf(message);
    const isQuestion = parts.length > 0 && parts.every(isFromUser);
    // A user's message follows when the process was killed in between.
    const own = isQuestion ? [message] : [...reasoning, message];
    units.push({ messages: own, parts, isQuestion, isItem: role === undefined });
    reasoning = [];
  }
  return units;
}

/** The units that answer each unit with calls; `"incomplete"` for units of which a call or its result is missing. */
function pairsOf<Message extends object>(units: readonly Unit<Message>[]) {
  const parts = units.flatMap((unit) => unit.parts.map((part) => ({ part, unit })));
  const results = matchResults(parts.map(({ part }) => part));
  const answers = new Map<Unit<Message>, readonly Unit<Message>[] | "incomplete">();
  const callers = new Map<Unit<Message>, Set<Unit<Message>>>();
  const called = new Set<number>();
  const drop: Unit<Message>[] = [];
  for (const unit of units) {
    const calls = unit.parts.flatMap(toolCalls);
    const own = new Set<Unit<Message>>();
    for (const call of calls) {
      const result = results.get(call);
      const answer = result && parts[result.index]?.unit;
      if (answer === undefined) drop.push(unit);
      else {
        called.add(result?.index as number);
        own.add(answer);
        callers.set(answer, (callers.get(answer) ?? new Set()).add(unit));
      }
    }
    if (calls.length > 0) answers.set(unit, [...own]);
  }
  for (const [index, { part, unit }] of parts.entries()) {
    if (toolResultId(part) !== undefined && !called.has(index)) drop.push(unit);
  }
  // What is left out takes along what has no meaning without it.
  for (let unit = drop.pop(); unit !== undefined; unit = drop.pop()) {
    const own = answers.get(unit);
    if (own === "incomplete") continue;
    answers.set(unit, "incomplete");
    drop.push(...(own ?? []), ...(callers.get(unit) ?? []));
  }
  return answers;
}

/** The message as the SDK gave it. */
function withoutOurs<Message extends object>(message: StoredMessage<Message>): Message {
  const { id, createdAt: _, annotations: __, ...given } = message;
  const { type } = given as { type?: unknown };
  // Items of the responses API have ids such as msg_… and rs_…; a reasoning item is nothing without.
  const isApis = typeof type === "string" && /^[a-z]+_/.test(id);
  return (isApis ? { id, ...given } : given) as object as Message;
}
