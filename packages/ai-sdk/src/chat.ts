import { randomUUID } from "node:crypto";
import {
  type ChatStore,
  DuplicateMessageError,
  InvalidOptionsError,
  LimitExceededError,
  type NewMessage,
  VersionConflictError,
  type WriteResult,
} from "@chatstore/core";
import { warn, warnOnce } from "@chatstore/core/bridge";
import type { UIMessage } from "ai";
import {
  accepted,
  difference,
  type Entry,
  messagesOf,
  readHistory,
  type SetAside,
  sameEntries,
} from "./history.js";
import { applyRequest, type ChatRequest } from "./request.js";

/** The entry of a session's state. */
const entry = "aiSdk";
/** Attempts at a write while others write. */
const maxAttempts = 10;
const titleLength = 60;

/** Options of {@link aiSdkChat}. */
export interface AiSdkChatOptions<Message extends UIMessage = UIMessage> {
  /** Where the conversation is kept. One store for the whole process. */
  readonly store: ChatStore;
  /** Whose conversation it is: `sessionKey({ user: user.id, conversation: id })`, with the `id` of `useChat`. */
  readonly key: string;
  /**
   * Throws for a message that the application cannot use any more, for example
   * `(messages) => validateUIMessages({ messages, tools, metadataSchema })`. It is called with one message at a time; what it
   * refuses is set aside when it was stored, and refused when a client sends it. Default: messages are checked for their form.
   */
  readonly validate?: ((messages: Message[]) => Message[] | PromiseLike<Message[]>) | undefined;
  /** The title of a conversation that has none, from what is said in it. `false`: none. Default: how the first question begins. */
  readonly title?: false | ((messages: readonly Message[]) => string | undefined) | undefined;
  /** Makes the ids of answers. Default: random UUIDs. */
  readonly generateId?: (() => string) | undefined;
  /** Hears of messages that are set aside. Default: a process warning. */
  readonly onWarning?: ((warning: string) => void) | undefined;
}

/** A conversation as it was read. */
export interface LoadedChat<Message extends UIMessage = UIMessage> {
  /** Oldest first. */
  readonly messages: Message[];
  /** What is stored and could not be read, which stays stored. Empty, as a rule. */
  readonly setAside: readonly SetAside[];
  /** `null`: there is no such conversation yet. */
  readonly version: string | null;
  /** How many messages are stored in all. */
  readonly messageCount: number;
  readonly title?: string;
  /** The stream that is under way, or was when its process died. */
  readonly activeStreamId?: string;
}

/**
 * What a stream of UI messages has to be given, for `result.toUIMessageStreamResponse()`, `createUIMessageStream()` and
 * `createAgentUIStreamResponse()` of all supported versions: each takes what it knows.
 */
export interface StreamOptions<Message extends UIMessage = UIMessage> {
  readonly originalMessages: Message[];
  readonly generateMessageId: () => string;
  /** As `createUIMessageStream()` names it. */
  readonly generateId: () => string;
  /** Saves the conversation with the answer, whole or stopped, and clears the active stream. The stream waits for it. */
  readonly onEnd: (event: StreamEvent<Message>) => Promise<void>;
  /** `onEnd` as version 6 names it. */
  readonly onFinish: (event: StreamEvent<Message>) => Promise<void>;
  /** Saves what there is of the answer, so that a crash does not cost the steps before. */
  readonly onStepEnd: (event: object) => Promise<void>;
  /** `onStepEnd` as version 6 names it. */
  readonly onStepFinish: (event: object) => Promise<void>;
  /** `onStepEnd` as `createAgentUIStreamResponse()` names it. */
  readonly onUIMessageStepEnd: (event: StreamEvent<Message>) => Promise<void>;
  /** Reads the stream to its end also when the client has gone, so that the answer is saved. */
  readonly consumeSseStream: (options: { stream: ReadableStream<string> }) => Promise<void>;
}

interface StreamEvent<Message> {
  readonly messages: Message[];
  readonly responseMessage: Message;
}

/** See {@link aiSdkChat}. */
export interface AiSdkChat<Message extends UIMessage = UIMessage> {
  /**
   * Read the conversation: one round trip. Messages come back as they were given; those of version 4, and what other frameworks
   * have stored, as messages of today.
   *
   * @param options `last`: only the newest n messages, at the cost of n.
   * @throws UnsupportedFormatError for messages of a newer format; and as the store's `readSession` does.
   */
  load(options?: { readonly last?: number | undefined }): Promise<LoadedChat<Message>>;

  /**
   * What a `useChat` client sends, applied to what is stored: a question, an edited one, an answer to be made anew, the approval
   * or the result of a tool call. Afterwards the store holds what the tab shows, question included: one round trip to read, one
   * to write. Of stored messages the stored form counts, whatever the client says of them.
   *
   * @param options `last`: read only the newest n messages (all, if the request goes further back). `streamId`: becomes the
   *   active stream in the same step.
   * @throws VersionConflictError when the tab has not seen what another one wrote: nothing was written, let it load again.
   *   InvalidMessageError, InvalidOptionsError for a request that no client sends. And as {@link save} does.
   */
  receive(
    request: ChatRequest,
    options?: { readonly last?: number | undefined; readonly streamId?: string | undefined },
  ): Promise<LoadedChat<Message>>;

  /**
   * Make these the conversation: what is equal stays, what changed is updated, what is new is added, what is gone is removed, in
   * one atomic step and one round trip; none when nothing changed. After `load` or `receive` of this object, and only over what
   * those have seen.
   *
   * @param messages All of them; after `load({ last })` at least from the first of those that it gave.
   * @param options `title`: of the conversation; `null` removes it. Default: it stays, or is made by the `title` option.
   * @throws VersionConflictError when somebody else has changed the messages since: nothing was written. InvalidOptionsError
   *   when nothing was loaded, and for no messages at all; InvalidMessageError for a message without an id or parts;
   *   LimitExceededError for files that are too large.
   */
  save(
    messages: readonly Message[],
    options?: { readonly title?: string | null | undefined },
  ): Promise<void>;

  /** What to give to the stream of an answer. @param messages What `receive` gave, and the model answers. */
  streamOptions(messages: readonly Message[]): StreamOptions<Message>;

  /** Note the stream that is under way, so that a reloaded page can resume it. The end of the answer clears it. */
  startStream(streamId: string): Promise<void>;

  /**
   * Clear the active stream, if it still is this one: compare and set.
   *
   * @returns Whether it was.
   */
  endStream(streamId: string): Promise<boolean>;
}

/**
 * A conversation of the AI SDK, kept in a store. Make one for each request: it holds nothing but what it read.
 *
 * @throws InvalidOptionsError when there is no store; InvalidSessionKeyError at the first use of a key that is none.
 * @example
 * const chat = aiSdkChat({ store, key: sessionKey({ user: user.id, conversation: body.id }) });
 * const { messages } = await chat.receive(body);
 * const result = streamText({ model, messages: await convertToModelMessages(messages) });
 * return result.toUIMessageStreamResponse(chat.streamOptions(messages));
 */
export function aiSdkChat<Message extends UIMessage = UIMessage>(
  options: AiSdkChatOptions<Message>,
): AiSdkChat<Message> {
  if (typeof options?.store?.replaceMessagesAfter !== "function") {
    throw new InvalidOptionsError("Which store? Give a Chatstore store: aiSdkChat({ store, key })");
  }
  return new Chat(options as never) as unknown as AiSdkChat<Message>;
}

/** What was read, or written by us, and what it was read with. */
interface Seen {
  readonly version: string | null;
  readonly messageCount: number;
  readonly title: string | undefined;
  readonly activeStreamId: string | undefined;
  readonly entries: readonly Entry[];
  readonly setAside: readonly SetAside[];
  /** The message before the first entry, when only the end was read. */
  readonly before: string | undefined;
  readonly last: number | undefined;
}

interface Change {
  readonly messages?: readonly UIMessage[];
  readonly title?: string | null | undefined;
  readonly startStream?: string | undefined;
  readonly endStream?: string | undefined;
}

class Chat implements AiSdkChat {
  readonly #options: AiSdkChatOptions;
  #seen: Seen | undefined;
  /** Set by this object. */
  #streamId: string | undefined;
  /** One write after the other: each needs the version of the one before. */
  #queue: Promise<unknown> = Promise.resolve();

  constructor(options: AiSdkChatOptions) {
    this.#options = options;
  }

  async load({ last }: { readonly last?: number | undefined } = {}): Promise<LoadedChat> {
    this.#seen = await this.#read(last);
    return toLoaded(this.#seen);
  }

  receive(
    request: ChatRequest,
    {
      last,
      streamId,
    }: { readonly last?: number | undefined; readonly streamId?: string | undefined } = {},
  ): Promise<LoadedChat> {
    return this.#next(async () => {
      let range = last;
      for (let attempt = 1; ; attempt++) {
        this.#seen = await this.#read(range);
        const known = messagesOf(this.#seen.entries);
        const messages = applyRequest(known, request);
        if (messages === undefined && range !== undefined) {
          range = undefined; // it may go back further than was read
          continue;
        }
        if (messages === undefined) {
          const { version } = this.#seen;
          throw new VersionConflictError(this.#options.key, "that the tab shows", version);
        }
        for (const message of messages) {
          if (!known.includes(message)) await accepted(message, this.#options.validate);
        }
        try {
          await this.#write(this.#seen, { messages, startStream: streamId });
          return { ...toLoaded(this.#seen), messages };
        } catch (error) {
          // The request decides again over what the other one wrote.
          if (!isOvertaken(error) || attempt === maxAttempts) throw error;
        }
      }
    });
  }

  save(
    messages: readonly UIMessage[],
    { title }: { readonly title?: string | null | undefined } = {},
  ): Promise<void> {
    return this.#next(() => this.#save({ messages, title }));
  }

  streamOptions(messages: readonly UIMessage[]): StreamOptions {
    const generateId = this.#options.generateId ?? randomUUID;
    const step = async (event: object) => {
      // createAgentUIStreamResponse() calls a callback of this name with the model's step, and another one with the message.
      if ("responseMessage" in event) await this.save(saved(event as StreamEvent<UIMessage>));
    };
    const end = (event: StreamEvent<UIMessage>) => this.#end(event);
    return {
      originalMessages: [...messages],
      generateMessageId: generateId,
      generateId,
      onEnd: end,
      onFinish: end,
      onStepEnd: step,
      onStepFinish: step,
      onUIMessageStepEnd: step,
      consumeSseStream: drain,
    };
  }

  startStream(streamId: string): Promise<void> {
    return this.#next(async () => {
      const seen = this.#seen;
      this.#streamId = streamId;
      try {
        if (seen !== undefined) return await this.#save({ startStream: streamId });
      } catch (error) {
        if (!(error instanceof VersionConflictError)) throw error;
        // Whoever streams does so whatever others write; the end of the answer will say that they did.
      }
      await this.#store.setState(this.#options.key, activeStream(streamId));
    });
  }

  endStream(streamId: string): Promise<boolean> {
    return this.#next(async () => {
      for (let attempt = 1; ; attempt++) {
        const session = await this.#store.getSession(this.#options.key);
        if (session === undefined || streamOf(session.state) !== streamId) return false;
        try {
          const { version } = session;
          const written = await this.#store.setState(this.#options.key, activeStream(null), {
            ifVersion: version,
          });
          if (this.#seen?.version === version) {
            this.#seen = { ...this.#seen, version: written.version, activeStreamId: undefined };
          }
          return true;
        } catch (error) {
          if (!(error instanceof VersionConflictError) || attempt === maxAttempts) throw error;
        }
      }
    });
  }

  async #end(event: StreamEvent<UIMessage>): Promise<void> {
    if (typeof event?.responseMessage !== "object") {
      throw new InvalidOptionsError(
        "streamOptions() are for toUIMessageStreamResponse() or createUIMessageStream(), not for streamText()",
      );
    }
    const streamId = this.#streamId;
    try {
      await this.#next(() => this.#save({ messages: saved(event), endStream: streamId }));
    } catch (error) {
      if (streamId !== undefined) await this.endStream(streamId);
      throw error;
    }
  }

  get #store(): ChatStore {
    return this.#options.store;
  }

  #next<T>(write: () => Promise<T>): Promise<T> {
    const done = this.#queue.then(write);
    this.#queue = done.catch(() => undefined);
    return done;
  }

  async #read(last: number | undefined): Promise<Seen> {
    const { store, key, validate } = this.#options;
    // One more: what the first one follows.
    const range = last === undefined ? {} : { last: last + 1 };
    const { session, messages } = await store.readSession(key, range);
    const first = last !== undefined && messages.length > last ? messages.shift() : undefined;
    const { entries, setAside } = await readHistory(messages, validate as never);
    this.#report(setAside);
    return {
      version: session?.version ?? null,
      messageCount: session?.messageCount ?? 0,
      title: session?.title,
      activeStreamId: streamOf(session?.state),
      entries,
      setAside,
      before: first?.id,
      last,
    };
  }

  #report(setAside: readonly SetAside[]): void {
    const { store, key, onWarning = warn } = this.#options;
    for (const { id, reason } of setAside) {
      const warning = `Message ${id} of session ${key} was set aside, it stays stored: ${reason}`;
      warnOnce(store, warning, onWarning);
    }
  }

  /** Write over what was seen, also when others have changed title or state since, but not the messages. */
  async #save(change: Change): Promise<void> {
    if (this.#seen === undefined) {
      throw new InvalidOptionsError(
        "save() replaces what was seen, and nothing was: call load() or receive() of this object first",
      );
    }
    if (change.messages?.length === 0 && this.#seen.entries.length > 0) {
      throw new InvalidOptionsError(
        "No messages: to erase a conversation call the store's deleteMessages()",
      );
    }
    for (let attempt = 1; ; attempt++) {
      const seen = this.#seen;
      try {
        return await this.#write(seen, change);
      } catch (error) {
        if (!isOvertaken(error) || attempt === maxAttempts) throw error;
        const now = await this.#read(seen.last);
        if (!sameEntries(now.entries, seen.entries)) {
          throw new VersionConflictError(this.#options.key, seen.version, now.version);
        }
        if (now.version === seen.version) throw error;
        this.#seen = now;
      }
    }
  }

  async #write(seen: Seen, { messages, title, startStream, endStream }: Change): Promise<void> {
    const { key } = this.#options;
    const { entries, after, removed, added } = difference(
      seen.entries,
      messages && shownOf(messages, seen),
    );
    const newTitle =
      title === undefined && messages ? this.#titleOf(seen, messagesOf(entries)) : title;
    const isEnded = endStream !== undefined && endStream === seen.activeStreamId;
    const state = startStream === undefined ? (isEnded ? null : undefined) : startStream;
    const options = {
      ifVersion: seen.version,
      ...(newTitle !== undefined && { title: newTitle }),
      ...(state !== undefined && { state: activeStream(state) }),
    };
    const changes = removed > 0 || added.length > 0 || state !== undefined || title !== undefined;
    let written: WriteResult = seen;
    if (changes) {
      // A new conversation may be longer than a batch.
      const appends = removed === 0 && seen.version !== null;
      written = await explained(added, () =>
        appends
          ? this.#store.addMessages(key, added, options)
          : this.#store.replaceMessagesAfter(key, after ?? seen.before ?? null, added, options),
      );
    }
    this.#seen = {
      ...seen,
      ...written,
      entries,
      ...(changes && newTitle !== undefined && { title: newTitle ?? undefined }),
      ...(state !== undefined && { activeStreamId: state ?? undefined }),
    };
    if (startStream !== undefined) this.#streamId = startStream;
  }

  #titleOf({ title }: Seen, messages: readonly UIMessage[]): string | undefined {
    const make = this.#options.title ?? firstQuestion;
    return title === undefined && make !== false ? make(messages) : undefined;
  }
}

/** Whether somebody else was faster. An id that they have stored may be noticed before the version. */
function isOvertaken(error: unknown): boolean {
  return error instanceof VersionConflictError || error instanceof DuplicateMessageError;
}

/** Where only the end was read, older messages do not matter. */
function shownOf(messages: readonly UIMessage[], { before, entries }: Seen): readonly UIMessage[] {
  if (before === undefined) return messages;
  const first = entries.find(({ message }) => message)?.message?.id;
  return messages.slice(
    Math.max(
      0,
      messages.findIndex(({ id }) => id === first),
    ),
  );
}

/** What is worth to be kept of an answer: one that failed at once has nothing in it, and no reader takes such a message. */
function saved({ messages, responseMessage }: StreamEvent<UIMessage>): UIMessage[] {
  const isEmpty = responseMessage.parts.every(({ type }) => type === "step-start");
  return isEmpty ? messages.filter((message) => message !== messages.at(-1)) : messages;
}

/** An error over a message that is too large names the message, and what to do about it. */
async function explained<T>(messages: readonly NewMessage[], write: () => Promise<T>): Promise<T> {
  try {
    return await write();
  } catch (error) {
    if (!(error instanceof LimitExceededError) || error.limit !== "messageBytes") throw error;
    const sizes = messages.map(({ native }) => JSON.stringify(native).length);
    const { id } = messages[sizes.indexOf(Math.max(...sizes))] as NewMessage;
    throw new LimitExceededError(
      error.limit,
      error.maximum,
      error.actual,
      `upload the files of message ${id}, and let its file parts have their URLs instead of data URLs`,
    );
  }
}

function firstQuestion(messages: readonly UIMessage[]): string | undefined {
  const question = messages.find(({ role }) => role === "user");
  const texts = question?.parts.map((part) => (part.type === "text" ? part.text : "")) ?? [];
  const characters = [...texts.join(" ").trim().replace(/\s+/g, " ")];
  if (characters.length === 0) return undefined;
  const isWhole = characters.length <= titleLength;
  return isWhole ? characters.join("") : `${characters.slice(0, titleLength - 1).join("")}…`;
}

function activeStream(id: string | null): Record<string, unknown> {
  return { [entry]: id === null ? null : { activeStreamId: id } };
}

function streamOf(state: Readonly<Record<string, unknown>> | undefined): string | undefined {
  return (state?.[entry] as { readonly activeStreamId?: string } | undefined)?.activeStreamId;
}

function toLoaded({
  entries,
  setAside,
  version,
  messageCount,
  title,
  activeStreamId,
}: Seen): LoadedChat {
  return {
    messages: messagesOf(entries),
    setAside,
    version,
    messageCount,
    ...(title !== undefined && { title }),
    ...(activeStreamId !== undefined && { activeStreamId }),
  };
}

async function drain({ stream }: { readonly stream: ReadableStream<string> }): Promise<void> {
  const reader = stream.getReader();
  try {
    while (!(await reader.read()).done);
  } catch {
    // The response has the same error.
  }
}
