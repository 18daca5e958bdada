/** What a process that talks can be asked to do. Each function leaves its messages to the store of the process. */
import { setImmediate } from "node:timers/promises";
import { type ChatStore, type NewMessage, persistentMemory } from "@chatstore/core";
import type { Framework } from "./framework.js";
import { everyLineIsAFact, type OfflineLLM, offlineLLM } from "./offline-llm.js";
import { type ParticipantName, participants, type Turn } from "./participants.js";
import { fileVectorStore } from "./vector-store.js";

/** What the parent is told without asking. */
export interface Parent {
  report(value: unknown): void;
}

export type Conversations = ReturnType<typeof conversations>;

export function conversations(framework: Framework, store: ChatStore, report: Parent["report"]) {
  const { llamaindex } = framework;
  const { createMemory } = llamaindex;
  const OfflineLLM = offlineLLM(llamaindex);
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

    /**
     * Adds messages to a memory, and tells what it then knows.
     *
     * @param tokenLimit Default: the one that the memory has.
     * @param vectors File of a vector store: the memory then has the blocks that learn.
     */
    async remember(
      key: string,
      messages: NewMessage[],
      { tokenLimit, vectors }: { tokenLimit?: number; vectors?: string },
    ) {
      const learning = new OfflineLLM(everyLineIsAFact);
      const memory = await persistentMemory(createMemory, {
        store,
        key,
        ...(tokenLimit !== undefined && { tokenLimit }),
        ...(vectors !== undefined && {
          shortTermTokenLimitRatio: 0.1,
          memoryBlocks: learningBlocks(framework, key, learning, vectors),
        }),
      });
      for (const message of messages) await memory.add(message);
      await memory.flush();
      return {
        context: await memory.getLLM(),
        ui: await memory.get({ type: "vercel" }),
        /** How often facts were extracted. */
        extractions: learning.requests.length,
      };
    },
  };
}

function learningBlocks(framework: Framework, id: string, llm: OfflineLLM, vectors: string) {
  const { factExtractionBlock, vectorBlock } = framework.llamaindex;
  const facts = factExtractionBlock({ id: "facts", llm, maxFacts: 100, priority: 1 });
  if (vectorBlock === undefined) return [facts]; // LlamaIndex 0.11 has none
  const vectorStore = fileVectorStore(framework, vectors);
  return [facts, vectorBlock({ id, vectorStore, priority: 2 })];
}
