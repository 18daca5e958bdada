import type { ChatStore } from "../chat-store.js";
import { DuplicateMessageError } from "../errors.js";
import type { NewMessage } from "../messages.js";
import type { MessageWriteOptions, WriteResult } from "../store-types.js";

/**
 * Append messages in one step, for frameworks in which a message that comes again with other content takes the old one's
 * place: one round trip, unless that happens. Of messages with one id in the batch the last counts, at the place of the first.
 */
export async function upsertMessages(
  store: ChatStore,
  key: string,
  messages: readonly NewMessage[],
  options: MessageWriteOptions = {},
): Promise<WriteResult> {
  const batch = withoutRepeats(messages);
  try {
    return await store.addMessages(key, batch, options);
  } catch (error) {
    if (!(error instanceof DuplicateMessageError)) throw error;
    const replaced = new Set<unknown>(error.ids);
    let written: WriteResult | undefined;
    for (const message of batch) {
      if (!replaced.has(message.id)) continue;
      const ifVersion = written?.version ?? options.ifVersion;
      written = await store.updateMessage(key, message.id as string, message, { ifVersion });
    }
    const others = batch.filter(({ id }) => !replaced.has(id));
    return store.addMessages(key, others, { ...options, ifVersion: written?.version });
  }
}

function withoutRepeats(messages: readonly NewMessage[]): NewMessage[] {
  const byId = new Map<unknown, NewMessage>();
  for (const message of messages) byId.set(message.id ?? Symbol("its own"), message);
  return [...byId.values()];
}
