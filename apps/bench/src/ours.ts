/** Our store as a contestant. */
import {
  type ChatStore,
  type ChatStoreConfig,
  openChatStore,
  parseSessionKey,
  sessionKey,
} from "@chatstore/core";
import type { Contestant, Conversation, Filling, Message } from "./contestant.js";

/** Filling a conversation of 100,000 messages on a busy machine may take longer than a chat should ever wait. */
const timeout = 600_000;
/** So many conversations are filled at once. */
const atOnce = 32;

export function keyOf({ user, name }: Conversation) {
  return sessionKey({ user, conversation: name });
}

function nameOf(key: string): string {
  const parts = parseSessionKey(key);
  return "conversation" in parts ? (parts.conversation ?? "") : "";
}

/** A store with its own default settings. */
export function openStore(config: ChatStoreConfig): Promise<ChatStore> {
  return openChatStore({ timeout, onWarning: () => {}, ...config });
}

/** @param filling Options of the handle that fills, over `config`. */
export async function openOurs(config: ChatStoreConfig, filling: object): Promise<Contestant> {
  const store = await openStore(config);
  const { survives } = store.capabilities;
  const read = async (
    conversation: Conversation,
    options?: Parameters<ChatStore["getMessages"]>[1],
  ) => (await store.getMessages(keyOf(conversation), options)) as unknown as readonly Message[];
  return {
    durability: {
      survives,
      settings: "survives" in config ? "as asked for" : "the store's defaults",
    },
    async fill(fillings: Iterable<Filling>) {
      const filler = await openStore({ ...config, ...filling });
      const now = new Date();
      const queue = fillings[Symbol.iterator]();
      const work = async () => {
        for (let next = queue.next(); !next.done; next = queue.next()) {
          const [conversation, messages] = next.value;
          const session = { messages, createdAt: now, updatedAt: now };
          await filler.importSession(keyOf(conversation), session);
        }
      };
      await Promise.all(Array.from({ length: atOnce }, work));
      await filler.close();
    },
    append: (conversation, messages) => store.addMessages(keyOf(conversation), messages),
    all: (conversation) => read(conversation),
    newest: (conversation, last) => read(conversation, { last }),
    page: (conversation, { id }, limit) => read(conversation, { before: id, limit }),
    async list(user, limit) {
      const { sessions } = await store.listSessions({ user, limit });
      return sessions.map(({ key }) => nameOf(key));
    },
    close: () => store.close(),
  };
}
