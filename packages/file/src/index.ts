/**
 * Durable chat memory in plain files: one append-only JSON Lines file per session.
 *
 * @packageDocumentation
 */
import {
  type ChatMessage,
  type ChatStore,
  type ChatStoreOptions,
  createChatStore,
  type OwnOptions,
} from "@chatstore/core";
import { FileBackend } from "./backend.js";

export * from "@chatstore/core";
export { FileBackend };

/** Options of {@link fileChatStore}. Give either `dir` or `url`. */
export interface FileChatStoreOptions extends ChatStoreOptions {
  /**
   * The folder that holds everything, relative to the working directory of now. It is created when absent, its parent is
   * not. A local disk: see the README's limits.
   */
  readonly dir?: string | undefined;
  /** `dir` as a URL: `file:./chats` (relative) or `file:///var/lib/app/chats`. Percent-encoded. */
  readonly url?: string | undefined;
  /**
   * What an acknowledged write survives. `host` (default): a power failure, at the price of one sync to disk for each
   * write. `process`: the end of this process, however sudden; a power failure may take the writes of the last seconds.
   */
  readonly survives?: "host" | "process" | undefined;
}

const ownOptions: OwnOptions<FileChatStoreOptions> = {
  dir: true,
  url: true,
  survives: true,
};

/**
 * A chat store in a folder of plain files. Any number of processes of one machine may use the folder at once.
 *
 * @throws InvalidOptionsError for options that are missing or contradict each other.
 * @example const store = fileChatStore({ dir: "./chats" });
 */
export function fileChatStore<Message extends object = ChatMessage>(
  options: FileChatStoreOptions,
): ChatStore<Message> {
  return createChatStore("file", options, ownOptions, (given) => new FileBackend(given));
}

export { fileChatStore as default };
