/**
 * A `SessionStore` for the Claude Agent SDK, over any Chatstore store.
 *
 * @packageDocumentation
 */
export {
  type ClaudeSessionStore,
  type ClaudeSessionStoreOptions,
  claudeSessionKey,
  claudeSessionStore,
} from "./session-store.js";
