/** What is compared: our store, the raw driver and each peer are contestants that do the same work on the same messages. */
import type { Capabilities } from "@chatstore/core";

/** One conversation of one user. */
export interface Conversation {
  readonly user: string;
  readonly name: string;
}

/** A message as every contestant takes it and gives it back. */
export interface Message {
  /** Given where a conversation is filled. Absent: the contestant makes one that is unique. */
  readonly id?: string;
  readonly role: "user" | "assistant";
  readonly content: string;
}

/** Where a contestant keeps its data: two with different namespaces do not see each other. Travels to child processes. */
export interface Place {
  /** The server's URL, or a folder. */
  readonly at: string;
  /** Letters, digits and `_`. */
  readonly namespace: string;
}

/** What an acknowledged write survives with the settings in force. Unlike ones are not compared without saying so. */
export interface Durability {
  readonly survives: Capabilities["survives"];
  /** The settings that make it so, for people: `WAL, synchronous=FULL`. */
  readonly settings: string;
}

/** The messages that a conversation begins with. */
export type Filling = readonly [Conversation, readonly Message[]];

/**
 * What a contestant can do. A method that it does not have, or a work that it cannot do, is a cell that stays empty.
 *
 * Every write is durable as {@link Contestant.durability} says when its promise resolves; reads give what is stored, decoded.
 */
export interface Contestant {
  readonly durability: Durability;
  /** What a peer does not give that ours does. */
  readonly without?: readonly string[];
  /** Why it does not do a work, by the work's name in the result. */
  readonly cannot?: Readonly<Record<string, string>>;
  /** It is not filled with longer conversations: it would take hours, or not work at all. Absent: any length. */
  readonly longest?: { readonly messages: number; readonly because: string };

  /** Begin conversations, quickly: it is not measured, and need not be durable. */
  fill(fillings: Iterable<Filling>): Promise<void>;
  /** Append a batch. */
  append(conversation: Conversation, messages: readonly Message[]): Promise<unknown>;
  /** All messages, oldest first. */
  all(conversation: Conversation): Promise<readonly Message[]>;
  /** The newest `count`, oldest first. */
  newest?(conversation: Conversation, count: number): Promise<readonly Message[]>;
  /** The `count` messages before one of them, oldest first. */
  page?(conversation: Conversation, before: Anchor, count: number): Promise<readonly Message[]>;
  /** The names of a user's conversations, the one that changed last first, at most `count`; read with what a list shows of each. */
  list?(user: string, count: number): Promise<readonly string[]>;
  close(): Promise<void>;
}

/** A message by its id, and by how many are before it. */
interface Anchor {
  readonly id: string;
  readonly position: number;
}

export type OpenContestant = (place: Place) => Promise<Contestant>;

/** Our store where a write survives the process only: compared with peers whose writes do not survive more. */
export const relaxedOurs = "ours-process";
