import type { PersistentMemory } from "@chatstore/llamaindex";
import type { ChatMessage, Memory } from "llamaindex";
import type { Framework } from "./framework.js";
import { type Answer, type OfflineLLM, offlineLLM, repeatWhatWasSaid } from "./offline-llm.js";
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
  "agent with the state of a run",
  "multiAgent",
  "multiAgent with the state of a run",
] as const;

export type ParticipantName = (typeof participantNames)[number];

type Remembering = Memory & PersistentMemory;

/** One turn with a new engine or agent around the memory. The reply has been read to its end; nothing is flushed. */
type Participant = (memory: Remembering, message: string) => Promise<Turn>;

type Model = (messages: ChatMessage[]) => Answer;

/**
 * Who can be talked to, by name. Their model is one without a network.
 *
 * @param adapt What their model is to do instead.
 */
export function participants(
  framework: Framework,
  adapt: (model: Model) => Model = (model) => model,
): Readonly<Record<ParticipantName, Participant>> {
  const { llamaindex } = framework;
  const OfflineLLM = offlineLLM(llamaindex);

  const engine =
    (make: (memory: Memory, llm: OfflineLLM) => ChatEngine, stream: boolean): Participant =>
    async (memory, message) => {
      const llm = new OfflineLLM(adapt(repeatWhatWasSaid));
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

    agent: (memory, message) => run(single(framework, { adapt, memory }), message),
    "agent with the state of a run": (memory, message) =>
      run(single(framework, { adapt }), message, memory),
    multiAgent: (memory, message) => run(team(framework, { adapt, memory }), message),
    "multiAgent with the state of a run": (memory, message) =>
      run(team(framework, { adapt }), message, memory),
  };
}

type Workflow = ReturnType<Framework["workflow"]["agent"]>;

/** Agents that can be run, and the model behind all of them. */
interface Agents {
  readonly workflow: Workflow;
  readonly llm: OfflineLLM;
}

interface AgentOptions {
  /** The memory of all runs. */
  readonly memory?: Memory;
  readonly adapt?: (model: Model) => Model;
  /** What happens when a tool is called, before it answers. */
  readonly onCall?: OnCall;
}

type OnCall = (city: string) => Promise<unknown>;

/** @param memory The memory of this run, when the agents have none. */
export async function run(
  { workflow, llm }: Agents,
  message: string,
  memory?: Remembering,
): Promise<Turn> {
  const params = memory === undefined ? {} : { state: memory.runState(workflow) };
  const { data } = await workflow.run(message, params);
  return { reply: String(data.result), shown: llm.requests };
}

/** An agent that asks for the weather of several cities, one after the other and two at once, and then answers. */
export function single(framework: Framework, options: AgentOptions): Agents {
  const { adapt = (model) => model, onCall, ...memory } = options;
  const llm = new (offlineLLM(framework.llamaindex))(adapt(inRounds(forecasts)));
  const tools = [weather(framework, onCall)];
  return { llm, workflow: framework.workflow.agent({ llm, tools, ...memory }) };
}

/** The same work, by an agent to whom another one hands over. */
export function team(framework: Framework, options: AgentOptions): Agents {
  const { adapt = (model) => model, onCall, ...memory } = options;
  const { agent, multiAgent } = framework.workflow;
  const llm = new (offlineLLM(framework.llamaindex))(adapt(inRounds([handOver, ...forecasts])));
  const tools = [weather(framework, onCall)];
  const forecaster = agent({ name: "forecaster", description: "Knows the weather", llm, tools });
  const desk = agent({
    name: "desk",
    description: "Takes calls",
    llm,
    tools,
    canHandoffTo: [forecaster],
  });
  return { llm, workflow: multiAgent({ agents: [desk, forecaster], rootAgent: desk, ...memory }) };
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

function weather({ tool }: Framework, onCall: OnCall = async () => {}) {
  const forecast = async ({ city }: { city: string }) => {
    await onCall(city);
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
const forecasts = [["Rome"], ["Oslo", "Lima"], ["Cairo"]].map((cities) =>
  cities.map((city) => ({ tool: "weather", input: { city } })),
);

/** A model that calls tools in these rounds for each question, and then answers with their results. */
function inRounds(rounds: readonly Exclude<Answer, string>[]): Model {
  return (messages) => {
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
