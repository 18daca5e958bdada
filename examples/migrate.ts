/**
 * Moves conversations from LlamaIndex's `SimpleChatStore`, which has them in RAM only, to a store that keeps them. In the old
 * application, while it still runs, write them down:
 *
 *     const chats = [...chatStore.getKeys()].map((key) => [key, chatStore.getMessages(key)]);
 *     await writeFile("chats.json", JSON.stringify(Object.fromEntries(chats)));
 *
 * then run this, as often as you like: it leaves alone what is there already.
 *
 *     npx tsx migrate.ts chats.json
 */
import { readFile } from "node:fs/promises";
import {
  rawSessionKey,
  type SessionKey,
  sessionKey,
  sqliteChatStore,
  VersionConflictError,
} from "@chatstore/sqlite";
import type { ChatMessage } from "llamaindex";

/** Adapt this: whose conversation was under the old key? */
function newKey(oldKey: string): SessionKey {
  const [, user, conversation] = /^user-(\w+)(?:-(\w+))?$/.exec(oldKey) ?? [];
  if (user !== undefined) return sessionKey({ user, conversation });
  // "chat_history", LlamaIndex's default, has what all users said, one after the other. It can be given to none of them:
  // keep it out of every user's reach, to look at or to delete.
  return rawSessionKey(oldKey);
}

const [file = "chats.json"] = process.argv.slice(2);
const chats: Record<string, ChatMessage[]> = JSON.parse(await readFile(file, "utf8"));
const store = sqliteChatStore({ path: "chat.db" });
await store.open();

for (const [oldKey, messages] of Object.entries(chats)) {
  const key = newKey(oldKey);
  const now = new Date(); // the old store knows no times
  try {
    await store.importSession(key, { messages, createdAt: now, updatedAt: now });
    console.log(`${oldKey} → ${key}`);
  } catch (error) {
    if (!(error instanceof VersionConflictError)) throw error;
    console.log(`${key} is there already`);
  }
}
await store.close();
