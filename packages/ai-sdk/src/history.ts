/** A stored conversation as the AI SDK sees it, and what has to be written to make another one of it. */
import { InvalidMessageError, type NewMessage, type StoredMessage } from "@chatstore/core";
import type { UIMessage } from "ai";
import { checked, digestOf, fromStored, toStored, withResult } from "./messages.js";

/** A stored message that cannot be shown. It stays in the store. */
export interface SetAside {
  /** Of the stored message. */
  readonly id: string;
  /** Why, for people. */
  readonly reason: string;
  /** The validation's own error, if that refused it. */
  readonly cause?: unknown;
  /** What is stored. */
  readonly message: StoredMessage;
}

/** One message of the AI SDK and what is stored of it, or something stored that it does not see. */
export interface Entry {
  readonly message?: UIMessage;
  readonly digest?: string;
  /** Several where another framework stores calls and answers apart. */
  readonly stored: readonly (NewMessage & { readonly id?: string | undefined })[];
}

/** Refuses messages that an application's tools and schemas no longer know, by throwing. */
export type Validate = (messages: UIMessage[]) => UIMessage[] | PromiseLike<UIMessage[]>;

/** @throws UnsupportedFormatError for messages of a newer format. */
export async function readHistory(
  stored: readonly StoredMessage[],
  validate: Validate | undefined,
): Promise<{ entries: Entry[]; setAside: SetAside[] }> {
  const entries: { message?: UIMessage; stored: StoredMessage[] }[] = [];
  const setAside: SetAside[] = [];
  const refuse = (message: StoredMessage, reason: string, cause?: unknown) => {
    setAside.push({ id: message.id, reason, ...(cause !== undefined && { cause }), message });
  };
  for (const one of stored) {
    const found = fromStored(one);
    if (typeof found === "string") refuse(one, found);
    if (!Array.isArray(found)) {
      entries.push({ ...(typeof found === "object" && { message: found }), stored: [one] });
      continue;
    }
    // Answers of tools, which the AI SDK has in the message of their calls.
    const rest = found.filter((result) => {
      const entry = entries.findLast(({ message }) => message && withResult(message, result));
      if (entry?.message === undefined) return true;
      entry.message = withResult(entry.message, result) as UIMessage;
      return false;
    });
    const last = entries.at(-1);
    if (rest.length > 0) refuse(one, `the call ${rest[0]?.id} that it answers is not there`);
    if (rest.length === 0 && last) last.stored.push(one);
    else entries.push({ stored: [one] });
  }
  const valid = await validated(entries, validate, refuse);
  return {
    entries: valid.map((entry) =>
      entry.message ? { ...entry, digest: digestOf(entry.message) } : entry,
    ),
    setAside,
  };
}

type Read = { message?: UIMessage; stored: StoredMessage[] };

async function validated(
  entries: Read[],
  validate: Validate | undefined,
  refuse: (message: StoredMessage, reason: string, cause: unknown) => void,
): Promise<Read[]> {
  if (validate === undefined) return entries;
  const valid: Read[] = [];
  for (const entry of entries) {
    const { message, stored } = entry;
    if (message === undefined) {
      valid.push(entry);
      continue;
    }
    try {
      // The validation may change what it is given, and what is stored must stay comparable.
      const [kept = message] = await Promise.resolve(validate([structuredClone(message)]));
      valid.push({ message: kept, stored });
    } catch (error) {
      for (const one of stored) refuse(one, messageOf(error), error);
      valid.push({ stored });
    }
  }
  return valid;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** What makes one conversation of another. */
export interface Difference {
  /** The whole conversation afterwards. */
  readonly entries: readonly Entry[];
  /** The last stored message that stays; `undefined`: none that was read. */
  readonly after: string | undefined;
  /** How many entries go. */
  readonly removed: number;
  readonly added: readonly NewMessage[];
}

/**
 * Equal messages stay, from the first that differs on all is replaced. What cannot be shown stays behind the message that it
 * follows, as long as that stays.
 *
 * @param messages `undefined`: they stay as they are.
 * @throws InvalidMessageError for what is no message, or repeats an id.
 */
export function difference(
  entries: readonly Entry[],
  messages: readonly UIMessage[] | undefined,
): Difference {
  if (messages === undefined) return { entries, after: undefined, removed: 0, added: [] };
  const known = new Map(
    entries.flatMap((one) => (one.message ? [[one.message.id, one]] : [])) as [string, Entry][],
  );
  const hidden = new Map<string | undefined, Entry[]>();
  let last: string | undefined;
  for (const entry of entries) {
    if (entry.message) last = entry.message.id;
    else hidden.set(last, [...(hidden.get(last) ?? []), entry]);
  }
  const now = new Date();
  const next: Entry[] = [...(hidden.get(undefined) ?? [])];
  for (const message of checked(messages)) {
    const old = known.get(message.id);
    const digest = digestOf(message);
    if (old?.digest === digest) next.push(old);
    else
      next.push({ message, digest, stored: [toStored(message, old?.stored[0]?.createdAt ?? now)] });
    next.push(...(hidden.get(message.id) ?? []));
  }
  const differs = next.findIndex((entry, index) => entry !== entries[index]);
  const equal = differs < 0 ? next.length : differs;
  return {
    entries: next,
    after: entries[equal - 1]?.stored.at(-1)?.id,
    removed: entries.length - equal,
    added: next.slice(equal).flatMap(({ stored }) => stored),
  };
}

/** Whether two readings show the same. */
export function sameEntries(some: readonly Entry[], others: readonly Entry[]): boolean {
  const idsOf = ({ stored, digest }: Entry) => JSON.stringify([digest, stored.map(({ id }) => id)]);
  return (
    some.length === others.length &&
    some.every((entry, index) => idsOf(entry) === idsOf(others[index] as Entry))
  );
}

export function messagesOf(entries: readonly Entry[]): UIMessage[] {
  return entries.flatMap(({ message }) => message ?? []);
}

/** A message as the application's tools and schemas accept it. @throws InvalidMessageError otherwise. */
export async function accepted(message: UIMessage, validate: Validate | undefined): Promise<void> {
  if (validate === undefined) return;
  try {
    await Promise.resolve(validate([structuredClone(message)]));
  } catch (error) {
    throw new InvalidMessageError(`message ${message.id}: ${messageOf(error)}`);
  }
}
