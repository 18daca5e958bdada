import type { ChatMessage } from "../messages.js";
import type { CanonicalMessage, CanonicalToolCall } from "./native.js";
import { toolResultId } from "./tool-messages.js";
import { objectInput } from "./tool-values.js";

/** What OpenAI (length), Anthropic (characters) and everybody else but Mistral accept. */
const common = /^[\w-]{1,40}$/;
const mistral = /^[a-zA-Z0-9]{9}$/;

/**
 * Ids of tool calls, and their inputs, as every provider accepts them. A conversation may have been begun with another
 * provider, or with a server that numbers the calls of each answer anew: Anthropic wants every id to be another one.
 */
export class ToolCallIds {
  readonly #accepted: RegExp;
  readonly #used = new Set<string>();

  /** @param mistralIds Whether they are for Mistral. */
  constructor(mistralIds: boolean) {
    this.#accepted = mistralIds ? mistral : common;
  }

  /** @param context Each result behind its call, before other calls. */
  of(context: readonly ChatMessage[]): ChatMessage[] {
    /** What became of the ids of the calls that are being answered. */
    let accepted: readonly { given: string; id: string }[] = [];
    return (context as readonly CanonicalMessage[]).map((message) => {
      const { toolCall, toolResult } = message.options ?? {};
      if (toolCall !== undefined) {
        const calls = toolCall.map((call) => this.#accept(call));
        accepted = calls.map(({ id }, index) => ({ given: toolCall[index]?.id as string, id }));
        if (calls.every((call, index) => call === toolCall[index])) return message;
        return { ...message, options: { ...message.options, toolCall: calls } };
      }
      if (toolResult === undefined) return message;
      const given = toolResultId(message);
      const answered = accepted.find((call) => call.given === given);
      accepted = accepted.filter((call) => call !== answered);
      if (answered === undefined || answered.id === given) return message;
      const { id } = answered;
      return { ...message, options: { ...message.options, toolResult: { ...toolResult, id } } };
    }) as ChatMessage[];
  }

  #accept(call: CanonicalToolCall): CanonicalToolCall {
    let { id } = call;
    for (let attempt = 0; this.#used.has(id) || !this.#accepted.test(id); attempt++) {
      id = shortId(`${attempt} ${call.id}`);
    }
    this.#used.add(id);
    const input = objectInput(call.input);
    return id === call.id && input === call.input ? call : { ...call, id, input };
  }
}

/** Nine letters and digits that are the same for the same text. */
function shortId(text: string): string {
  let [low, high] = [0x811c9dc5, 0x9747b28c];
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index);
    low = Math.imul(low ^ unit, 0x01000193);
    high = Math.imul(high ^ unit, 0x85ebca6b) ^ (high >>> 13);
  }
  const digits = (part: number, length: number) =>
    (part >>> 0).toString(36).padStart(length, "0").slice(-length);
  return digits(low, 5) + digits(high, 4);
}
