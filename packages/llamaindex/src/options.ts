import { type ChatStore, InvalidOptionsError } from "@chatstore/core";

/** @throws InvalidOptionsError for anything but a store, such as the path or the URL of one. */
export function checkStore(store: ChatStore): void {
  const methods = ["readSession", "addMessages", "setMessages", "setState"] as const;
  if (methods.every((name) => typeof store?.[name] === "function")) return;
  const given: unknown = store;
  const isName = typeof given === "string";
  throw new InvalidOptionsError(
    `store is ${isName ? "a string" : given === null ? "null" : typeof given}, no chat store: give what a factory returned, ` +
      "such as sqliteChatStore({ path }), " +
      (isName ? "or what openChatStore(url) resolves to" : "awaited where it is a promise"),
  );
}
