import {
  type ChatStore,
  type ListOptions,
  parseSessionKey,
  type SessionKey,
} from "@chatstore/core";

/** A conversation as a sidebar shows it. */
export interface ListedChat {
  /** The `conversation` of its key: the `id` of `useChat`. Absent where a user has a single one. */
  readonly id?: string;
  readonly key: SessionKey;
  readonly title?: string;
  readonly updatedAt: Date;
  readonly messageCount: number;
}

/**
 * A user's conversations, newest first: one page, one round trip, no message is read.
 *
 * @param options `user`, `tenant`, `limit` (default 50), `cursor` (from the page before).
 * @throws what the store's `listSessions` throws.
 * @example const { chats, cursor } = await listChats(store, { user: user.id });
 */
export async function listChats(
  store: ChatStore,
  options: ListOptions & { readonly user: string },
): Promise<{ chats: ListedChat[]; cursor?: string }> {
  const { sessions, cursor } = await store.listSessions(options);
  const chats = sessions.map(({ key, title, updatedAt, messageCount }): ListedChat => {
    const { conversation } = parseSessionKey(key) as { readonly conversation?: string };
    return {
      ...(conversation !== undefined && { id: conversation }),
      key,
      ...(title !== undefined && { title }),
      updatedAt,
      messageCount,
    };
  });
  return { chats, ...(cursor !== undefined && { cursor }) };
}
