/** What is given to tools and what they answer, in the forms that frameworks and models want. */

/** The arguments of a call, which models give as a text: an object where that is the JSON of one, otherwise the text. */
export function inputOf(input: unknown): object | string {
  if (typeof input === "object" && input !== null) return input;
  if (typeof input !== "string") return {};
  return parsed(input) ?? input;
}

/** The arguments of a call for those who take objects alone; for what is none, LlamaIndex's agents have the same wrapping. */
export function objectInput(input: unknown): Record<string, unknown> {
  if (isObject(input)) return input;
  const value = typeof input === "string" ? parsed(input) : undefined;
  if (isObject(value)) return value;
  return input === undefined || input === null || input === "" ? {} : { rawInput: input };
}

/** What a tool answered as the text that a model is shown: of bytes, their base64. */
export function textOf(value: unknown): string {
  if (typeof value === "string") return value;
  if (isObject(value)) {
    const { type, value: inner } = value;
    // The AI SDK's `ToolResultOutput`.
    if (inner !== undefined && outputTypes.test(String(type))) return textOf(inner);
  }
  const parts: readonly unknown[] = Array.isArray(value) ? value : [value];
  const texts = parts.map(textOfPart);
  if (parts.length > 0 && texts.every((text) => text !== undefined)) return texts.join("\n");
  return JSON.stringify(value ?? "", asJson) ?? "";
}

const outputTypes = /^(error-)?(text|json)$|^content$/;

/** A tool may answer with an object of its own that has a text beside other members. */
function textOfPart(part: unknown): string | undefined {
  if (!isObject(part) || typeof part["text"] !== "string") return undefined;
  const isText = /^(input_|output_)?text$/.test(String(part["type"]));
  return isText || Object.keys(part).length === 1 ? part["text"] : undefined;
}

function asJson(this: unknown, name: string, value: unknown): unknown {
  if (typeof value === "bigint") return String(value);
  // The value itself: that of a Buffer has become something else by now.
  const own = (this as Record<string, unknown>)[name];
  return own instanceof Uint8Array ? Buffer.from(own).toString("base64") : value;
}

function parsed(text: string): object | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? value : undefined;
  } catch {
    return undefined; // the model did not finish it
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
