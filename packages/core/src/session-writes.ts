/** How a write of one session is carried out over several attempts, so that it happens once and is reported as it was. */
import {
  type ChatStoreBackend,
  type Edit,
  type Key,
  type MessageRecord,
  type Outcome,
  type Patch,
  type Range,
  unchanged,
  type Version,
  type Write,
} from "./backend.js";
import { randomUUID } from "./crypto.js";
import {
  BackendError,
  DuplicateMessageError,
  MessageNotFoundError,
  VersionConflictError,
} from "./errors.js";
import { type Attempt, pause } from "./runner.js";
import { load } from "./session-reads.js";
import type { WriteResult } from "./store-types.js";
import { fromPortable } from "./text.js";

/** Runs attempts on sessions, in the order of the calls. */
export type RunOn = <T>(targets: readonly Key[], attempt: Attempt<T>) => Promise<T>;

export class SessionWrites {
  readonly #backend: ChatStoreBackend;
  readonly #ttl: number | undefined;
  readonly #runOn: RunOn;

  constructor(backend: ChatStoreBackend, ttl: number | undefined, runOn: RunOn) {
    this.#backend = backend;
    this.#ttl = ttl;
    this.#runOn = runOn;
  }

  /** Append records and apply a patch. */
  append(
    target: Key,
    records: readonly MessageRecord[],
    patch: Patch | undefined,
    ifVersion: Version | null | undefined,
  ): Promise<WriteResult> {
    const write = this.begin(ifVersion);
    if (records.length === 0 && patch === undefined) {
      return this.run(target, write, async (signal) => {
        const found = await this.#backend.read(target, { from: "end", limit: 0 }, signal);
        return unchanged(typeof found === "object" ? found.session : undefined);
      });
    }
    return this.run(target, write, async (signal, attempt, unknown) => {
      // After a first attempt an id may be stored that was fresh before.
      const batch = attempt === 1 ? records : records.map(({ fresh, ...record }) => record);
      const outcome = await this.#backend.append(target, batch, patch, write, signal);
      return unknown ? afterUnknown(outcome, target, write) : outcome;
    });
  }

  /** Replace all messages. */
  replaceAll(
    target: Key,
    records: readonly MessageRecord[],
    patch: Patch | undefined,
    ifVersion: Version | null | undefined,
  ): Promise<WriteResult> {
    return this.compareAndSet(target, ifVersion, undefined, (_, write, signal) =>
      this.#backend.replace(target, records, patch, write, signal),
    );
  }

  /** Edit what `range` reads; nothing is read without one. */
  edit(
    target: Key,
    ifVersion: Version | null | undefined,
    range: Range | undefined,
    plan: (records: readonly MessageRecord[]) => Edit,
  ): Promise<WriteResult> {
    return this.compareAndSet(target, ifVersion, range, (records, write, signal) =>
      this.#backend.edit(target, plan(records), write, signal),
    );
  }

  /**
   * A write that must not be repeated blindly. Without the caller's `ifVersion` it reads the version, requires it, and
   * starts over when another writer was faster. With an attempt of unknown outcome behind it, it repeats exactly that
   * attempt: its token or its version tells whether it happened, and when neither does, the error says so.
   */
  compareAndSet(
    target: Key,
    ifVersion: Version | null | undefined,
    range: Range | undefined,
    apply: (
      records: readonly MessageRecord[],
      write: Write,
      signal: AbortSignal,
    ) => Promise<Outcome>,
  ): Promise<WriteResult> {
    const write = this.begin(ifVersion);
    let planned: Plan | undefined;
    return this.run(target, write, async (signal, _, unknown) => {
      if (!unknown) planned = undefined;
      for (;;) {
        planned ??= await this.#plan(target, write, range, signal);
        const outcome = await apply(planned.records, planned.write, signal);
        if (unknown) return afterUnknown(outcome, target, planned.write);
        if (outcome.status !== "conflict") return outcome;
        if (ifVersion !== undefined) return outcome;
        if (range === undefined) {
          // Nothing but the version was read, and the conflict told the new one. A pause would make it stale again.
          planned = { write: { ...write, ifVersion: outcome.version }, records: [] };
        } else {
          planned = undefined;
          // The shortest pause: whoever waits longer and longer never wins against a busy session.
          await pause(1, signal);
        }
        signal.throwIfAborted();
      }
    });
  }

  /** A write with a token of its own. */
  begin(ifVersion: Version | null | undefined): Write {
    return {
      next: randomUUID(),
      ...(ifVersion !== undefined && { ifVersion }),
      ...(this.#ttl !== undefined && { ttlMs: this.#ttl }),
    };
  }

  /** Run a write on its session, and on others that it reads, and say what its outcome means. */
  async run(
    target: Key,
    write: Write,
    attempt: Attempt<Outcome>,
    targets: readonly Key[] = [target],
  ): Promise<WriteResult> {
    const outcome = await this.#runOn(targets, attempt);
    switch (outcome.status) {
      case "applied":
      case "unchanged":
        return { version: outcome.version, messageCount: outcome.messageCount };
      case "conflict":
        throw new VersionConflictError(target.id, write.ifVersion ?? null, outcome.version);
      case "duplicate":
        throw new DuplicateMessageError(target.id, outcome.ids.map(fromPortable), "the session");
      case "missing":
        throw new MessageNotFoundError(target.id, outcome.ids.map(fromPortable));
    }
  }

  async #plan(
    target: Key,
    write: Write,
    range: Range | undefined,
    signal: AbortSignal,
  ): Promise<Plan> {
    if (range === undefined && write.ifVersion !== undefined) return { write, records: [] };
    const found = await load(this.#backend, target, range ?? { from: "end", limit: 0 }, signal);
    if (found === undefined || found === "missing") {
      return { write: { ...write, ifVersion: write.ifVersion ?? null }, records: [] };
    }
    // A given null must conflict with this session, not be taken for "not given".
    const ifVersion = write.ifVersion === undefined ? found.session.version : write.ifVersion;
    return { write: { ...write, ifVersion }, records: found.records };
  }
}

/**
 * What an outcome says of a write after an attempt that may have happened. A repetition finds the session as others have left
 * it since: what was done is no conflict then, and the version is not its own.
 */
export function afterUnknown(outcome: Outcome, target: Key, write: Write): Outcome {
  switch (outcome.status) {
    case "conflict":
    case "duplicate":
      throw unknownOutcome(target.id);
    case "unchanged":
      // At the version that the write required, nobody has changed anything, neither has it.
      return outcome.version === null || outcome.version === write.ifVersion
        ? outcome
        : { ...outcome, version: write.next };
    default:
      return outcome;
  }
}

export function unknownOutcome(what: string): BackendError {
  return new BackendError(
    `${what} was changed by somebody else after an attempt of unknown outcome: read it again`,
    { retryable: false, outcome: "unknown" },
  );
}

/** A write that requires a version, and the records that belong to that. */
interface Plan {
  readonly write: Write;
  readonly records: readonly MessageRecord[];
}
