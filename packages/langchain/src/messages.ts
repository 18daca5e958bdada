/** LangChain's messages in both layers of a stored message (docs/contract.md), and other frameworks' messages as LangChain's. */
import {
  InvalidMessageError,
  type MessageContentPart,
  type NewMessage,
  type StoredMessage,
} from "@chatstore/core";
import {
  type CanonicalMessage,
  type CanonicalToolResult,
  nativeOf,
  unfold,
  withNative,
} from "@chatstore/core/bridge";
import {
  AIMessage,
  type BaseMessage,
  HumanMessage,
  mapChatMessagesToStoredMessages,
  mapStoredMessagesToChatMessages,
  type StoredMessage as NativeMessage,
  SystemMessage,
  ToolMessage,
} from "@langchain/core/messages";

/** What `mapChatMessagesToStoredMessages` makes since LangChain has had it. */
const messageFormat = "langchain/1";

/**
 * A message as it is stored: exactly, under its own id where it has one, and beside it what other frameworks read.
 *
 * @throws InvalidMessageError for what is no message, and for one that removes another.
 */
export function toMessage(message: BaseMessage): NewMessage {
  if (typeof message?.toDict !== "function") {
    throw new InvalidMessageError(
      "A history takes LangChain's messages, such as new HumanMessage(text)",
    );
  }
  const [native] = mapChatMessagesToStoredMessages([message]) as [NativeMessage];
  if (native.type === "remove") {
    throw new InvalidMessageError(
      "A RemoveMessage is an instruction to a graph: remove messages with the store's methods",
    );
  }
  const { id } = message;
  return withNative(
    { ...toCanonical(message), ...(typeof id === "string" && id !== "" && { id }) },
    messageFormat,
    native,
  );
}

/**
 * Stored messages as LangChain's: the bridge's own exactly as they were given, others by what their canonical layer says.
 *
 * @throws UnsupportedFormatError for messages of another version of the stored form.
 */
export function toLangChain(stored: readonly StoredMessage[]): BaseMessage[] {
  const names = new Map<string, string>();
  return stored.flatMap((message) => {
    const native = nativeOf<NativeMessage>(message, messageFormat);
    const parts = unfold(message as CanonicalMessage);
    for (const { options } of parts) {
      for (const { id, name } of options?.toolCall ?? []) names.set(id, name);
    }
    return native === undefined
      ? parts.flatMap((part) => fromCanonical(part, names))
      : mapStoredMessagesToChatMessages([native]);
  });
}

type Part = { readonly type: string } & Readonly<Record<string, unknown>>;

function toCanonical(message: BaseMessage): CanonicalMessage {
  const content = contentOf(message.content as string | readonly Part[]);
  const type = message.getType();
  if (type === "tool" || type === "function") {
    const { tool_call_id: id = message.name ?? "", status } = message as Partial<ToolMessage>;
    const result = typeof content === "string" ? content : JSON.stringify(message.content);
    const toolResult = { id, result, isError: status === "error" };
    return { role: "user", content: result, options: { toolResult } };
  }
  if (type === "ai") {
    const { tool_calls: calls = [] } = message as Partial<AIMessage>;
    const toolCall = calls.map(({ id = "", name, args }) => ({ id, name, input: args }));
    return { role: "assistant", content, ...(toolCall.length > 0 && { options: { toolCall } }) };
  }
  const roles: Readonly<Record<string, CanonicalMessage["role"]>> = {
    system: "system",
    developer: "developer",
  };
  const { role } = message as BaseMessage & { readonly role?: string };
  return { role: roles[type] ?? (role === "assistant" ? "assistant" : "user"), content };
}

function contentOf(content: string | readonly Part[]): string | MessageContentPart[] {
  if (typeof content === "string") return content;
  const parts = content.flatMap(toPart);
  const texts = parts.map((part) => (part.type === "text" ? part.text : undefined));
  return texts.every((text) => text !== undefined) ? texts.join("\n") : parts;
}

function toPart(part: Part): MessageContentPart[] {
  const { type, text, image_url: image, url, data } = part;
  if (type === "text" && typeof text === "string") return [{ type, text }];
  if (type === "image_url") {
    const address = typeof image === "string" ? image : (image as { url?: unknown } | null)?.url;
    return typeof address === "string" ? [{ type, image_url: { url: address } }] : [];
  }
  if (type !== "image" && type !== "audio" && type !== "video" && type !== "file") return [];
  if (typeof url === "string") {
    return type === "image"
      ? [{ type: "image_url", image_url: { url } }]
      : [{ type: "text", text: url }];
  }
  const mimeType = part["mime_type"] ?? part["mimeType"];
  return typeof data === "string"
    ? [
        {
          type,
          data,
          mimeType: typeof mimeType === "string" ? mimeType : "application/octet-stream",
        },
      ]
    : [];
}

function fromCanonical(
  { id, role, content, options }: CanonicalMessage,
  names: ReadonlyMap<string, string>,
): BaseMessage[] {
  const own = id === undefined ? {} : { id };
  const results = [options?.toolResult ?? []].flat() as CanonicalToolResult[];
  if (results.length > 0) {
    return results.map(
      ({ id: tool_call_id, result, isError }) =>
        new ToolMessage({
          ...own,
          tool_call_id,
          content: typeof result === "string" ? result : JSON.stringify(result),
          status: isError ? "error" : "success",
          ...(names.has(tool_call_id) && { name: names.get(tool_call_id) as string }),
        }),
    );
  }
  const said = typeof content === "string" ? content : content.map(toBlock);
  const fields = { ...own, content: said };
  if (role === "assistant") {
    const tool_calls = (options?.toolCall ?? []).map(({ id, name, input }) => ({
      type: "tool_call" as const,
      id,
      name,
      args: (typeof input === "string" ? parsed(input) : input) as Record<string, unknown>,
    }));
    return [new AIMessage({ ...fields, tool_calls } as ConstructorParameters<typeof AIMessage>[0])];
  }
  return role === "user"
    ? [new HumanMessage(fields as ConstructorParameters<typeof HumanMessage>[0])]
    : [new SystemMessage(fields as ConstructorParameters<typeof SystemMessage>[0])];
}

function toBlock(part: MessageContentPart): Record<string, unknown> {
  if (part.type === "text" || part.type === "image_url") return { ...part };
  const { type, data, mimeType } = part;
  return { type, source_type: "base64", mime_type: mimeType, data };
}

function parsed(input: string): object {
  try {
    const value: unknown = JSON.parse(input);
    if (typeof value === "object" && value !== null) return value;
  } catch {
    // A text that a model gave as arguments.
  }
  return { input };
}
