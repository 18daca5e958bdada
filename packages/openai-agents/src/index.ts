/**
 * A `Session` for the OpenAI Agents SDK that outlives its process, over any Chatstore store.
 *
 * @packageDocumentation
 */
export {
  type OpenAIAgentsSession,
  type OpenAIAgentsSessionOptions,
  openAIAgentsSession,
} from "./session.js";
