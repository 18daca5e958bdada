/** What the parent and its child processes say to each other. */
import type { ChatStore } from "../chat-store.js";
import type { RoutineName, Routines } from "./routines.js";

const methods = [
  "open",
  "addMessage",
  "addMessages",
  "setMessages",
  "updateMessage",
  "deleteMessage",
  "deleteLastMessage",
  "deleteMessagesAfter",
  "replaceMessagesAfter",
  "deleteMessages",
  "setState",
  "setTitle",
  "forkSession",
  "importSession",
  "getMessages",
  "getSession",
  "readSession",
  "verifySession",
  "getKeys",
  "listSessions",
  "deleteSessions",
  "purgeExpired",
  "flush",
  "close",
] as const satisfies readonly (keyof ChatStore)[];

export type Method = (typeof methods)[number];

/** A method's result as it travels: `getKeys()` gives an iterator, which does not. */
type Travelled<T> = T extends IterableIterator<infer Item> ? Item[] : T;

/** A chat store in this process or in another one: a test need not know. */
export type Handle = {
  readonly [M in Method]: (
    ...args: Parameters<ChatStore[M]>
  ) => Promise<Travelled<Awaited<ReturnType<ChatStore[M]>>>>;
} & {
  /** Run a routine beside the store, in its process. */
  run<Name extends RoutineName>(
    name: Name,
    args: Parameters<Routines[Name]>[1],
    onEmit?: (value: unknown) => void,
  ): ReturnType<Routines[Name]>;
};

/** How to open a store in any process. */
export interface Opening {
  readonly module: string;
  readonly factory: string;
  readonly options: object;
}

/** Parent to child. */
export type Request =
  | { readonly id: number; readonly open: Opening }
  | { readonly id: number; readonly store: number; readonly method: Method; args: unknown[] }
  | { readonly id: number; readonly store: number; readonly routine: RoutineName; args: unknown }
  | { readonly id: number; readonly retire: true };

/** Child to parent. */
export type Response =
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly emitted: unknown }
  | { readonly id: number; readonly error: Record<string, unknown> };

/** A {@link Handle} from the two things that differ between a near store and a far one. */
export function toHandle(
  call: (method: Method, args: unknown[]) => Promise<unknown>,
  run: Handle["run"],
): Handle {
  const entries = methods.map((method) => [method, (...args: unknown[]) => call(method, args)]);
  return { ...Object.fromEntries(entries), run };
}

/** Call a method of a store in this process, with a result that can travel. */
export async function callStore(
  store: ChatStore,
  method: Method,
  args: unknown[],
): Promise<unknown> {
  const result = await (store[method] as (...args: unknown[]) => Promise<unknown>)(...args);
  return method === "getKeys" ? [...(result as Iterable<unknown>)] : result;
}
