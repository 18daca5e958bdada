/** LangChain's messages in both layers of a stored message (docs/contract.md), and other frameworks' messages as LangChain's. */
import {
  InvalidMessageError,
  type MessageContentPart,
  type NewMessage,
  type StoredMessage,
} from "@chatstore/core";
import {
  type CanonicalMessage,
  objectInput,
  type Part,
  readMessages,
  textOf,
  toCanonical,
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
    { ...canonicalOf(native), ...(typeof id === "string" && id !== "" && { id }) },
    messageFormat,
    native,
  );
}

function canonicalOf({ type, data }: NativeMessage): CanonicalMessage {
  const known: readonly string[] = ["human", "ai", "system", "developer", "tool", "function"];
  const other = data.role === "assistant" ? "ai" : "human";
  const own = type === "system" ? type : type === "human" ? "user" : "assistant";
  const role = known.includes(type) ? type : other;
  return toCanonical({ type: role, data }) ?? { role: own, content: "" };
}

/**
 * Stored messages as LangChain's: the bridge's own exactly as they were given, others by what their canonical layer says.
 *
 * @throws UnsupportedFormatError for messages of another version of the stored form.
 */
export function toLangChain(stored: readonly StoredMessage[]): BaseMessage[] {
  return readMessages<NativeMessage, BaseMessage>(stored, {
    format: messageFormat,
    own: (native) => mapStoredMessagesToChatMessages([native]),
    others: (part) => [fromCanonical(part)],
    joinsCalls: true,
  }).flat();
}

function fromCanonical({ id, role, content, options, answer }: Part): BaseMessage {
  if (answer !== undefined) {
    const { id: tool_call_id, name, result, isError } = answer;
    return new ToolMessage({
      id,
      tool_call_id,
      content: textOf(result),
      status: isError ? "error" : "success",
      ...(name !== undefined && { name }),
    });
  }
  const said = typeof content === "string" ? content : content.map(toBlock);
  const fields = { id, content: said };
  if (role === "assistant") {
    const tool_calls = (options?.toolCall ?? []).map(({ id, name, input }) => ({
      type: "tool_call" as const,
      id,
      name,
      args: objectInput(input),
    }));
    return new AIMessage({ ...fields, tool_calls } as ConstructorParameters<typeof AIMessage>[0]);
  }
  return role === "user"
    ? new HumanMessage(fields as ConstructorParameters<typeof HumanMessage>[0])
    : new SystemMessage(fields as ConstructorParameters<typeof SystemMessage>[0]);
}

function toBlock(part: MessageContentPart): Record<string, unknown> {
  if (part.type === "text" || part.type === "image_url") return { ...part };
  const { type, data, mimeType } = part;
  return { type, source_type: "base64", mime_type: mimeType, data };
}
