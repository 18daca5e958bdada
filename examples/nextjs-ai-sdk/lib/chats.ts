import { aiSdkChat } from "@chatstore/ai-sdk";
import { sessionKey, sqliteChatStore } from "@chatstore/sqlite";
import type { UIMessage } from "ai";

/** Your login says who it is. */
export const user = "ada";

/** One for the process, also across hot reloads. */
export const store = sqliteChatStore({ path: process.env.CHAT_DB ?? "chat.db", shared: true });

export function chatOf(id: string) {
  return aiSdkChat<UIMessage>({ store, key: sessionKey({ user, conversation: id }) });
}
