/**
 * Messages of other frameworks that were stored as they are, without a bridge, in the canonical layer: OpenAI's chat
 * completions and responses, Anthropic, Gemini, the AI SDK's, and LangChain's stored form. Read by what they have, since
 * nothing names where they come from.
 */
import type { MessageContentPart, MessageRole } from "../messages.js";
import { mediaPart } from "./media.js";
import type { CanonicalMessage, CanonicalToolCall, CanonicalToolResult } from "./native.js";
import { inputOf, textOf } from "./tool-values.js";

type Fields = { readonly [name: string]: unknown };

/**
 * A message of whatever framework as one of the canonical layer; `undefined` when nothing of it can be shown to a model. What
 * is canonical already is returned itself. It may hold several calls and results: {@link unfold} takes them apart.
 */
export function toCanonical(message: object): CanonicalMessage | undefined {
  const fields = message as Fields;
  if (isCanonical(fields)) return message as CanonicalMessage;
  const read = new Reader();
  read.message(fields);
  return read.result(fields);
}

const canonicalRoles: ReadonlySet<unknown> = new Set<MessageRole>([
  "user",
  "assistant",
  "system",
  "memory",
  "developer",
]);

function isCanonical({ role, content, parts, tool_calls, toolInvocations }: Fields): boolean {
  const isOthers = [parts, tool_calls, toolInvocations].some((field) => field !== undefined);
  if (isOthers || !canonicalRoles.has(role)) return false;
  return typeof content === "string" || (Array.isArray(content) && !content.some(isForeignPart));
}

const foreignTypes =
  /^(tool[-_].+|dynamic-tool|server_tool_use|function_call.*|(input|output)_.+|document|refusal|(redacted_)?thinking|reasoning.*|step-start|source-.+|data-.+)$/;
/** Of parts whose type has the same name. */
const foreignFields = [
  ...["source", "image", "audio", "file", "url", "file_data"],
  ...["mediaType", "mime_type", "source_type"],
] as const;

/** A part that another framework has. What nobody knows stays as it is. */
function isForeignPart(part: unknown): boolean {
  if (!isObject(part)) return true;
  const { type, image_url } = part;
  if (typeof type !== "string" || foreignTypes.test(type)) return true;
  if (type === "image_url") return typeof image_url === "string";
  return type !== "text" && foreignFields.some((name) => name in part);
}

/** Other names of the roles. */
const roles: Readonly<Record<string, MessageRole>> = {
  human: "user",
  data: "user",
  ai: "assistant",
  model: "assistant",
  tool: "user",
  function: "user",
};

/** Collects what one message says. */
class Reader {
  role: MessageRole | undefined;
  readonly content: MessageContentPart[] = [];
  readonly calls: CanonicalToolCall[] = [];
  readonly results: CanonicalToolResult[] = [];

  message(fields: Fields): void {
    const { role, type, data, content, parts } = fields;
    if (role === undefined && isObject(data)) {
      // LangChain's stored form: { type: "ai", data: { content, tool_calls, … } }.
      this.message({ ...data, role: type === "generic" ? data["role"] : type });
      return;
    }
    this.role = roleOf(role);
    if (role !== undefined && this.role === undefined) return; // nobody knows who that is
    if (role === undefined && type !== "message") {
      this.part(fields);
      return;
    }
    const { tool_call_id, tool_calls, name, function_call, toolInvocations, additional_kwargs } =
      fields;
    if (role === "tool" || role === "function") {
      if (typeof content === "string" || content === null || tool_call_id !== undefined) {
        this.#result(tool_call_id ?? name, content, fields["status"] === "error");
        return;
      }
    }
    for (const part of list(parts ?? content)) this.part(part);
    const calls = [tool_calls, fieldsOf(additional_kwargs)["tool_calls"]].find(
      (one) => list(one).length > 0,
    );
    for (const call of list(calls)) this.#call(fieldsOf(call));
    if (isObject(function_call)) this.#call({ ...function_call, id: function_call["name"] });
    for (const call of parts === undefined ? list(toolInvocations) : []) {
      this.#invocation(fieldsOf(call));
    }
  }

  /** A part of a message, or an item that stands for itself. */
  part(part: unknown): void {
    if (typeof part === "string") {
      this.#text(part);
      return;
    }
    if (!isForeignPart(part) && this.role !== undefined) {
      this.content.push(part as MessageContentPart);
      return;
    }
    const fields = fieldsOf(part);
    const { type = "", text, content, functionCall, functionResponse } = fields;
    const kind = String(type);
    if (/^(input_|output_)?text$|^refusal$/.test(kind)) this.#text(text ?? fields["refusal"]);
    else if (kind === "tool_use" || kind === "function_call" || kind === "tool-call") {
      this.#call(fields);
    } else if (kind === "tool_result") {
      this.#result(fields["tool_use_id"], content, fields["is_error"] === true);
    } else if (kind === "function_call_output" || kind === "function_call_result") {
      const failed = fields["status"] === "incomplete";
      this.#result(fields["call_id"] ?? fields["callId"], fields["output"], failed);
    } else if (kind === "tool-result") {
      this.#result(fields["toolCallId"], fields["output"] ?? fields["result"], false);
    } else if (kind === "tool-invocation") {
      this.#invocation(fieldsOf(fields["toolInvocation"]));
    } else if (kind.startsWith("tool-") || kind === "dynamic-tool") {
      this.#invocation({ toolName: kind.slice("tool-".length), ...fields });
    } else if (isObject(functionCall)) this.#call(functionCall);
    else if (isObject(functionResponse)) {
      // Gemini has no ids of its own: the first answer of a name is that of its first call.
      const { id = this.#numbered(this.results, functionResponse["name"]), response } =
        functionResponse;
      const { output, result = output, error } = fieldsOf(response);
      const isOne = Object.keys(fieldsOf(response)).length === 1;
      const only = isOne ? (error ?? result) : undefined;
      this.#result(id, only ?? response, only !== undefined && only === error);
    } else if (type === "" && typeof text === "string" && fields["thought"] !== true) {
      this.#text(text);
    } else {
      const media = mediaPart(fields);
      if (media !== undefined) this.content.push(media);
    }
  }

  result(fields: Fields): CanonicalMessage | undefined {
    const { content, calls, results } = this;
    if (content.length === 0 && calls.length === 0 && results.length === 0) return undefined;
    const { id, createdAt, annotations, native } = fields as Partial<CanonicalMessage>;
    const [part] = content;
    const texts = content.map((one) => (one.type === "text" ? one.text : undefined));
    const said = texts.every((text) => text !== undefined) ? texts.join("\n") : content;
    // Canonical is a result alone in its message, and otherwise a list.
    const [answer] = results;
    const isAnswer = results.length === 1 && calls.length === 0 && part === undefined;
    const options = {
      ...(isObject(fields["options"]) && fields["options"]),
      ...(calls.length > 0 && { toolCall: calls }),
      ...(answer !== undefined && { toolResult: isAnswer ? answer : results }),
    };
    return {
      ...(id !== undefined && { id }),
      ...(createdAt !== undefined && { createdAt }),
      role: this.role ?? (answer !== undefined && calls.length === 0 ? "user" : "assistant"),
      content: part !== undefined ? said : isAnswer ? (answer?.result ?? "") : "",
      ...(Object.keys(options).length > 0 && { options }),
      ...(Array.isArray(annotations) && { annotations }),
      ...(native !== undefined && { native }),
    };
  }

  #text(text: unknown): void {
    if (typeof text === "string" && text !== "") this.content.push({ type: "text", text });
  }

  #call(fields: Fields): void {
    const named = fieldsOf(fields["function"]);
    const id = fields["call_id"] ?? fields["callId"] ?? fields["toolCallId"] ?? fields["id"];
    const name = fields["name"] ?? fields["toolName"] ?? named["name"];
    const input =
      fields["input"] ?? fields["args"] ?? fields["arguments"] ?? named["arguments"] ?? {};
    if (typeof name !== "string") return;
    const own = String(id ?? this.#numbered(this.calls, name));
    this.calls.push({ id: own, name, input: inputOf(input) });
  }

  /** An id for what has none: the name, and from the second of a message on its number. */
  #numbered(others: readonly { readonly id: string }[], name: unknown): string {
    const isOfName = ({ id }: { readonly id: string }) => id.replace(/#\d+$/, "") === name;
    const before = others.filter(isOfName).length;
    return before === 0 ? String(name) : `${name}#${before + 1}`;
  }

  /** A call with its answer in one part, as the AI SDK has it. */
  #invocation(fields: Fields): void {
    const { toolCallId, state, output, result, errorText } = fields;
    this.#call(fields);
    if (errorText !== undefined) this.#result(toolCallId, errorText, true);
    else if (state === "output-available" || state === "result") {
      this.#result(toolCallId, output ?? result, false);
    }
  }

  #result(id: unknown, value: unknown, isError: boolean): void {
    if (typeof id === "string") this.results.push({ id, result: textOf(value), isError });
  }
}

function roleOf(role: unknown): MessageRole | undefined {
  if (role === undefined) return undefined;
  if (canonicalRoles.has(role)) return role as MessageRole;
  return Object.hasOwn(roles, String(role)) ? roles[String(role)] : undefined;
}

function list(value: unknown): readonly unknown[] {
  if (Array.isArray(value)) return value;
  return typeof value === "string" ? [value] : [];
}

function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function fieldsOf(value: unknown): Fields {
  return isObject(value) ? value : {};
}
