import {
  type ChatStore,
  InvalidOptionsError,
  type Session as StoredSession,
  VersionConflictError,
  type WriteResult,
} from "@chatstore/core";
import type {
  AgentInputItem,
  Session,
  SessionHistoryRewriteArgs,
  SessionHistoryRewriteAwareSession,
  SessionHistoryTransactionArgs,
  SessionHistoryTransactionAwareSession,
} from "@openai/agents-core";
import { toItems, toMessage } from "./items.js";
import { Operations, sameItems } from "./operations.js";

/** Attempts at a change that has to see what it changes, while others change it. */
const maxAttempts = 20;

/** Options of {@link openAIAgentsSession}. */
export interface OpenAIAgentsSessionOptions {
  /** Where the conversation is kept. One store for the whole process. */
  readonly store: ChatStore;
  /** Whose conversation it is: made by `sessionKey()`, the same at every request. */
  readonly key: string;
}

/** See {@link openAIAgentsSession}. */
export type OpenAIAgentsSession = Session &
  SessionHistoryRewriteAwareSession &
  SessionHistoryTransactionAwareSession &
  Required<Pick<Session, "replaceHistoryWithCompaction">>;

/**
 * A session of the OpenAI Agents SDK, kept in a store. Make one for each request: it holds nothing but the version that it
 * read, and costs nothing.
 *
 * - `addItems` is one atomic append, one round trip. Items come back to the last bit, `Uint8Array` included.
 * - A compaction replaces the history in one step, and only the history that this session has read: when another request
 *   has added to it meanwhile, it is a `VersionConflictError` and nothing is lost.
 * - A history transaction is applied once, in one step with the record that it was: approvals can be resumed after a kill.
 *   The newest 1,000 operations of a session are remembered.
 * - What other frameworks have stored in the conversation is read as items, by its canonical layer.
 *
 * Its methods throw what the store's do; `InvalidOptionsError` for an operation id that was used with another content, and
 * for a suffix that is not there; `UnsupportedFormatError` for items of another version of the SDK.
 *
 * @throws InvalidOptionsError when there is no store; InvalidSessionKeyError at the first use of a key that is none.
 * @example
 * const session = openAIAgentsSession({ store, key: sessionKey({ user: user.id, conversation: "support" }) });
 * const result = await run(agent, question, { session });
 */
export function openAIAgentsSession(options: OpenAIAgentsSessionOptions): OpenAIAgentsSession {
  const { store, key } = options ?? {};
  if (typeof store?.replaceMessagesAfter !== "function") {
    throw new InvalidOptionsError(
      "Which store? Give a Chatstore store: openAIAgentsSession({ store, key })",
    );
  }
  return new ChatstoreSession(store, key);
}

/** How a history was when it was read, or written by us and nobody else. */
type Seen = Pick<StoredSession, "messageCount"> & { readonly version: string | null };

class ChatstoreSession implements OpenAIAgentsSession {
  readonly #store: ChatStore;
  readonly #key: string;
  /** `undefined`: not read yet. `"stale"`: somebody else has changed it since. */
  #seen: Seen | "stale" | undefined;

  constructor(store: ChatStore, key: string) {
    this.#store = store;
    this.#key = key;
  }

  async getSessionId(): Promise<string> {
    return this.#key;
  }

  async getItems(limit?: number): Promise<AgentInputItem[]> {
    if (limit !== undefined && limit <= 0) return [];
    const range = limit === undefined ? {} : { last: Math.ceil(limit) };
    const { session, messages } = await this.#store.readSession(this.#key, range);
    this.#seen = { version: session?.version ?? null, messageCount: session?.messageCount ?? 0 };
    const items = toItems(messages).flat();
    return limit === undefined ? items : items.slice(-limit);
  }

  async addItems(items: AgentInputItem[]): Promise<void> {
    if (items.length === 0) return;
    const written = await this.#store.addMessages(this.#key, items.map(toMessage));
    this.#follow(written, items.length);
  }

  async popItem(): Promise<AgentInputItem | undefined> {
    return this.#change(2, async ({ session, messages, ifVersion }) => {
      const last = toItems(messages).at(-1);
      if (session === undefined || last === undefined) return undefined;
      const popped = last.pop();
      // Another framework's message may be several items: what is left of it stays.
      const after = messages.at(-2)?.id ?? null;
      const written = await (last.length === 0
        ? this.#store.deleteLastMessage(this.#key, { ifVersion })
        : this.#store.replaceMessagesAfter(this.#key, after, last.map(toMessage), { ifVersion }));
      this.#follow(written, last.length - 1);
      // Of what another framework has stored, not all is an item.
      return popped ?? this.popItem();
    });
  }

  async clearSession(): Promise<void> {
    await this.#store.deleteMessages(this.#key);
    this.#seen = { version: null, messageCount: 0 };
  }

  async replaceHistoryWithCompaction(items: AgentInputItem[]): Promise<void> {
    const seen = this.#seen;
    if (seen === "stale") {
      const current = await this.#store.getSession(this.#key);
      throw new VersionConflictError(this.#key, "that was read", current?.version ?? null);
    }
    const condition = seen === undefined ? {} : { ifVersion: seen.version };
    const written = await this.#store.setMessages(this.#key, items.map(toMessage), condition);
    this.#seen = { version: written.version, messageCount: written.messageCount };
  }

  async applyHistoryMutations({ mutations }: SessionHistoryRewriteArgs): Promise<void> {
    const replacements = new Map(
      mutations
        .filter(({ type }) => type === "replace_function_call")
        .map(({ callId, replacement }) => [callId, replacement]),
    );
    if (replacements.size === 0) return;
    await this.#change(undefined, async ({ messages, ifVersion }) => {
      const items = toItems(messages);
      const isCall = (item: AgentInputItem) =>
        item.type === "function_call" && replacements.has(item.callId);
      const first = items.findIndex((some) => some.some(isCall));
      if (first < 0) return;
      const done = new Set<string>();
      const replaced = messages.map((message, index) => {
        const some = items[index] as AgentInputItem[];
        if (!some.some(isCall)) return [message];
        return some.flatMap((item) => {
          const replacement = item.type === "function_call" && replacements.get(item.callId);
          if (!replacement) return [toMessage(item)];
          // A call that was stored more than once is one call.
          return done.size === done.add(replacement.callId).size ? [] : [toMessage(replacement)];
        });
      });
      const changed = items.flatMap((some, index) => (some.some(isCall) ? [index] : []));
      const [only] = changed.length === 1 ? (replaced[changed[0] as number] ?? []) : [];
      const written =
        only !== undefined && replaced[first]?.length === 1
          ? await this.#store.updateMessage(this.#key, messages[first]?.id ?? "", only, {
              ifVersion,
            })
          : await this.#store.setMessages(this.#key, replaced.flat(), { ifVersion });
      this.#seen = { version: written.version, messageCount: written.messageCount };
    });
  }

  async applyHistoryTransaction({
    operationId,
    transaction,
  }: SessionHistoryTransactionArgs): Promise<void> {
    const expected = transaction.type === "replace_suffix" ? transaction.expectedSuffix : [];
    const items =
      transaction.type === "replace_suffix" ? transaction.replacement : transaction.items;
    const operation = Operations.of(operationId, transaction);
    await this.#change(expected.length + 1, async ({ session, messages, ifVersion }) => {
      const state = Operations.added(session?.state, operation);
      if (state === "applied") return;
      const added = items.map(toMessage);
      const write = { ifVersion, state };
      if (transaction.type === "append_items") {
        this.#follow(await this.#store.addMessages(this.#key, added, write), added.length);
        return;
      }
      const found = toItems(messages);
      const suffix = messages.length - expected.length;
      if (suffix < 0 || !sameItems(found.slice(suffix).flat(), expected)) {
        throw new InvalidOptionsError(
          `Session ${this.#key} no longer ends with the ${expected.length} items that operation ${operationId} replaces: ` +
            "read it again, and decide again",
        );
      }
      const after = messages[suffix - 1]?.id ?? null;
      const written = await this.#store.replaceMessagesAfter(this.#key, after, added, write);
      this.#follow(written, added.length - expected.length);
    });
  }

  /**
   * Change what was read, and read again when somebody else was faster.
   *
   * @param last How much of the end to read; all by default.
   */
  async #change<T>(
    last: number | undefined,
    change: (
      found: Awaited<ReturnType<ChatStore["readSession"]>> & { readonly ifVersion: string | null },
    ) => Promise<T>,
  ): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      const found = await this.#store.readSession(this.#key, last === undefined ? {} : { last });
      try {
        return await change({ ...found, ifVersion: found.session?.version ?? null });
      } catch (error) {
        if (!(error instanceof VersionConflictError) || attempt === maxAttempts) throw error;
      }
    }
  }

  /** Take a write of ours into account: nobody else has written when the count is what it makes of the one that we saw. */
  #follow({ version, messageCount }: WriteResult, added: number): void {
    const seen = this.#seen;
    if (typeof seen !== "object") return;
    const isOurs = messageCount === seen.messageCount + added;
    this.#seen = isOurs ? { version, messageCount } : "stale";
  }
}
