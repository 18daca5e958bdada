/** What a model was given, from a request to the API of its provider: a line for each thing that was said or called. */
import type { AnthropicBody, OpenAIBody, ResponsesBody } from "@chatstore/providers-e2e";

/** Of calls, with what they were answered. */
class Lines {
  readonly #lines: string[] = [];
  readonly #calls = new Map<string, { readonly at: number; readonly call: string }>();

  said(who: string, text: string): void {
    if (text !== "" && who !== "system") this.#lines.push(`${who}: ${text}`);
  }

  called(id: string | undefined, name: string | undefined, input: unknown): void {
    const call = `${name}(${typeof input === "string" ? input : JSON.stringify(input)})`;
    this.#calls.set(String(id), { at: this.#lines.length, call });
    this.#lines.push(call);
  }

  answered(id: string | undefined, result: string): void {
    const { at, call } = this.#calls.get(String(id)) ?? { at: this.#lines.length, call: "nobody" };
    this.#lines[at] = `${call}: ${result}`;
  }

  get all(): readonly string[] {
    return this.#lines;
  }
}

function textOf(content: unknown): string {
  if (typeof content === "string") return content;
  return ((content ?? []) as { text?: string }[]).map(({ text = "" }) => text).join("");
}

export function givenToChat({ messages }: OpenAIBody): readonly string[] {
  const lines = new Lines();
  for (const { role, content, tool_calls = [], tool_call_id } of messages) {
    if (role === "tool") lines.answered(tool_call_id, textOf(content));
    else lines.said(role, textOf(content));
    for (const { id, function: called } of tool_calls) {
      lines.called(id, called.name, called.arguments);
    }
  }
  return lines.all;
}

export function givenToResponses({ input }: ResponsesBody): readonly string[] {
  const lines = new Lines();
  for (const item of typeof input === "string" ? [] : input) {
    const { type, call_id: id } = item;
    if (type === "function_call") lines.called(id, String(item["name"]), item["arguments"]);
    else if (type === "function_call_output") lines.answered(id, String(item.output));
    else lines.said(String(item.role), textOf(item.content));
  }
  return lines.all;
}

export function givenToAnthropic({ messages }: AnthropicBody): readonly string[] {
  const lines = new Lines();
  for (const { role, content } of messages) {
    for (const block of typeof content === "string" ? [{ type: "text", text: content }] : content) {
      const { type, id, name, input, tool_use_id } = block as unknown as Record<string, never>;
      if (type === "tool_use") lines.called(id, name, input);
      else if (type === "tool_result") {
        lines.answered(tool_use_id, textOf((block as { content?: unknown }).content));
      } else lines.said(role, block.text ?? "");
    }
  }
  return lines.all;
}
