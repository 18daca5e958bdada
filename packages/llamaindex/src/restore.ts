/** What a memory begins with: the stored messages, and what its blocks had made of them. */
import { type ChatStore, type ChatStoreError, InvalidOptionsError } from "@chatstore/core";
import {
  hasLongTerm,
  hasRandomId,
  isFactBlock,
  isVectorBlock,
  type UpstreamBlock,
} from "./upstream.js";

/** The state entry that belongs to this bridge. */
export const stateEntry = "llamaindex";

/** What the bridge keeps in the session's state, under {@link stateEntry}. */
export interface State {
  readonly tokenLimit?: number | undefined;
  /** Id of the newest message that the long-term memory blocks have processed. */
  readonly cursor?: string | undefined;
  /** What each `factExtractionBlock` has learnt, in the order of the blocks. */
  readonly facts?: readonly StoredFacts[] | undefined;
}

interface StoredFacts {
  readonly id: string;
  readonly facts: readonly unknown[];
}

/** Read a session, or its newest messages and those before that no block has processed yet. */
export async function load(
  store: ChatStore,
  key: string,
  window: number | undefined,
  blocks: readonly UpstreamBlock[],
) {
  const { session, messages } = await store.readSession(key, { last: window });
  const state = (session?.state[stateEntry] ?? {}) as State;
  const loaded = { state, version: session?.version ?? null };
  // Without long-term memory nothing stands for the messages before the cursor.
  if (!hasLongTerm(blocks)) return { ...loaded, messages, memoryCursor: 0 };
  const processed = messages.findIndex(({ id }) => id === state.cursor) + 1;
  if (processed > 0 || messages.length === (session?.messageCount ?? 0)) {
    return { ...loaded, messages, memoryCursor: processed };
  }
  const unprocessed = await readAfter(store, key, state.cursor);
  return { ...loaded, messages: unprocessed, memoryCursor: 0 };
}

/** Everything after the message; everything, when it is gone. */
async function readAfter(store: ChatStore, key: string, id: string | undefined) {
  try {
    return await store.getMessages(key, { after: id });
  } catch (error) {
    if ((error as Partial<ChatStoreError>).code !== "MESSAGE_NOT_FOUND") throw error;
    return store.getMessages(key);
  }
}

const owners = new WeakMap<UpstreamBlock, { readonly store: ChatStore; readonly key: string }>();

/** A block holds what it has learnt: shared, it would tell one user what another one said. */
export function claimBlocks(blocks: readonly UpstreamBlock[], store: ChatStore, key: string): void {
  for (const block of blocks.filter((one) => isFactBlock(one) || isVectorBlock(one))) {
    const owner = owners.get(block);
    if (owner !== undefined && (owner.store !== store || owner.key !== key)) {
      throw new InvalidOptionsError(
        `The memory block ${block.id} belongs to session ${owner.key} and would tell ${key} of it: make the blocks of each session anew`,
      );
    }
    owners.set(block, { store, key });
  }
}

/** Give blocks back what they knew. Returns what they will lose all the same. */
export function restoreFacts(blocks: readonly UpstreamBlock[], state: State): string[] {
  const stored = state.facts ?? [];
  for (const [index, block] of blocks.filter(isFactBlock).entries()) {
    // A block that was given no id has another one each time, but the same place.
    const inPlace = hasRandomId(block.id) ? stored[index] : undefined;
    block.facts = [...((stored.find(({ id }) => id === block.id) ?? inPlace)?.facts ?? [])];
  }
  const warnings: string[] = [];
  if (blocks.some((block) => "maxFacts" in block && !isFactBlock(block))) {
    warnings.push(
      "What a factExtractionBlock of this version of LlamaIndex learns cannot be stored: use the version that Chatstore names",
    );
  }
  if (blocks.some((block) => isVectorBlock(block) && hasRandomId(block.id))) {
    warnings.push(
      "A vectorBlock without an id finds nothing of what it stored before a restart: give it an id that belongs to the session, for example vectorBlock({ id: key, … })",
    );
  }
  return warnings;
}
