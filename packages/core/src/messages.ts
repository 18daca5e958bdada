/**
 * LlamaIndex's message types, structurally, so that core needs no LlamaIndex to be installed. Type tests hold them
 * against the real ones. They are the default; a store of another framework's messages is a `ChatStore<TheirMessage>`.
 */

/** Who speaks. Tool results are `user` messages with `options.toolResult`, as in LlamaIndex. */
export type MessageRole = "user" | "assistant" | "system" | "memory" | "developer";

/** One part of a multi-modal message. `data` is base64. */
export type MessageContentPart =
  | { type: "text"; text: string }
  | { type: "image_url"; image_url: { url: string }; detail?: "high" | "low" | "auto" }
  | { type: "audio" | "video" | "image" | "file"; data: string; mimeType: string };

export type MessageContent = string | MessageContentPart[];

/** A message as LlamaIndex has it. `Options` is the type of tool calls, tool results and provider options. */
export interface ChatMessage<Options extends object = object> {
  role: MessageRole;
  content: MessageContent;
  options?: Options | undefined;
}

/** Framework and major version of a native form: `ai-sdk/5`. The framework in lower-case letters, digits and `-`. */
export type NativeFormat = `${string}/${number}`;

/** Exactly what a framework gave, beside what every reader understands. Bridges use `withNative` and `nativeOf`. */
export interface Native<Value = unknown> {
  readonly format: NativeFormat;
  readonly value: Value;
}

/** What Chatstore adds to a message. */
interface Given {
  /** Unique within the session. Default: a random UUID. A repeated id makes the append idempotent (G5). */
  id?: string | undefined;
  /** When it was said: a Date, or its ISO text, as JSON carries it. Default: now, by this process's clock. */
  createdAt?: Date | string | undefined;
  /** Anything that belongs to the message and that the model does not see. */
  annotations?: unknown[] | undefined;
  /** The message in its framework's own form, where a bridge stored it. */
  native?: Native | undefined;
}

interface Stored {
  id: string;
  createdAt: Date;
  annotations?: unknown[];
  native?: Native | undefined;
}

/**
 * A message that a caller gives: LlamaIndex's `ChatMessage` or `MemoryMessage`, or that of another framework. It has a `role`
 * of at most 64 characters, or a `type`; its content is a string, parts, an object, null or absent; further fields are kept.
 */
export type NewMessage<Message extends object = ChatMessage> = Message & Given;

/** A message that the store returns. As LlamaIndex's it is assignable to `MemoryMessage`. */
export type StoredMessage<Message extends object = ChatMessage> = Message & Stored;
