/** LlamaIndex's old memory, for code that calls it itself: since 0.11.12 no engine and no agent takes one. */
import {
  type ChatMessage,
  type ChatStore,
  type ChatStoreError,
  InvalidOptionsError,
  parseSessionKey,
} from "@chatstore/core";
import { checkStore } from "./options.js";

/** Options of {@link persistentChatMemoryBuffer}, beside those of LlamaIndex's own `ChatMemoryBuffer`. */
export interface PersistentChatMemoryBufferOptions {
  /** Where the conversation is stored. */
  readonly store: ChatStore;
  /** Whose conversation it is: made by `sessionKey`, of parts that are the same at the user's next visit. */
  readonly key: string;
  /** What a new session begins with. Ignored when the session exists: a stored history is never overwritten. */
  readonly chatHistory?: readonly ChatMessage[] | undefined;
}

/** What a {@link persistentChatMemoryBuffer} does otherwise than LlamaIndex's: its writes can be awaited. */
export interface PersistentChatMemoryBuffer<Message = ChatMessage> {
  /** Append a message. Resolves when it is durable. */
  put(message: Message): Promise<void>;
  /** Replace the history. Resolves when that is durable. */
  set(messages: Message[]): Promise<void>;
  /** Erase the session. Resolves when it is gone. */
  reset(): Promise<void>;
}

/** An instance of LlamaIndex's `ChatMemoryBuffer`, as far as it is looked at. */
interface UpstreamBuffer {
  put(message: never): unknown;
  set(messages: never): unknown;
  reset(): unknown;
  getMessages(...rest: never[]): Promise<unknown>;
}

type BufferOptions<Class extends new (...options: never[]) => unknown> = NonNullable<
  ConstructorParameters<Class>[0]
>;

/**
 * A LlamaIndex `ChatMemoryBuffer` over the store: every read asks the store, every write can be awaited (LlamaIndex's own
 * drops the store's promises), and opening one never overwrites a stored history (LlamaIndex's own does when it is given a
 * `chatHistory`). It also takes the options of `ChatMemoryBuffer`.
 *
 * For code of the old API that calls `put` and `getMessages` itself. Engines and agents take `persistentMemory`.
 *
 * @param ChatMemoryBuffer The caller's own class, so that the result is an instance of it.
 * @throws InvalidSessionKeyError, InvalidOptionsError; with a `chatHistory` also what writing it throws.
 * @example
 * const memory = await persistentChatMemoryBuffer(ChatMemoryBuffer, { store, key, tokenLimit: 3_000 });
 * await memory.put({ role: "user", content: "Hello" });
 * const messages = await memory.getMessages();
 */
export async function persistentChatMemoryBuffer<
  Class extends new (
    ...options: never[]
  ) => UpstreamBuffer,
>(
  ChatMemoryBuffer: Class,
  options: PersistentChatMemoryBufferOptions &
    Omit<BufferOptions<Class>, "chatStore" | "chatStoreKey" | "chatHistory">,
): Promise<
  Omit<InstanceType<Class>, "put" | "set" | "reset"> &
    PersistentChatMemoryBuffer<Parameters<InstanceType<Class>["put"]>[0]>
> {
  const { store, key, chatHistory, ...bufferOptions } = options;
  checkStore(store);
  parseSessionKey(key); // refuses what is no key
  const { prototype } = (ChatMemoryBuffer ?? {}) as { prototype?: Partial<UpstreamBuffer> };
  const methods = ["put", "set", "reset", "getMessages"] as const;
  if (!methods.every((name) => typeof prototype?.[name] === "function")) {
    throw new InvalidOptionsError(
      'ChatMemoryBuffer is not LlamaIndex\'s class: import { ChatMemoryBuffer } from "llamaindex"',
    );
  }
  if (chatHistory !== undefined) await begin(store, key, chatHistory);
  const Base = ChatMemoryBuffer as unknown as new (options: object) => UpstreamBuffer;
  const Persistent = class extends Base {
    // Private at run time: JSON.stringify(memory) must print neither the store nor its password.
    readonly #store = store;

    override async put(message: ChatMessage): Promise<void> {
      await this.#store.addMessage(key, message);
    }

    override async set(messages: ChatMessage[]): Promise<void> {
      await this.#store.setMessages(key, messages);
    }

    override async reset(): Promise<void> {
      await this.#store.deleteMessages(key);
    }
  };
  const buffer = new Persistent({ ...bufferOptions, chatStore: store, chatStoreKey: key });
  Object.defineProperty(buffer, "chatStore", { enumerable: false });
  return buffer as never;
}

/** Give a session that does not exist its first messages. */
async function begin(store: ChatStore, key: string, messages: readonly ChatMessage[]) {
  try {
    await store.setMessages(key, messages, { ifVersion: null });
  } catch (error) {
    if ((error as Partial<ChatStoreError>).code !== "VERSION_CONFLICT") throw error;
  }
}
