/**
 * Conversations that end with a kill: what a process says through LlamaIndex, and what the next one is shown of it. The
 * LlamaIndex is a value, so that every version holds the same conversations.
 *
 * @packageDocumentation
 */
export { Child } from "./child.js";
export type { Framework } from "./framework.js";
export { type ParticipantName, participantNames, type Turn } from "./participants.js";
export { serve } from "./serve.js";
export { refusal } from "./tool-messages.js";
