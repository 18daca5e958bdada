/** What a process that talks can be asked to do. Each function leaves its messages to the store of the process. */
import { setImmediate } from "node:timers/promises";
import { type ChatStore, persistentMemory, type StoredMessage } from "@chatstore/core";
import type { Framework } from "./framework.js";
import { type ParticipantName, participants, type Turn } from "./participants.js";

/** What the parent is told without asking. */
export interface Parent {
  report(value: unknown): void;
}

export type Conversations = ReturnType<typeof conversations>;

export function conversations(framework: Framework, store: ChatStore, report: Parent["report"]) {
  const { createMemory } = framework.llamaindex;
  const people = participants(framework);
  const open = (key: string) => persistentMemory(createMemory, { store, key });

  return {
    /** One turn with a memory that is opened for it, as for a request; the messages are stored when it resolves. */
    async turn(key: string, name: ParticipantName, message: string): Promise<Turn> {
      const memory = await open(key);
      const turn = await people[name](memory, message);
      await memory.flush();
      return turn;
    },

    /** Talks without awaiting anything until it is killed. Reports how many messages are stored, now and then. */
    async chatter(key: string): Promise<void> {
      const memory = await open(key);
      const waiting: Promise<void>[] = [];
      for (let count = 1; count <= 100_000; count++) {
        void memory.add({ role: "user", content: `message ${count}` });
        waiting.push(memory.flush().then(() => report(count)));
        if (waiting.length > 50) await waiting.shift();
        else await setImmediate();
      }
    },

    /** What is stored. */
    read: (key: string): Promise<StoredMessage[]> => store.getMessages(key),
  };
}
