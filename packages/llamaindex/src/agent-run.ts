/**
 * One run of a LlamaIndex agent workflow, whose agents may serve many users at once. LlamaIndex keeps what happens in a
 * turn on a scratchpad and hands it to memory when the agent has answered; here it is heard of as it happens.
 */
import { isDeepStrictEqual } from "node:util";
import { type ChatMessage, InvalidOptionsError } from "@chatstore/core";
import { toolResultId } from "@chatstore/core/bridge";

/** An agent workflow of LlamaIndex: what `agent()` and `multiAgent()` return. */
export interface AgentWorkflow<State> {
  getAgents(): readonly object[];
  run(userInput: never, params?: { state?: State }): unknown;
}

/** Hears of the messages of a run before the agent adds them to memory. */
export interface RunObserver {
  /**
   * The agent will add this message, this very object, when it has answered. Resolves when it is stored, or could not be;
   * never rejects.
   */
  occurred(message: ChatMessage): Promise<void>;
  /** The agent will add `message` instead of the equal `earlier`. */
  replaced(earlier: ChatMessage, message: ChatMessage): void;
  /** The model failed: the run is over, and nobody will add these messages. */
  failed(messages: readonly ChatMessage[]): void;
}

/**
 * The state with which a workflow begins a run, for a memory of its own.
 *
 * @throws InvalidOptionsError when this is no agent workflow, or of a version that works differently.
 */
export function stateOfRun(
  workflow: object,
  memory: object,
  observer: RunObserver | undefined,
): object {
  if (!isWorkflow(workflow)) {
    throw new InvalidOptionsError(
      "workflow is not one that this Chatstore knows: give it what agent() or multiAgent() of @llamaindex/workflow returned (1.1)",
    );
  }
  const state = { ...workflow.createInitialState(), memory };
  if (observer === undefined) return state;
  observe(workflow, wrapWorkflow);
  for (const agent of workflow.getAgents()) observe(agent, wrapAgent);
  return { ...state, [runOf]: new Run(observer) };
}

/** What LlamaIndex keeps of a run. A symbol is copied by `{ ...state }`, as LlamaIndex does, and left out by JSON. */
interface RunState {
  scratchpad: ChatMessage[];
  [runOf]?: Run;
}

const runOf = Symbol("chatstore run");

/** LlamaIndex's class `AgentWorkflow`, whose methods are private in TypeScript only. */
interface Workflow {
  createInitialState(): RunState;
  getAgents(): readonly Agent[];
  callTool(call: ToolCall): Promise<unknown>;
}

/** The methods with which an agent of LlamaIndex adds to the scratchpad. */
interface Agent {
  takeStep(context: unknown, state: RunState, ...rest: unknown[]): Promise<Step>;
  handleToolCallResults(state: RunState, ...rest: unknown[]): Promise<void>;
}

interface Step {
  readonly toolCalls: readonly ToolCall[];
}

interface ToolCall {
  readonly toolId: string;
}

function isWorkflow(value: unknown): value is Workflow {
  return (
    hasMethods<Workflow>(value, ["createInitialState", "getAgents", "callTool"]) &&
    value
      .getAgents()
      .every((agent) => hasMethods<Agent>(agent, ["takeStep", "handleToolCallResults"]))
  );
}

function hasMethods<Type>(value: unknown, names: readonly (keyof Type)[]): value is Type {
  const methods = (value ?? {}) as Record<keyof Type, unknown>;
  return names.every((name) => typeof methods[name] === "function");
}

/** A run whose messages somebody wants to hear of as they occur. */
class Run {
  readonly #observer: RunObserver;
  readonly #seen = new WeakSet<ChatMessage>();
  /** Results of a step whose other calls have not returned yet, by call. */
  readonly #returned = new Map<string, ChatMessage>();

  constructor(observer: RunObserver) {
    this.#observer = observer;
  }

  /** Resolves when what is new is stored. */
  async changed(scratchpad: readonly ChatMessage[]): Promise<void> {
    const occurred: Promise<void>[] = [];
    for (const message of scratchpad) {
      if (this.#seen.has(message)) continue;
      this.#seen.add(message);
      const earlier = this.#returned.get(toolResultId(message) ?? "");
      if (earlier !== undefined && isDeepStrictEqual(earlier, message)) {
        this.#observer.replaced(earlier, message);
      } else occurred.push(this.#observer.occurred(message));
    }
    await Promise.all(occurred);
  }

  /** A tool returned: the message that LlamaIndex will make of it once all calls of the step have. */
  returned({ toolId }: ToolCall, result: string, isError: boolean): void {
    const toolResult = { id: toolId, result, isError };
    const message: ChatMessage = { role: "user", content: result, options: { toolResult } };
    this.#returned.set(toolId, message);
    void this.#observer.occurred(message);
  }

  failed(scratchpad: readonly ChatMessage[]): void {
    this.#observer.failed(scratchpad);
  }
}

const observed = new WeakSet<object>();

/** Wrap an object's methods, once. Runs that nobody observes go on as before. */
function observe<Target extends object>(target: Target, wrap: (target: Target) => void): void {
  if (observed.has(target)) return;
  observed.add(target);
  wrap(target);
}

/** The run that made a call. LlamaIndex hands the same object on, without the state. */
const runOfCall = new WeakMap<ToolCall, Run>();

function wrapAgent(agent: Agent): void {
  const { takeStep, handleToolCallResults } = agent;
  agent.takeStep = async (context, state, ...rest) => {
    const run = state[runOf];
    try {
      const step = await takeStep.call(agent, context, state, ...rest);
      // Written ahead: no tool is called before its call is stored, or an outage has kept it from being.
      await run?.changed(state.scratchpad);
      if (run !== undefined) for (const call of step.toolCalls) runOfCall.set(call, run);
      return step;
    } catch (error) {
      run?.failed(state.scratchpad);
      throw error;
    }
  };
  agent.handleToolCallResults = async (state, ...rest) => {
    await handleToolCallResults.call(agent, state, ...rest);
    void state[runOf]?.changed(state.scratchpad);
  };
}

function wrapWorkflow(workflow: Workflow): void {
  const { callTool } = workflow;
  workflow.callTool = async (call) => {
    const run = runOfCall.get(call);
    try {
      const output = await callTool.call(workflow, call);
      run?.returned(call, contentOf(output), false);
      return output;
    } catch (error) {
      run?.returned(call, `Error: ${error}`, true);
      throw error;
    }
  };
}

/** As LlamaIndex words a tool's output: indented JSON with unquoted strings. Were it to change, a result would be stored twice, and shown once. */
function contentOf(output: unknown): string {
  return JSON.stringify(output, null, 2).replace(/"([^"]*)"/g, "$1");
}
