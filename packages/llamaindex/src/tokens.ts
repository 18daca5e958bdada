/** Tokens of a context, counted in linear time. */
import type { ChatMessage, MessageContent } from "@chatstore/core";

export type Count = (messages: readonly ChatMessage[]) => number;

/**
 * Counts tokens as LlamaIndex does: of all texts, with a space in between. `getLLM` asks for the count of an array that
 * grows by one message at a time; each time takes only as long as the new message, unless an application's own tokenizer
 * has tokens that reach over a space behind a word.
 */
export function tokenCount(count: Count): Count {
  return dividesAtSpaces(count) ? growingCount(count) : count;
}

/** More tokens than any tokenizer adds to a text, such as marks of its begin and end. */
const maxAddedTokens = 256;

/** Counts at least as many tokens as there can be, without tokenising: one for each byte, and what is added. */
export function tokenBound(): Count {
  // Of the array that grows: the one that is asked for again.
  let last = { messages: [] as readonly ChatMessage[], length: 0, bytes: 0 };
  return (messages) => {
    const known = last.messages === messages ? last : { messages, length: 0, bytes: 0 };
    for (; known.length < messages.length; known.length++) {
      known.bytes += bytesOf((messages[known.length] as ChatMessage).content);
    }
    if (messages.length > 1) last = known;
    return maxAddedTokens + known.bytes;
  };
}

/** Bytes of the text of a message, with those that LlamaIndex puts between texts. */
function bytesOf(content: MessageContent): number {
  const parts = typeof content === "string" ? 0 : content.length;
  return Buffer.byteLength(textOf(content)) + 2 * parts + 1;
}

/** Tried with texts of many lengths, so that a tokenizer which only divides by some number shows its rounding. */
function dividesAtSpaces(count: Count): boolean {
  return ["I", "am", "now", "here", "again", "with 1", "message"].every((text) => {
    const once = count([message(""), message(text)]);
    return count([message(""), ...Array(8).fill(message(text))]) === 8 * once;
  });
}

function message(content: string): ChatMessage {
  return { role: "user", content };
}

/** Tokenises together only what follows the last space behind a word. */
function growingCount(count: Count): Count {
  const nothing = { length: 0, tokens: 0, settled: 0, tail: [] as readonly ChatMessage[] };
  const counts = new WeakMap<readonly ChatMessage[], typeof nothing>();
  return (messages) => {
    let { length, tokens, settled, tail } = counts.get(messages) ?? nothing;
    for (const added of messages.slice(length)) {
      const last = tail.at(-1);
      if (last !== undefined && (endsInWord(last) || tail.length > maxTailLength)) {
        settled = tokens;
        tail = [message("")];
      }
      tail = [...tail, added];
      tokens = settled + count(tail);
      length++;
    }
    counts.set(messages, { length, tokens, settled, tail });
    return tokens;
  };
}

/** Keeps the count linear where many texts end in white space, at the price of a token more or less. */
const maxTailLength = 16;

function endsInWord({ content }: ChatMessage): boolean {
  return /\S$/.test(typeof content === "string" ? content : textOf(content));
}

/** The text of a message, without its other parts. */
export function textOf(content: MessageContent): string {
  if (typeof content === "string") return content;
  return content.map((part) => (part.type === "text" ? part.text : "")).join("");
}
