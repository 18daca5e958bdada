import type { ChatMessage, Memory } from "llamaindex";
import type { Framework } from "./framework.js";
import { type Answer, type OfflineLLM, offlineLLM } from "./offline-llm.js";
import { isToolCall, isToolResult } from "./tool-messages.js";

/** A user's message and what came of it. */
export interface Turn {
  readonly reply: string;
  /** The messages of each request to the model. */
  readonly shown: readonly (readonly ChatMessage[])[];
}

/** Everything of LlamaIndex that takes a memory. */
export const participantNames = [
  "SimpleChatEngine",
  "SimpleChatEngine, streaming",
  "ContextChatEngine",
  "ContextChatEngine, streaming",
  "CondenseQuestionChatEngine",
  "CondenseQuestionChatEngine, streaming",
  "agent",
  "multiAgent",
] as const;

export type ParticipantName = (typeof participantNames)[number];

/** One turn with a new engine or agent around the memory. The reply has been read to its end; nothing is flushed. */
export type Participant = (memory: Memory, message: string) => Promise<Turn>;

/** Who can be talked to, by name. Their model is one without a network. */
export function participants(framework: Framework): Readonly<Record<ParticipantName, Participant>> {
  const { llamaindex, workflow } = framework;
  const OfflineLLM = offlineLLM(llamaindex);

  const engine =
    (make: (memory: Memory, llm: OfflineLLM) => ChatEngine, stream: boolean): Participant =>
    async (memory, message) => {
      const llm = new OfflineLLM();
      // The query engine behind CondenseQuestionChatEngine takes its model from the settings.
      const reply = await llamaindex.Settings.withLLM(llm, () =>
        say(make(memory, llm), message, stream),
      );
      return { reply, shown: llm.requests };
    };

  const simple = (memory: Memory, llm: OfflineLLM) =>
    new llamaindex.SimpleChatEngine({ memory, llm });
  const context = (memory: Memory, chatModel: OfflineLLM) =>
    new llamaindex.ContextChatEngine({
      retriever: oneDocument(framework),
      chatHistory: memory,
      chatModel,
    });
  const condense = (memory: Memory) => condenseEngine(framework, memory);

  return {
    SimpleChatEngine: engine(simple, false),
    "SimpleChatEngine, streaming": engine(simple, true),
    ContextChatEngine: engine(context, false),
    "ContextChatEngine, streaming": engine(context, true),
    CondenseQuestionChatEngine: engine(condense, false),
    "CondenseQuestionChatEngine, streaming": engine(condense, true),

    async agent(memory, message) {
      const llm = new OfflineLLM(inRounds(forecasts));
      const forecaster = workflow.agent({ llm, tools: [weather(framework)], memory });
      const { data } = await forecaster.run(message);
      return { reply: String(data.result), shown: llm.requests };
    },

    async multiAgent(memory, message) {
      const llm = new OfflineLLM(inRounds([handOver, ...forecasts]));
      const tools = [weather(framework)];
      const forecaster = workflow.agent({
        name: "forecaster",
        description: "Knows the weather",
        llm,
        tools,
      });
      const desk = workflow.agent({
        name: "desk",
        description: "Takes calls",
        llm,
        tools,
        canHandoffTo: [forecaster],
      });
      const team = workflow.multiAgent({ agents: [desk, forecaster], rootAgent: desk, memory });
      const { data } = await team.run(message);
      return { reply: String(data.result), shown: llm.requests };
    },
  };
}

/** Its constructor takes no `Memory`. */
export function condenseEngine(framework: Framework, memory: Memory) {
  const { CondenseQuestionChatEngine, RetrieverQueryEngine } = framework.llamaindex;
  const queryEngine = new RetrieverQueryEngine(oneDocument(framework));
  const engine = new CondenseQuestionChatEngine({ queryEngine, chatHistory: [] });
  engine.memory = memory;
  return engine;
}

interface ChatEngine {
  chat(params: { message: string }): Promise<{ message: ChatMessage }>;
  chat(params: { message: string; stream: true }): Promise<AsyncIterable<{ delta: string }>>;
}

async function say(engine: ChatEngine, message: string, stream: boolean): Promise<string> {
  if (!stream) return String((await engine.chat({ message })).message.content);
  let reply = "";
  for await (const { delta } of await engine.chat({ message, stream: true })) reply += delta;
  return reply;
}

function oneDocument({ llamaindex }: Framework) {
  const node = new llamaindex.TextNode({ text: "Chatstore remembers." });
  class OneDocument extends llamaindex.BaseRetriever {
    // biome-ignore lint/complexity/noUselessConstructor: the inherited one is protected
    constructor() {
      super();
    }

    async _retrieve() {
      return [{ node, score: 1 }];
    }
  }
  return new OneDocument();
}

/** @param before What happens when the tool is called, before it answers. */
export function weather(
  { tool }: Framework,
  before: (city: string) => Promise<unknown> = async () => {},
) {
  const forecast = async ({ city }: { city: string }) => {
    await before(city);
    return `Sunny in ${city}`;
  };
  return tool(forecast, {
    name: "weather",
    description: "The weather of a city",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  });
}

const handOver = [{ tool: "handOff", input: { toAgent: "forecaster", reason: "weather" } }];

/** Rounds of tool calls; in the second one two at once. */
export const forecasts = [["Rome"], ["Oslo", "Lima"], ["Cairo"]].map((cities) =>
  cities.map((city) => ({ tool: "weather", input: { city } })),
);

/** A model that calls tools in these rounds for each question, and then answers with their results. */
export function inRounds(rounds: readonly Exclude<Answer, string>[]) {
  return (messages: ChatMessage[]): Answer => {
    const question = messages.findLastIndex(
      (message) => message.role === "user" && !isToolResult(message),
    );
    const since = messages.slice(question + 1);
    const round = rounds[since.filter(isToolCall).length];
    return (
      round ??
      `${since
        .filter(isToolResult)
        .map(({ content }) => content)
        .join(", ")}.`
    );
  };
}
