/** What a memory begins with: the stored messages, and what its blocks had made of them. */
import {
  type ChatStore,
  type ChatStoreError,
  InvalidOptionsError,
  type NewMessage,
  type Version,
} from "@chatstore/core";
import { isFromUser, isSystem } from "@chatstore/core/bridge";
import { translate } from "./incoming.js";
import {
  type FactBlock,
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
  /** Id of the message up to which the long-term memory blocks have processed all that is stored. */
  readonly cursor?: string | undefined;
  /** What each `factExtractionBlock` has learnt, in the order of the blocks. */
  readonly facts?: readonly StoredFacts[] | undefined;
}

export interface StoredFacts {
  readonly id: string;
  readonly facts: readonly unknown[];
}

/** What a memory begins with. */
export interface Loaded {
  readonly messages: NewMessage[];
  readonly memoryCursor: number;
  readonly state: State;
  readonly version: Version | null;
  /** How many of the stored messages LlamaIndex has no form for. */
  readonly leftOut: number;
}

/**
 * Read a session, or its newest messages and those before that no block has processed yet. A window also has the system
 * messages with which the session begins and the newest message of the user, without which a model makes nothing of the rest.
 */
export async function load(
  store: ChatStore,
  key: string,
  window: number | undefined,
  blocks: readonly UpstreamBlock[],
): Promise<Loaded> {
  // At once with the window: it is seldom needed, and takes no time beside it.
  const start = window === undefined ? [] : store.getMessages(key, { limit: 1 }).catch(() => []);
  const { session, messages: newest } = await store.readSession(key, { last: window });
  const state = (session?.state[stateEntry] ?? {}) as State;
  const isWhole = (some: readonly NewMessage[]) => some.length === (session?.messageCount ?? 0);
  let stored: readonly NewMessage[] = newest;
  const isProcessed = ({ id }: NewMessage) => id === state.cursor;
  if (hasLongTerm(blocks) && !isWhole(newest) && !newest.some(isProcessed)) {
    stored = await readAfter(store, key, state.cursor);
  }
  const earlier = isWhole(stored) ? [] : await readBefore(store, key, stored, await start);
  const [before, given] = [translated(earlier), translated(stored)];
  // Without long-term memory nothing stands for the messages before the cursor.
  const processed = before.messages.length + given.messages.findIndex(isProcessed) + 1;
  return {
    messages: [...before.messages, ...given.messages],
    leftOut: before.leftOut + given.leftOut,
    memoryCursor: hasLongTerm(blocks) ? processed : 0,
    state,
    version: session?.version ?? null,
  };
}

/** What every context needs of the messages before these. */
async function readBefore(
  store: ChatStore,
  key: string,
  messages: readonly NewMessage[],
  start: readonly NewMessage[],
): Promise<NewMessage[]> {
  const isQuestion = (message: NewMessage) => translate(message).some(isFromUser);
  const isInstruction = (message: NewMessage) => translate(message).every(isSystem);
  let earlier: NewMessage[] = [];
  let oldest = messages[0]?.id;
  try {
    for (let found = messages.some(isQuestion); !found && oldest !== undefined; ) {
      const page = await store.getMessages(key, { before: oldest, limit: pageSize });
      const newest = page.findLastIndex(isQuestion);
      found = newest !== -1;
      earlier = [...page.slice(Math.max(newest, 0)), ...earlier];
      oldest = page[0]?.id;
    }
    const known = new Set([...earlier, ...messages].map(({ id }) => id));
    const systems: NewMessage[] = [];
    let [next] = start;
    while (next !== undefined && isInstruction(next) && !known.has(next.id)) {
      systems.push(next);
      [next] = await store.getMessages(key, { after: next.id, limit: 1 });
    }
    return [...systems, ...earlier];
  } catch (error) {
    // Somebody has removed them meanwhile.
    if ((error as Partial<ChatStoreError>).code === "MESSAGE_NOT_FOUND") return [];
    throw error;
  }
}

/** How many messages are read at once in search of the user's newest. */
const pageSize = 50;

function translated(stored: readonly NewMessage[]) {
  let leftOut = 0;
  const messages = stored.flatMap((message) => {
    const own = translate(message);
    if (own.length === 0) leftOut++;
    return own;
  });
  return { messages, leftOut };
}

/** Everything after the message; everything, when it is gone. */
async function readAfter(
  store: ChatStore,
  key: string,
  id: string | undefined,
  limit?: number,
): Promise<readonly NewMessage[]> {
  try {
    return await store.getMessages(key, { after: id, limit });
  } catch (error) {
    if ((error as Partial<ChatStoreError>).code !== "MESSAGE_NOT_FOUND") throw error;
    return store.getMessages(key, { limit });
  }
}

/** The same, in pages, for who does not need all of it. */
export async function* eachAfter(
  store: ChatStore,
  key: string,
  id: string | undefined,
): AsyncGenerator<NewMessage> {
  for (let last = id, isEnd = false; !isEnd; ) {
    const page = await readAfter(store, key, last, largePage);
    yield* page;
    isEnd = page.length < largePage;
    last = page.at(-1)?.id;
  }
}

const largePage = 200;

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

/** Where a block's facts stand among the stored ones; -1 when they do not. */
export function placeOf(stored: readonly StoredFacts[], { id }: FactBlock, index: number): number {
  const place = stored.findIndex((one) => one.id === id);
  // A block that was given no id has another one each time, but the same place.
  const inPlace = place === -1 && hasRandomId(id) && hasRandomId(stored[index]?.id ?? "");
  return inPlace ? index : place;
}

/** Give blocks back what they knew. */
export function restoreFacts(blocks: readonly UpstreamBlock[], { facts = [] }: State): void {
  for (const [index, block] of blocks.filter(isFactBlock).entries()) {
    block.facts = [...(facts[placeOf(facts, block, index)]?.facts ?? [])];
  }
}

/** What blocks will lose in spite of the store. */
export function lossesOf(blocks: readonly UpstreamBlock[]): string[] {
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
