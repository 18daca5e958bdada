import { checkInteger, encodeTitle, readOptions, refuseMore } from "./arguments.js";
import type { Key, MessageRecord, Patch } from "./backend.js";
import { encodeMessage, encodeState } from "./codec.js";
import {
  DuplicateMessageError,
  InvalidMessageError,
  InvalidOptionsError,
  LimitExceededError,
} from "./errors.js";
import { show } from "./show.js";
import type { Limits, MessageWriteOptions } from "./store-types.js";
import { fromPortable } from "./text.js";

const defaultLimits: Limits = {
  messageBytes: 8 * 1024 * 1024,
  batchMessages: 1_000,
  batchBytes: 12 * 1024 * 1024,
  stateBytes: 256 * 1024,
};

const maxTitleBytes = 1_024;

/** Makes what a backend stores of what a caller gives, within a store's limits. All that is refused is refused here. */
export class RecordEncoder {
  readonly #limits: Limits;

  constructor(limits: Partial<Limits> | undefined) {
    this.#limits = checkLimits(limits);
  }

  /** A batch: no more than the limits allow, no id twice. */
  batch(target: Key, messages: readonly unknown[]): MessageRecord[] {
    const { batchMessages, batchBytes } = this.#limits;
    return this.all(target, messages, batchMessages, batchBytes);
  }

  /** Any number of messages, none with the id of another. */
  all(
    target: Key,
    messages: readonly unknown[],
    most = Number.POSITIVE_INFINITY,
    mostBytes = Number.POSITIVE_INFINITY,
  ): MessageRecord[] {
    const length = lengthOf(messages);
    refuseMore("batchMessages", most, length, "append in several calls");
    const records: MessageRecord[] = [];
    let bytes = 0;
    for (let index = 0; index < length; index++) {
      const record = encodeMessage(
        messages[index],
        `messages[${index}]`,
        this.#limits.messageBytes,
      );
      bytes += record.data.length;
      refuseMore("batchBytes", mostBytes, bytes, "append in several calls");
      records.push(record);
    }
    if (mostBytes < Number.POSITIVE_INFINITY) {
      const exact = records.reduce((sum, { data }) => sum + Buffer.byteLength(data), 0);
      refuseMore("batchBytes", mostBytes, exact, "append in several calls");
    }
    refuseRepeatedIds(target, records);
    return records;
  }

  patch({ title, state }: MessageWriteOptions): Patch | undefined {
    if (title === undefined && state === undefined) return undefined;
    return {
      ...(title !== undefined && { title: this.title(title) }),
      ...(state !== undefined && { state: this.state(state) }),
    };
  }

  state(entries: Readonly<Record<string, unknown>>): Record<string, string | null> {
    const { stateBytes } = this.#limits;
    const tooMuch = (size: number) =>
      new LimitExceededError("stateBytes", stateBytes, size, "keep large documents elsewhere");
    let bytes = 0;
    const encoded = entriesOf(entries).map(([name, value]): [string, string | null] => {
      if (!/^[A-Za-z][A-Za-z0-9_-]{0,63}$/.test(name)) {
        throw new InvalidOptionsError(
          `The state entry ${show(name)} has no valid name: use letters, digits, _ and -, at most 64, beginning with a letter`,
        );
      }
      if (value === null) return [name, null];
      const data = encodeState(value, name, stateBytes, tooMuch);
      bytes += Buffer.byteLength(data);
      if (bytes > stateBytes) throw tooMuch(bytes);
      return [name, data];
    });
    return Object.fromEntries(encoded);
  }

  title(title: string | null): string | null {
    return encodeTitle(title, maxTitleBytes);
  }
}

function refuseRepeatedIds(target: Key, records: readonly MessageRecord[]): void {
  if (records.length === 1) return;
  const seen = new Set<string>();
  const repeated = records.map(({ id }) => id).filter((id) => seen.size === seen.add(id).size);
  if (repeated.length > 0) {
    throw new DuplicateMessageError(target.id, repeated.map(fromPortable), "the batch");
  }
}

function lengthOf(messages: unknown): number {
  try {
    if (Array.isArray(messages)) return messages.length;
  } catch {
    // A revoked proxy.
  }
  throw new InvalidMessageError(`messages is ${show(messages)}; it must be an array of messages`);
}

function entriesOf(state: unknown): [string, unknown][] {
  try {
    if (typeof state === "object" && state !== null && !Array.isArray(state)) {
      return Object.entries(state);
    }
  } catch (cause) {
    throw new InvalidOptionsError("state cannot be read", { cause });
  }
  throw new InvalidOptionsError(`state is ${show(state)}; it must be an object of named entries`);
}

function checkLimits(limits: Partial<Limits> | undefined): Limits {
  const names = Object.keys(defaultLimits) as (keyof Limits)[];
  const given = readOptions<Partial<Limits>>("limits", limits, names);
  const checked: { -readonly [Name in keyof Limits]: number } = { ...defaultLimits };
  for (const name of names) {
    checked[name] =
      checkInteger(`limits.${name}`, given[name], 1, defaultLimits[name]) ?? defaultLimits[name];
  }
  return checked;
}
