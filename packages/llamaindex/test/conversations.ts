/** Conversations and memory options at random, for what must hold of every one of them. */
import fc from "fast-check";
import {
  BaseEmbedding,
  BaseMemoryBlock,
  type ChatMessage,
  type createMemory,
  factExtractionBlock,
  type MemoryMessage,
  SimpleVectorStore,
  staticBlock,
  vectorBlock,
} from "llamaindex";
import {
  anyLlamaIndexMessage,
  anyString,
  anyValue,
} from "../../core/src/conformance/arbitraries.ts";
import { OfflineLLM } from "./offline-llm.ts";

export type MemoryOptions = NonNullable<Parameters<typeof createMemory>[1]>;

/** Words and blanks as they meet in a tokenizer. */
const text = fc
  .array(fc.constantFrom("I", "am", "very", "happy", "12", "…", "\n", " ", "don't", "a b"), {
    maxLength: 12,
  })
  .map((words) => words.join(" "));

const textPart = text.map((said) => ({ type: "text" as const, text: said }));
const content = fc.oneof(
  { weight: 8, arbitrary: text },
  { weight: 2, arbitrary: fc.array(textPart, { maxLength: 3 }) },
  { weight: 1, arbitrary: anyLlamaIndexMessage.map((message) => message.content) },
);
/** Seldom what JSON cannot say: a single bigint, and LlamaIndex cannot make a snapshot any more. */
const extra = fc.oneof({ weight: 9, arbitrary: anyString }, { weight: 1, arbitrary: anyValue });
const providerOptions = fc.dictionary(anyString, extra, { maxKeys: 2, noNullPrototype: true });

/** An id and a time are given or not, as in `MemoryMessage` and `ChatMessage`; each id is used once. */
export const message: fc.Arbitrary<ChatMessage> = fc.record(
  {
    role: fc.constantFrom("user", "assistant", "system", "memory", "developer"),
    content,
    options: providerOptions,
  },
  { requiredKeys: ["role", "content"], noNullPrototype: true },
);

const identity = {
  id: fc.nat().map(String),
  createdAt: fc.date({ noInvalidDate: true, max: new Date("2026-01-01") }),
  annotations: fc.array(extra, { maxLength: 2 }),
};
export const memoryMessage = fc
  .tuple(message, fc.record(identity, { requiredKeys: ["id"], noNullPrototype: true }))
  .map(([said, known]) => ({ ...said, ...known }));

/** Vercel's `UIMessage`; parts that LlamaIndex does not know become texts without a text. */
const uiMessage = fc.record(
  {
    ...identity,
    role: fc.constantFrom("user", "assistant", "system", "data"),
    content: text,
    parts: fc.array(
      fc.oneof(
        textPart,
        fc.constantFrom(
          { type: "step-start" },
          { type: "reasoning", reasoning: "hm", details: [] },
          { type: "file", data: "AAAA", mimeType: "image/png" },
        ),
      ),
      { maxLength: 3 },
    ),
  },
  { requiredKeys: ["id", "role", "content", "parts", "createdAt"], noNullPrototype: true },
);

/** A format of the application's own, and a way to the messages as memory has them. */
const note = fc.record({ note: text, id: identity.id }, { noNullPrototype: true });
type Note = { note: string; id: string; createdAt?: Date };
export const customAdapters = {
  note: {
    isCompatible: (value: unknown): value is Note =>
      typeof value === "object" && value !== null && "note" in value,
    toMemory: ({ note, ...known }: Note) => ({ ...known, role: "user" as const, content: note }),
    fromMemory: (message: MemoryMessage) => ({ id: message.id, note: String(message.content) }),
  },
  raw: {
    isCompatible: (_: unknown): _ is MemoryMessage => false,
    toMemory: (message: MemoryMessage) => message,
    fromMemory: (message: MemoryMessage) => message,
  },
};

/** What can be added, in any of the accepted formats. */
export const input = fc.oneof(message, memoryMessage, uiMessage, note);

/** Each id once: a repeated one is no new message for Chatstore. */
export function withOwnIds<Input extends object>(inputs: readonly Input[]): Input[] {
  return inputs.map((one, index) => ("id" in one ? { ...one, id: `message ${index}` } : one));
}

/** A call of one or two tools, and its results behind it. */
export const toolTurn: fc.Arbitrary<ChatMessage[]> = fc
  .tuple(fc.uniqueArray(fc.nat().map(String), { minLength: 1, maxLength: 2 }), text)
  .map(([ids, said]) => [
    {
      role: "assistant",
      content: said,
      options: { toolCall: ids.map((id) => ({ id, name: "f", input: { id } })) },
    },
    ...ids.map((id) => ({
      role: "user" as const,
      content: `result ${id}`,
      options: { toolResult: { id, result: `result ${id}`, isError: false } },
    })),
  ]);

/** Whether JSON can say it. A `vectorBlock` fails over what it cannot. */
export function isJson(value: unknown): boolean {
  try {
    JSON.stringify(value);
    return true;
  } catch {
    return false;
  }
}

/** What an application's blocks keep outside of themselves, so that it survives them. */
export class World {
  readonly vectorStore = new TextVectorStore({ embeddingModel: new LengthEmbedding() });
  readonly notes: string[] = [];
}

export class LengthEmbedding extends BaseEmbedding {
  // biome-ignore lint/complexity/noUselessConstructor: the inherited one is protected
  constructor() {
    super();
  }

  async getTextEmbedding(text: string) {
    return [text.length, 1];
  }
}

export class TextVectorStore extends SimpleVectorStore {
  override storesText = true;
}

/** A block as an application may write one; LlamaIndex waits for it before the next message. */
class NoteBlock extends BaseMemoryBlock {
  readonly #notes: string[];

  constructor(options: { id: string; priority: number; isLongTerm: boolean }, notes: string[]) {
    super(options);
    this.#notes = notes;
  }

  async get(messages: MemoryMessage[] = []): Promise<MemoryMessage[]> {
    const content = `${messages.length} messages; ${this.#notes.slice(-3).join("; ")}`;
    return [{ id: this.id, role: "memory", content }];
  }

  async put(messages: MemoryMessage[]): Promise<void> {
    this.#notes.push(messages.map(({ content }) => JSON.stringify(content)).join());
  }
}

/** Every line is a fact, until there are too many of them; unless it is patient, some answers make no sense. */
const learner = (isPatient: boolean) =>
  new OfflineLLM(([prompt]) => {
    const asked = String(prompt?.content);
    if (!isPatient && asked.includes("happy happy"))
      return "I would rather talk about something else.";
    const lines = asked.match(/(?<=^\t).+$/gm);
    const known = /(?<=\{ facts: \[).*(?=\] \})/s.exec(asked)?.[0].split(", ") ?? [];
    return JSON.stringify({ facts: lines ?? known.slice(-2) });
  });

/** A model that reads so many tokens. */
export function modelOf(contextWindow: number) {
  const model = new OfflineLLM();
  return Object.assign(model, { metadata: { ...model.metadata, contextWindow } });
}

/** LlamaIndex 0.11 has no `vectorBlock`. */
export const hasVectorBlock = typeof vectorBlock === "function";

/** A block that a memory is to have: made anew for each, because it holds what it has learnt. */
type Block =
  | { kind: "static"; options: Parameters<typeof staticBlock>[0] }
  | { kind: "facts"; options: Omit<Parameters<typeof factExtractionBlock>[0], "llm"> }
  | { kind: "vectors"; options: Omit<Parameters<typeof vectorBlock>[0], "vectorStore"> }
  | { kind: "notes"; options: ConstructorParameters<typeof NoteBlock>[0] };

const priority = fc.integer({ min: 0, max: 3 });
const block = <Kind extends Block["kind"]>(
  kind: Kind,
  options: fc.Arbitrary<Extract<Block, { kind: Kind }>["options"]>,
) => options.map((options) => ({ kind, options }) as Block);
const notes = (isLongTerm: boolean) =>
  block(
    "notes",
    priority.map((priority) => ({ id: "notes", priority, isLongTerm })),
  );
const fixedBlock = fc.oneof(
  block("static", fc.record({ content, messageRole: fc.constantFrom("user", "system", "memory") })),
  notes(false),
);
const factBlock = block(
  "facts",
  fc.record(
    { id: fc.constant("facts"), priority, maxFacts: fc.constantFrom(1, 4, 1_000) },
    { requiredKeys: ["priority", "maxFacts"] },
  ),
);
const vectorMemoryBlock = block(
  "vectors",
  fc.record(
    { id: fc.constant("vectors"), priority, retrievalContextWindow: fc.constantFrom(1, 3, 6) },
    { requiredKeys: ["id", "priority"] },
  ),
);
const longTermBlock = fc.oneof(notes(true), ...(hasVectorBlock ? [vectorMemoryBlock] : []));

/** Options of a memory, and what they mean for a test. */
export interface Setting {
  readonly limits: Pick<MemoryOptions, "tokenLimit" | "shortTermTokenLimitRatio" | "llm">;
  readonly blocks: readonly Block[];
  /** Whether the token limit is far away, so that nothing is cut and no block takes over. */
  readonly roomy: boolean;
  readonly hasFacts: boolean;
}

/** The options of `createMemory`. */
export function optionsOf(
  { limits, blocks }: Setting,
  world: World,
  isPatient = false,
): MemoryOptions {
  const memoryBlocks = blocks.map((one) => make(one, world, isPatient));
  return { customAdapters, ...limits, memoryBlocks };
}

function make(
  { kind, options }: Block,
  { vectorStore, notes }: World,
  isPatient: boolean,
): BaseMemoryBlock {
  if (kind === "static") return staticBlock(options);
  if (kind === "facts") return factExtractionBlock({ ...options, llm: learner(isPatient) });
  if (kind === "vectors") return vectorBlock({ ...options, vectorStore });
  return new NoteBlock(options, notes);
}

const shortTermTokenLimitRatio = fc.constantFrom(0.2, 0.5, 1);
const tight = fc.record(
  {
    tokenLimit: fc.integer({ min: 10, max: 150 }),
    shortTermTokenLimitRatio,
    llm: fc.integer({ min: 10, max: 200 }).map(modelOf),
  },
  { requiredKeys: ["tokenLimit"] },
);
const far = fc.record(
  { tokenLimit: fc.constant(1_000_000), shortTermTokenLimitRatio },
  { requiredKeys: ["tokenLimit"] },
);

function setting(
  limits: fc.Arbitrary<Setting["limits"]>,
  necessary: fc.Arbitrary<Block>[],
  possible: fc.Arbitrary<Block>[],
  kind: Pick<Setting, "roomy" | "hasFacts">,
): fc.Arbitrary<Setting> {
  const more =
    possible.length === 0 ? fc.constant([]) : fc.array(fc.oneof(...possible), { maxLength: 2 });
  return fc
    .tuple(limits, fc.tuple(...necessary), more)
    .map(([limits, some, others]) => ({ limits, blocks: [...some, ...others], ...kind }));
}

/** A memory without blocks, with a long-term one, with one that keeps its facts in RAM; or with room for everything. */
export const anySetting: fc.Arbitrary<Setting> = fc.oneof(
  setting(tight, [], [], { roomy: false, hasFacts: false }),
  setting(tight, [longTermBlock], [fixedBlock, longTermBlock], { roomy: false, hasFacts: false }),
  setting(tight, [factBlock], [fixedBlock, longTermBlock], { roomy: false, hasFacts: true }),
  setting(far, [], [fixedBlock, longTermBlock], { roomy: true, hasFacts: false }),
);

/** Fixed blocks alone, and little room: LlamaIndex then takes messages for processed that no block has taken. */
export const fixedBlocksOnly = setting(tight, [fixedBlock], [fixedBlock], {
  roomy: false,
  hasFacts: false,
});
