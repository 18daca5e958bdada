/** What of a memory the model is shown. */
import type { ChatMessage, NewMessage } from "@chatstore/core";
import {
  arrangeContext,
  cutContext,
  isFromUser,
  keptInCut,
  leadingSystem,
  modelContext,
  presentContext,
} from "@chatstore/core/bridge";
import { type Count, tokenBound, tokenCount } from "./tokens.js";
import type { UpstreamMemory } from "./upstream.js";

/** What a context depends on beside the memory. */
export interface ContextRequest {
  /** The model that is to be shown it. */
  readonly llm: unknown;
  /** Shown at the end, and kept nowhere. */
  readonly transientMessages: readonly ChatMessage[];
  /** What the user said last in this memory, where nothing was added to it since: it is shown behind the answers of others. */
  readonly question: NewMessage | undefined;
}

/**
 * The context that LlamaIndex's own `getLLM` chooses within the token limit, made such that every provider accepts it. The
 * system messages at the beginning and the newest message of the user are part of it at all events.
 *
 * @param choose LlamaIndex's `getLLM` of the memory that it is given.
 */
export async function contextOf(
  memory: UpstreamMemory,
  { llm, transientMessages, question }: ContextRequest,
  choose: (memory: UpstreamMemory) => Promise<ChatMessage[]>,
): Promise<ChatMessage[]> {
  const { processed, unprocessed } = divide(memory, question);
  const recent = arrangeContext([...leadingSystem(processed), ...unprocessed]) as NewMessage[];
  // LlamaIndex takes as many as fit, from the end.
  const kept = keptInCut(recent);
  const [first = 0] = kept;
  const isInPlace = recent.length - first === kept.length;
  const keptMessages = new Set(kept.map((index) => recent[index] as NewMessage));
  const ordered = isInPlace
    ? recent
    : [...recent.filter((message) => !keptMessages.has(message)), ...keptMessages];

  /** What fits, by this count: of memory blocks, and how many of the newest. */
  const attempt = async (count: Count) => {
    const blocks: ChatMessage[] = [];
    const messages = [...processed, ...ordered];
    const view: UpstreamMemory = Object.create(memory, {
      messages: { value: messages },
      memoryCursor: { value: processed.length },
      countMessagesToken: { value: count },
      getMemoryBlockMessages: {
        async value(...[some, limit, given]: BlockArguments) {
          // Blocks are asked with what was said, not with what is made of it for the model.
          const said = given && [...memory.messages, ...given.slice(messages.length)];
          const found = await memory.getMemoryBlockMessages.call(this, some, limit, said);
          blocks.push(...found);
          return found;
        },
      },
    });
    const context = await choose(view);
    const newest = context.slice(blocks.length, context.length - transientMessages.length);
    return { blocks, newest };
  };

  // Mostly all of it fits, which is seen without tokenising anything. Blocks are asked once only: that may cost a model.
  const all =
    memory.memoryBlocks.length > 0 ? undefined : await attempt(tokenBound()).catch(() => undefined);
  const { blocks, newest } =
    all?.newest.length === recent.length
      ? all
      : await attempt(tokenCount((some) => memory.countMessagesToken(some)));
  const mistralIds = isMistralAI(llm);
  // Only Mistral does not take everything at the end: what ContextChatEngine found, as a system message.
  const [inside, behind] = mistralIds ? [transientMessages, []] : [[], transientMessages];
  const isWhole = newest.length === recent.length;
  if (isWhole && isInPlace && blocks.length + inside.length === 0) {
    return [...presentContext(newest, mistralIds), ...behind];
  }
  const oldest = recent.indexOf(ordered[ordered.length - newest.length] as NewMessage);
  const start = newest.length > kept.length ? oldest : recent.length;
  const cut = isWhole ? recent : cutContext(recent, start);
  const shown = cut.map((message) => memory.adapters.llamaindex.fromMemory(message));
  return [...modelContext([...blocks, ...shown, ...inside], { mistralIds }), ...behind];
}

type BlockArguments = Parameters<UpstreamMemory["getMemoryBlockMessages"]>;

/**
 * The messages that long-term memory stands for and the others: those, too, from the newest of the user on, without which
 * the model would not know what to answer.
 */
function divide({ messages, memoryCursor }: UpstreamMemory, question: NewMessage | undefined) {
  const at = question === undefined ? -1 : messages.indexOf(question);
  const isLast = at === -1 || isFromUser(messages.at(-1) as NewMessage);
  const ordered = isLast ? messages : [...messages.toSpliced(at, 1), question as NewMessage];
  const cursor = isLast || at >= memoryCursor ? memoryCursor : memoryCursor - 1;
  if (cursor === 0) return { processed: [], unprocessed: ordered };
  const newest = ordered.findLastIndex(isFromUser);
  const start = newest === -1 ? cursor : Math.min(cursor, newest);
  return { processed: ordered.slice(0, start), unprocessed: ordered.slice(start) };
}

/** LlamaIndex's `MistralAI`: by its options, since a bundler may have renamed the class. */
function isMistralAI(llm: unknown): boolean {
  return typeof llm === "object" && llm !== null && "safeMode" in llm && "randomSeed" in llm;
}
