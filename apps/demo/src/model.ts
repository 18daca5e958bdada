import { setTimeout } from "node:timers/promises";
import type {
  ChatMessage,
  ChatResponse,
  ChatResponseChunk,
  LLM,
  LLMChatParamsNonStreaming,
  LLMChatParamsStreaming,
} from "llamaindex";
import { extractText, ToolCallLLM } from "llamaindex";

/** Real models, by the name before the colon. The versions are those that share our copy of `@llamaindex/core`. */
const providers: Readonly<Record<string, Provider>> = {
  openai: {
    package: "@llamaindex/openai",
    version: "0.4.22",
    className: "OpenAI",
    needs: "OPENAI_API_KEY",
  },
  ollama: { package: "@llamaindex/ollama", version: "0.1.23", className: "Ollama" },
};

interface Provider {
  readonly package: string;
  readonly version: string;
  readonly className: string;
  /** An environment variable without which it cannot work. */
  readonly needs?: string;
}

/** The model that was asked for cannot be had. The message says what to do. */
export class ModelError extends Error {
  override readonly name = "ModelError";
}

/**
 * The model by its name: `offline`, `openai:<model>` or `ollama:<model>`. Only the package that is needed is imported.
 *
 * @throws ModelError for another name, or when the package or its key is missing.
 */
export async function loadModel(name: string): Promise<LLM> {
  if (name === "offline") return new OfflineModel();

  const [kind = "", model = ""] = name.split(/:(.*)/s);
  const provider = providers[kind];
  if (provider === undefined || model === "") {
    throw new ModelError(
      `DEMO_MODEL is ${JSON.stringify(name)}: it can be "offline", "openai:<model>" or "ollama:<model>"`,
    );
  }
  if (provider.needs !== undefined && !process.env[provider.needs]) {
    throw new ModelError(`DEMO_MODEL=${name} needs the environment variable ${provider.needs}`);
  }
  const module = await importProvider(provider);
  return new (module[provider.className] as new (options: { model: string }) => LLM)({ model });
}

async function importProvider(provider: Provider): Promise<Record<string, unknown>> {
  try {
    return await import(provider.package);
  } catch (cause) {
    if ((cause as { code?: unknown }).code !== "ERR_MODULE_NOT_FOUND") throw cause;
    throw new ModelError(
      `${provider.package} is not installed. Run: npx -y pnpm@10.34.9 --filter @chatstore/demo add ${provider.package}@${provider.version}`,
      { cause },
    );
  }
}

/**
 * A stand-in for a language model: no network, no randomness. Like a real one it knows nothing but the messages it is given:
 * it repeats what was asked earlier, recalls facts that the user told, and quotes the passage that was retrieved.
 */
export class OfflineModel extends ToolCallLLM {
  override readonly supportToolCall = false;
  override readonly metadata = {
    model: "offline",
    temperature: 0,
    topP: 1,
    contextWindow: 128_000,
    tokenizer: undefined,
    structuredOutput: false,
  };

  override chat(params: LLMChatParamsStreaming): Promise<AsyncIterable<ChatResponseChunk>>;
  override chat(params: LLMChatParamsNonStreaming): Promise<ChatResponse>;
  override async chat(
    params: LLMChatParamsStreaming | LLMChatParamsNonStreaming,
  ): Promise<AsyncIterable<ChatResponseChunk> | ChatResponse> {
    const content = answer(params.messages);
    return params.stream ? speak(content) : { message: { role: "assistant", content }, raw: null };
  }
}

/** At about the speed at which people read. */
async function* speak(text: string): AsyncIterable<ChatResponseChunk> {
  for (const delta of text.match(/\s*\S+\s*/g) ?? []) {
    await setTimeout(15);
    yield { delta, raw: null };
  }
}

function answer(messages: readonly ChatMessage[]): string {
  const said = messages
    .filter(({ role }) => role === "user")
    .map(({ content }) => oneLine(content));
  const question = said.at(-1) ?? "";
  const earlier = said.slice(0, -1);
  // The engine puts the retrieved passages last, behind the question.
  const context = messages.findLast(({ role }) => role === "system")?.content ?? "";
  return (
    repeatEarlier(question, earlier) ??
    recallFact(question, earlier) ??
    noteFact(question) ??
    quotePassage(extractText(context)) ??
    "My documents say nothing about that, and I am only the offline stand-in for a language model. " +
      "Ask me why chat memory gets lost, or tell me your name, restart the server, and ask for it."
  );
}

const asksForEarlier =
  /\b(?:did|have|had) (?:i|we) (?:just |already |ever )?(?:ask|sa[iy]|t[eo]l|talk|discuss|mention|wr[io]t)|\b(?:you|still) remember\b/i;
const maxRepeated = 20;

function repeatEarlier(question: string, earlier: readonly string[]): string | undefined {
  if (!asksForEarlier.test(question)) return undefined;
  if (earlier.length === 0) return "Nothing yet: this conversation begins with your question.";
  const shown = earlier.slice(-maxRepeated);
  const first = earlier.length - shown.length;
  const list = shown.map((text, index) => `${first + index + 1}. “${shorten(text)}”`);
  const count = earlier.length === 1 ? "one thing" : `${earlier.length} things`;
  return `Before this you said ${count} in this conversation:\n\n${list.join("\n")}`;
}

const statement = /\b(my [\p{L}\p{N}' -]{1,60}?) (?:is|are) (?:called |named )?([^.!?]{1,80})/iu;
const introduction = /\b(?:i am called|call me) (\p{L}[\p{L}'-]*)/iu;

/** "My name is Ada" is a fact, "Is my name Ada?" is none. */
function factIn(text: string): { subject: string; value: string } | undefined {
  if (text.endsWith("?")) return undefined;
  const name = introduction.exec(text)?.[1];
  if (name !== undefined) return { subject: "my name", value: name };
  const [, subject, value] = statement.exec(text) ?? [];
  if (subject === undefined || value === undefined) return undefined;
  return { subject: plain(subject), value: value.trim() };
}

function recallFact(question: string, earlier: readonly string[]): string | undefined {
  const asked = /\b(?:what|who|where|which|when)(?:['’]s| is| are| was)? (my [^?!.]+)/i.exec(
    question,
  )?.[1];
  if (asked === undefined || factIn(question) !== undefined) return undefined;
  const fact = earlier.map(factIn).findLast((one) => one?.subject === plain(asked));
  const yours = plain(asked).replace(/^my/, "your");
  return fact === undefined
    ? `You have not told me ${yours} in this conversation.`
    : `You told me: ${yours} is ${fact.value}.`;
}

function noteFact(text: string): string | undefined {
  const fact = factIn(text);
  if (fact === undefined) return undefined;
  const yours = fact.subject.replace(/^my/, "your");
  return (
    `Noted: ${yours} is ${fact.value}. Kill the server now, start it again, and ask: “What is ${fact.subject}?” ` +
    "Your message was stored before this answer began."
  );
}

/** The first passage is the one that fits best. Its metadata stands before it, its heading is its first line. */
const passage = /^source: (.+)\n\n(.+)\n([\s\S]+?)(?=^Header_1: |^-{5,}$)/m;

function quotePassage(context: string): string | undefined {
  const [, source, heading, text] = passage.exec(context) ?? [];
  if (text === undefined) return undefined;
  return `${text.trim()}\n\n*From “${heading}”, ${source}*`;
}

function plain(text: string): string {
  return text.toLowerCase().replaceAll("’", "'").trim();
}

function oneLine(content: ChatMessage["content"]): string {
  return extractText(content).replace(/\s+/g, " ").trim();
}

function shorten(text: string): string {
  return text.length > 120 ? `${text.slice(0, 119)}…` : text;
}
