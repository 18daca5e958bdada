/**
 * Conversations of the Vercel AI SDK that outlive their process, over any Chatstore store.
 *
 * @packageDocumentation
 */
export {
  type AiSdkChat,
  type AiSdkChatOptions,
  aiSdkChat,
  type LoadedChat,
  type StreamOptions,
} from "./chat.js";
export type { SetAside } from "./history.js";
export { type ListedChat, listChats } from "./list.js";
export type { ChatRequest } from "./request.js";
