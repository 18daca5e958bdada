/**
 * A chat message history for LangChain.js that outlives its process, over any Chatstore store.
 *
 * @packageDocumentation
 */
export { ChatstoreMessageHistory, type ChatstoreMessageHistoryOptions } from "./history.js";
