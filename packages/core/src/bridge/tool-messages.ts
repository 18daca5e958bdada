/** Calls of tools and their results, in messages of the canonical layer that hold one of the two. */
import type { ChatMessage } from "../messages.js";
import type { CanonicalMessage, CanonicalToolCall } from "./native.js";

/** A message that answers a call, and where it stands. */
interface Result {
  readonly index: number;
  readonly message: CanonicalMessage;
}

/** The result of each call. An id may be used again later: a result belongs to the nearest call before it, if there is one. */
export function matchResults(
  messages: readonly CanonicalMessage[],
): ReadonlyMap<CanonicalToolCall, Result> {
  const results = new Map<CanonicalToolCall, Result>();
  const open = new Map<string, CanonicalToolCall[]>();
  const early: Result[] = [];
  for (let index = 0; index < messages.length; index++) {
    const message = messages[index] as CanonicalMessage;
    if (message.options === undefined) continue;
    for (const call of toolCalls(message)) {
      const calls = open.get(call.id);
      if (calls === undefined) open.set(call.id, [call]);
      else calls.push(call);
    }
    const id = toolResultId(message);
    if (id === undefined) continue;
    const call = open.get(id)?.pop();
    if (call === undefined) early.push({ index, message });
    else results.set(call, { index, message });
  }
  for (const result of early) {
    const call = open.get(toolResultId(result.message) ?? "")?.shift();
    if (call !== undefined) results.set(call, result);
  }
  return results;
}

/** The results of these calls as they were stored. */
export function inOrder(
  calls: readonly CanonicalToolCall[],
  results: ReadonlyMap<CanonicalToolCall, Result>,
): CanonicalMessage[] {
  return calls
    .map((call) => results.get(call) as Result)
    .sort((a, b) => a.index - b.index)
    .map(({ message }) => message);
}

/** The tools that a message calls. A call without an id or a name is none: nobody can answer it. */
export function toolCalls({ options }: ChatMessage): readonly CanonicalToolCall[] {
  const given = (options as { toolCall?: unknown } | undefined)?.toolCall;
  if (!Array.isArray(given)) return none;
  return (given as Partial<CanonicalToolCall>[]).filter(
    (call): call is CanonicalToolCall => typeof call?.id === "string" && !!call.name,
  );
}

const none: readonly CanonicalToolCall[] = [];

/** The id of the call that a message answers; `undefined` when it is no tool's result. */
export function toolResultId({ options }: ChatMessage): string | undefined {
  const given = (options as { toolResult?: { id?: unknown } } | undefined)?.toolResult;
  return typeof given?.id === "string" ? given.id : undefined;
}

/** Whether it is a tool's result, of whatever call. */
export function isToolResult({ options }: ChatMessage): boolean {
  return (options as { toolResult?: unknown } | undefined)?.toolResult !== undefined;
}
