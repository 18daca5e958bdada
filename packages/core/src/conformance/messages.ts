/** Messages that tests write, and what can be told from them when they are read. */
import type { NewMessage, StoredMessage } from "../messages.js";

/** A user's message. */
export function say(content: string, rest: Partial<NewMessage> = {}): NewMessage {
  return { role: "user", content, ...rest };
}

/** Five messages whose ids are their texts. */
export const abcde: readonly NewMessage[] = ["a", "b", "c", "d", "e"].map((id) =>
  say(id, { id, createdAt: new Date(1_000) }),
);

/** A batch whose messages know the batch, their place in it, and its size. */
export function batchOf(label: string, size: number, text = ""): NewMessage[] {
  return Array.from({ length: size }, (_, index) => ({
    id: `${label}.${index}`,
    role: "user",
    content: `${label} ${index + 1}/${size} ${text}`,
    annotations: [{ batch: label, index, size }],
  }));
}

/** The batches of {@link batchOf} that are not there whole, in one piece and in order. */
export function brokenBatches(messages: readonly StoredMessage[]): string[] {
  const problems: string[] = [];
  const done = new Set<string>();
  for (let start = 0; start < messages.length; ) {
    const { batch, size } = placeOf(messages[start] as StoredMessage);
    const places = messages.slice(start, start + size).map(placeOf);
    const end = places.findIndex((place, index) => place.batch !== batch || place.index !== index);
    const length = end < 0 ? places.length : end;
    if (done.has(batch)) problems.push(`batch ${batch} is not in one piece`);
    else if (length < size)
      problems.push(`of batch ${batch} ${length} of ${size} messages are there`);
    done.add(batch);
    start += Math.max(length, 1);
  }
  return problems;
}

/** Whether a message is the last of its batch, as whatever is read last must be. */
export function endsBatch(message: StoredMessage): boolean {
  const { index, size } = placeOf(message);
  return index === size - 1;
}

function placeOf(message: StoredMessage): { batch: string; index: number; size: number } {
  return message.annotations?.[0] as { batch: string; index: number; size: number };
}

/** What a message should be when it is read. Its id and time are the caller's, or those that core gave it. */
export function stored(message: NewMessage, given?: StoredMessage): StoredMessage {
  const { id = given?.id, createdAt = given?.createdAt, options, annotations, ...rest } = message;
  return {
    ...rest,
    id: id as string,
    createdAt: createdAt as Date,
    ...(options !== undefined && { options }),
    ...(annotations !== undefined && { annotations }),
  };
}

/** The texts of messages, for short comparisons. */
export function texts(messages: readonly StoredMessage[]): string[] {
  return messages.map(({ content }) => String(content));
}

/** The ids of messages. */
export function ids(messages: readonly StoredMessage[]): string[] {
  return messages.map(({ id }) => id);
}
