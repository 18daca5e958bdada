/** What was said of a reply that nobody read to its end. */
import { InvalidOptionsError, type MessageContent, type NewMessage } from "@chatstore/core";
import { textOf } from "./tokens.js";

/** A chunk of a chat engine's stream. */
export interface ReplyChunk {
  readonly message: { readonly content: MessageContent };
}

/**
 * Pass a stream through, and hand over what was said when it ends early.
 *
 * @throws InvalidOptionsError, to the reader, when this is no chat engine's stream.
 */
export async function* passThrough<Chunk extends ReplyChunk>(
  stream: AsyncIterable<Chunk>,
  onPartial: (reply: NewMessage) => void,
): AsyncGenerator<Chunk, void, undefined> {
  if (typeof stream?.[Symbol.asyncIterator] !== "function") {
    throw new InvalidOptionsError(
      "keepPartialReply was given no stream: pass what engine.chat({ message, stream: true }) resolves to, awaited",
    );
  }
  let said = "";
  let ended = false;
  try {
    for await (const chunk of stream) {
      const content = chunk?.message?.content;
      if (typeof content !== "string" && !Array.isArray(content)) {
        throw new InvalidOptionsError(
          "keepPartialReply takes a chat engine's stream, whose chunks have a message. An agent's run needs none of it: the agent finishes its reply and stores it, whether or not anybody reads its events",
        );
      }
      said += textOf(content);
      yield chunk;
    }
    ended = true;
  } finally {
    // Half of a character outside of the first plane, such as an emoji, is none.
    const content = said.replace(/[\uD800-\uDBFF]$/, "");
    if (!ended && content.trim() !== "") {
      onPartial({ role: "assistant", content, annotations: [{ partial: true }] });
    }
  }
}
