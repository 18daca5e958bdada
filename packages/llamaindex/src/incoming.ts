/** What is given to a memory, as the message that it keeps. */
import { isDeepStrictEqual, types } from "node:util";
import { InvalidMessageError, type NewMessage } from "@chatstore/core";
import { filledIn, partsOf } from "@chatstore/core/bridge";
import type { UpstreamAdapter, UpstreamMemory } from "./upstream.js";

export type CompleteMessage = NewMessage & { id: string };

/** A message, and whether what memory held under its id already is the same. */
export interface Incoming {
  readonly message: CompleteMessage;
  /** Whether some of its annotations are kept in a plain form, since they were objects of classes. */
  readonly simplified: boolean;
  isSame(held: NewMessage): boolean;
}

/**
 * Any format that memory takes, as a message; `undefined` for none.
 *
 * @throws InvalidMessageError for what can be no message of this memory.
 */
export function incoming(
  adapters: UpstreamMemory["adapters"],
  input: unknown,
): Incoming | undefined {
  const adapter = Object.values(adapters).find((one) => one.isCompatible(input));
  if (adapter === undefined) {
    if (isOfNewSdk(input)) {
      throw new InvalidMessageError(
        "this is a UI message of Vercel's AI SDK 5 or later (parts, no content), and LlamaIndex takes those of 4: add { id, role, content } with the text of its parts, or keep the conversation with the store itself, which takes any message",
      );
    }
    return undefined;
  }
  const converted = adapter.toMemory(input);
  const translated = translate(converted);
  const [first = converted] = translated;
  if (translated.length !== 1 || first === undefined) {
    throw new InvalidMessageError(
      `LlamaIndex's memory has no place for a message of role ${JSON.stringify(converted.role)} with this content: its roles are user, assistant, system, memory and developer, its content is a text or an array of parts`,
    );
  }
  const annotations = plain(first.annotations) as unknown[] | undefined;
  const simplified = annotations !== first.annotations;
  const message = complete(simplified ? { ...first, annotations } : first);
  const given = input as Partial<NewMessage>;
  // What an adapter of the caller's makes, it may make the same each time.
  const isOurs = adapter === adapters["llamaindex"] || adapter === adapters["vercel"];
  filledIn.set(message, {
    id: (isOurs ? given : converted).id === undefined,
    createdAt: (isOurs ? given : converted).createdAt === undefined,
  });
  return {
    message,
    simplified,
    isSame: (held) =>
      sameContent(held, message) ||
      (adapter !== adapters["llamaindex"] && sameForm(adapter, held, input)),
  };
}

/** As many messages of LlamaIndex as a stored one amounts to, the last of them with its id; none when it can show nothing. */
export function translate<Message extends NewMessage>(message: Message): Message[] {
  const parts = partsOf(message);
  return parts.map((part, index) => {
    if (part === (message as object)) return message;
    const own = { ...part } as object as Message;
    if (index < parts.length - 1) partial.add(own);
    return own;
  });
}

const partial = new WeakSet<NewMessage>();

/** Whether the stored message goes on behind this one. */
export function isPart(message: NewMessage): boolean {
  return partial.has(message);
}

/** UI messages have been without `content` since 5. */
function isOfNewSdk(input: unknown): boolean {
  const { parts, content } = (input ?? {}) as { parts?: unknown; content?: unknown };
  return Array.isArray(parts) && content === undefined;
}

/** A message as memory keeps it, now and after a restart: with an id and a time, a real one even when it came as JSON. */
function complete(message: NewMessage): CompleteMessage {
  const { id = crypto.randomUUID(), createdAt = new Date() } = message;
  const time = typeof createdAt === "string" ? new Date(createdAt) : createdAt;
  return { ...message, id, createdAt: time };
}

function sameContent(a: NewMessage, b: NewMessage): boolean {
  const fields = ["role", "content", "options", "annotations"] as const;
  return fields.every((field) => isDeepStrictEqual(asJson(a[field]), asJson(b[field])));
}

/** Whether a client sends what it was given: a format may be able to say less than memory holds. */
function sameForm(adapter: UpstreamAdapter, held: NewMessage, input: unknown): boolean {
  const { createdAt: _, ...form } = adapter.fromMemory(held) as { createdAt?: unknown };
  const given = Object.entries(form).map(([name]) => [name, (input as never)[name]]);
  return isDeepStrictEqual(asJson(form), asJson(Object.fromEntries(given)));
}

/** As JSON carries it to a browser and back; as it is where JSON cannot. */
function asJson(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  try {
    return JSON.parse(JSON.stringify(value)) as unknown;
  } catch {
    return value;
  }
}

/**
 * A value whose objects of classes are plain ones, such as the `NodeWithScore` of a retriever; itself when it has none. What
 * has no plain form, functions and what contains itself, is left out.
 */
function plain(value: unknown, inside: readonly object[] = []): unknown {
  if (typeof value === "function" || typeof value === "symbol") return undefined;
  if (typeof value !== "object" || value === null || isOwnForm(value)) return value;
  if (inside.includes(value) || inside.length > maxDepth) return undefined;
  const within = [...inside, value];
  if (Array.isArray(value)) {
    // No holes: what is left out would be one.
    const items = value.map((item) => plain(item, within) ?? (item === undefined ? item : null));
    return items.every((item, index) => item === value[index]) ? value : items;
  }
  const prototype: unknown = Object.getPrototypeOf(value);
  const isPlain = prototype === null || Object.getPrototypeOf(prototype) === null;
  const { toJSON } = value as { toJSON?: unknown };
  if (typeof toJSON === "function") return plain(toJSON.call(value), within);
  const entries = Object.entries(value);
  const members = entries.map(([name, member]) => [name, plain(member, within)] as const);
  if (isPlain && members.every(([, member], index) => member === entries[index]?.[1])) return value;
  return Object.fromEntries(members.filter(([, member]) => member !== undefined));
}

const maxDepth = 100;

/** What the store keeps exactly as it is. */
function isOwnForm(value: object): boolean {
  return (
    types.isDate(value) || types.isUint8Array(value) || types.isMap(value) || types.isSet(value)
  );
}
