import type { ChatStore } from "../chat-store.js";
import { sessionKey } from "../session-key.js";
import { say } from "./messages.js";

type Call = (store: ChatStore, key: string) => Promise<unknown>;

const elsewhere = sessionKey({ user: "nobody", conversation: "elsewhere" });

/** Every method that needs the engine. */
export const calls: Readonly<Record<string, Call>> = {
  open: (store) => store.open(),
  addMessage: (store, key) => store.addMessage(key, say("x")),
  "addMessage at a position": (store, key) => store.addMessage(key, say("x"), 0),
  addMessages: (store, key) => store.addMessages(key, [say("x"), say("y")]),
  "addMessages of nothing": (store, key) => store.addMessages(key, []),
  setMessages: (store, key) => store.setMessages(key, [say("x")]),
  updateMessage: (store, key) => store.updateMessage(key, "a", say("x")),
  deleteMessage: (store, key) => store.deleteMessage(key, 0),
  deleteLastMessage: (store, key) => store.deleteLastMessage(key),
  deleteMessagesAfter: (store, key) => store.deleteMessagesAfter(key, "a"),
  replaceMessagesAfter: (store, key) => store.replaceMessagesAfter(key, "a", [say("x")]),
  deleteMessages: (store, key) => store.deleteMessages(key),
  setState: (store, key) => store.setState(key, { x: 1 }),
  setTitle: (store, key) => store.setTitle(key, "x"),
  forkSession: (store, key) => store.forkSession(key, elsewhere),
  verifySession: (store, key) => store.verifySession(key),
  importSession: (store, key) =>
    store.importSession(key, {
      messages: [say("x")],
      createdAt: new Date(0),
      updatedAt: new Date(0),
    }),
  getMessages: (store, key) => store.getMessages(key),
  getSession: (store, key) => store.getSession(key),
  readSession: (store, key) => store.readSession(key, { last: 1 }),
  getKeys: (store) => store.getKeys(),
  "listSessions of a user": (store) => store.listSessions({ user: "alice" }),
  "listSessions of all": (store) => store.listSessions({}),
  deleteSessions: (store) => store.deleteSessions({ user: "alice" }),
  purgeExpired: (store) => store.purgeExpired(),
};
