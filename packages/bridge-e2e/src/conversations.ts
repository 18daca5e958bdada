/** What a process that talks can be asked to do. Each function leaves its messages to the store of the process. */
import { setImmediate } from "node:timers/promises";
import type { ChatStore, ChatStoreError, NewMessage, StoredMessage } from "@chatstore/core";
import { type PersistentMemoryOptions, persistentMemory } from "@chatstore/llamaindex";
import type { ChatMessage, Memory } from "llamaindex";
import type { Framework } from "./framework.js";
import { everyLineIsAFact, type OfflineLLM, offlineLLM } from "./offline-llm.js";
import {
  condenseEngine,
  type ParticipantName,
  participants,
  run,
  single,
  type Turn,
  team,
} from "./participants.js";
import { isToolResult } from "./tool-messages.js";
import { fileVectorStore } from "./vector-store.js";

/** What the parent is told without asking. */
export interface Parent {
  report(value: unknown): void;
}

/** What can be done to a memory. `reset` is that of CondenseQuestionChatEngine, which awaits nothing. */
export type Step = "clear" | "reset" | { readonly say: string };

export type Conversations = ReturnType<typeof conversations>;

export function conversations(framework: Framework, store: ChatStore, report: Parent["report"]) {
  const { llamaindex } = framework;
  const { createMemory } = llamaindex;
  const OfflineLLM = offlineLLM(llamaindex);
  const people = participants(framework);
  const condensing = (memory: Memory) =>
    llamaindex.Settings.withLLM(new OfflineLLM(), () => condenseEngine(framework, memory));
  const open = (key: string) => persistentMemory(createMemory, { store, key });

  const kept = new Map<string, ReturnType<typeof openListening>>();
  const openListening = async (key: string, stale: PersistentMemoryOptions["stale"]) => {
    const heard: string[] = [];
    const onError = (error: Error) => void heard.push((error as ChatStoreError).code);
    return { memory: await persistentMemory(createMemory, { store, key, stale, onError }), heard };
  };
  const keep = (key: string, stale?: PersistentMemoryOptions["stale"]) => {
    const opened = kept.get(key) ?? openListening(key, stale);
    kept.set(key, opened);
    return opened;
  };

  return {
    /** One turn with a memory that is opened for it, as for a request. What was said is stored when it settles. */
    async turn(key: string, name: ParticipantName, message: string): Promise<Turn> {
      const memory = await open(key);
      try {
        return await people[name](memory, message);
      } finally {
        await memory.flush();
      }
    },

    /**
     * Talks without awaiting anything until it is killed. Reports how many messages are stored, now and then.
     *
     * @param clearAfter So many messages are followed by a `clear`, which nobody awaits either.
     */
    async chatter(key: string, clearAfter = Number.POSITIVE_INFINITY): Promise<void> {
      const memory = await open(key);
      const waiting: Promise<void>[] = [];
      for (let count = 1; count <= 100_000; count++) {
        void memory.add({ role: "user", content: `message ${count}` });
        if (count % clearAfter === 0) void memory.clear();
        waiting.push(memory.flush().then(() => report(count)));
        if (waiting.length > 50) await waiting.shift();
        else await setImmediate();
      }
    },

    /**
     * Begins a turn with an agent that never gets the weather of this city. Reports when it waits for it and what it was told
     * before is stored: a tool that is called at the same time may answer later.
     */
    async hang(
      key: string,
      who: "agent" | "multiAgent",
      message: string,
      city: string,
      told: readonly string[],
    ) {
      const memory = await open(key);
      const onCall = async (called: string) => {
        if (called !== city) return;
        for (let isStored = false; !isStored; await memory.flush()) {
          await setImmediate();
          const stored = (await store.getMessages(key)).map(({ content }) => content);
          isStored = told.every((text) => stored.includes(text));
        }
        report(key);
        await new Promise(() => {});
      };
      const agents = (who === "agent" ? single : team)(framework, { onCall });
      await run(agents, message, memory);
    },

    /** Begins a turn with an agent whose tool ends this process at once when it is asked for this city. */
    async die(key: string, who: "agent" | "multiAgent", message: string, city: string) {
      const onCall = async (called: string) => {
        if (called === city) process.kill(process.pid, "SIGKILL");
      };
      await run((who === "agent" ? single : team)(framework, { onCall }), message, await open(key));
    },

    /** A turn whose streamed reply is read no further than that many words. */
    async abandon(key: string, message: string, words: number): Promise<void> {
      const memory = await open(key);
      const engine = new llamaindex.SimpleChatEngine({ memory, llm: new OfflineLLM() });
      const reply = memory.keepPartialReply(await engine.chat({ message, stream: true }));
      for (let word = 0; word < words; word++) await reply.next();
      await reply.return();
      await memory.flush();
    },

    /** A turn with a model that fails instead of answering, after the first tool when it calls some. Reports that. */
    async fail(key: string, name: ParticipantName, message: string): Promise<void> {
      const { memory } = await keep(key);
      const failing = participants(framework, (model) => (messages) => {
        const answer = model(messages);
        const [newest] = messages.slice(-1);
        if (typeof answer !== "string" && newest && !isToolResult(newest)) return answer;
        report("The model fails");
        throw new Error("The model is overloaded");
      });
      await failing[name](memory, message);
    },

    /** From now on no unhandled rejection ends this process, as in many servers. */
    async endure(): Promise<void> {
      process.on("unhandledRejection", () => {});
    },

    /** Opens the memory of a session, to stay open for what follows. */
    async attend(key: string, stale: PersistentMemoryOptions["stale"]): Promise<void> {
      await keep(key, stale);
    },

    /** Does these things at once, awaiting none, with a memory that stays open for the next call. */
    async perform(key: string, steps: readonly Step[]): Promise<void> {
      const { memory } = await keep(key);
      for (const step of steps) {
        if (step === "clear") void memory.clear();
        else if (step === "reset") condensing(memory).reset();
        else void memory.add({ role: "user", content: step.say });
      }
    },

    /** One turn with the memory that stays open. */
    async continue(key: string, name: ParticipantName, message: string): Promise<Turn> {
      return people[name]((await keep(key)).memory, message);
    },

    /** What is stored. */
    read: (key: string): Promise<StoredMessage[]> => store.getMessages(key),

    /** What a model is shown now, by a memory that is opened for it. */
    context: async (key: string): Promise<ChatMessage[]> => (await open(key)).getLLM(),

    /** Flushes the memory that stays open. Resolves to the code of the error. */
    async flush(key: string): Promise<string | undefined> {
      const { memory } = await keep(key);
      return memory.flush().then(
        () => undefined,
        (error: ChatStoreError) => error.code,
      );
    },

    /** The codes of the errors that nobody awaited, of the memory that stays open. */
    heard: async (key: string): Promise<string[]> => (await keep(key)).heard,

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
