import { type ChatStore, InvalidOptionsError } from "@chatstore/core";
import { upsertMessages } from "@chatstore/core/bridge";
import { BaseListChatMessageHistory } from "@langchain/core/chat_history";
import type { BaseMessage } from "@langchain/core/messages";
import { toLangChain, toMessage } from "./messages.js";

/** Options of {@link ChatstoreMessageHistory}. */
export interface ChatstoreMessageHistoryOptions {
  /** Where the conversation is kept. One store for the whole process. */
  readonly store: ChatStore;
  /** Whose conversation it is: made by `sessionKey()`, the same at every request. */
  readonly key: string;
}

/**
 * A chat message history of LangChain.js, kept in a store. Make one for each request: it holds nothing.
 *
 * - `addMessages` is one atomic append, one round trip.
 * - Messages come back as they were: ids, calls of tools and their answers, usage, artifacts.
 * - A message that has an id is stored under it: what is added again is stored once, and what comes with other content takes
 *   the old one's place, as in LangGraph's state. A message without an id is appended always.
 * - What other frameworks have stored in the conversation is read as LangChain's messages, by its canonical layer.
 *
 * Its methods throw what the store's do, and `InvalidMessageError` for what is no message of LangChain's.
 *
 * @throws InvalidOptionsError when there is no store; InvalidSessionKeyError at the first use of a key that is none.
 * @example
 * const history = new ChatstoreMessageHistory({ store, key: sessionKey({ user: user.id, conversation: "support" }) });
 * const messages = await history.getMessages();
 */
export class ChatstoreMessageHistory extends BaseListChatMessageHistory {
  lc_namespace = ["chatstore", "history"];
  readonly #store: ChatStore;
  readonly #key: string;

  constructor(options: ChatstoreMessageHistoryOptions) {
    // Nothing for LangChain's serialisation: the store may hold a password.
    super();
    const { store, key } = options ?? {};
    if (typeof store?.replaceMessagesAfter !== "function") {
      throw new InvalidOptionsError(
        "Which store? Give a Chatstore store: new ChatstoreMessageHistory({ store, key })",
      );
    }
    this.#store = store;
    this.#key = key;
  }

  /** All messages, oldest first. */
  async getMessages(): Promise<BaseMessage[]> {
    return toLangChain(await this.#store.getMessages(this.#key));
  }

  /** Append one message. */
  addMessage(message: BaseMessage): Promise<void> {
    return this.addMessages([message]);
  }

  /** Append messages in one atomic step. */
  override async addMessages(messages: BaseMessage[]): Promise<void> {
    await upsertMessages(this.#store, this.#key, messages.map(toMessage));
  }

  /** Erase the conversation. */
  override async clear(): Promise<void> {
    await this.#store.deleteMessages(this.#key);
  }
}
