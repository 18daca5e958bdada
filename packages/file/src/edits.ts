/** What an edit makes of a session's messages. */
import type { Edit, MessageRecord, Outcome, Patch } from "@chatstore/core";
import { messageLine } from "./format.js";
import type { SessionFile, SessionIndex } from "./session-file.js";

/** What an edit makes of a session. */
interface Plan {
  readonly messageCount: number;
  /** What becomes of each message, by its place; `undefined`: all stay as they are. */
  readonly change: Change | undefined;
  readonly added?: readonly MessageRecord[];
  readonly patch?: Patch | undefined;
}
type Change = (ordinal: number, record: MessageRecord) => MessageRecord | "keep" | "drop";

export function planOf(edit: Edit, { ordinals, digests }: SessionIndex): Plan | Outcome {
  const count = digests.length;
  if (edit.op === "remove") {
    const dropped = new Set(
      edit.ids.map((id) => ordinals.get(id)).filter((at) => at !== undefined),
    );
    if (dropped.size === 0) return { messageCount: count, change: undefined };
    const change: Change = (ordinal) => (dropped.has(ordinal) ? "drop" : "keep");
    return { messageCount: count - dropped.size, change };
  }
  const at = ordinals.get(edit.id);
  if (at === undefined) return { status: "missing", ids: [edit.id] };
  if (edit.op === "replaceAfter") {
    const { records: added, patch } = edit;
    const kept = added
      .map(({ id }) => id)
      .filter((id) => (ordinals.get(id) ?? Number.POSITIVE_INFINITY) <= at);
    if (kept.length > 0) return { status: "duplicate", ids: kept };
    const change: Change = (ordinal) => (ordinal <= at ? "keep" : "drop");
    const messageCount = at + 1 + added.length;
    return { messageCount, change: at === count - 1 ? undefined : change, added, patch };
  }
  const { id, digest, data, createdAt } = edit;
  if (digests[at] === digest) return { messageCount: count, change: undefined };
  const change: Change = (ordinal, record) =>
    ordinal === at ? { id, digest, data, createdAt: createdAt ?? record.createdAt } : "keep";
  return { messageCount: count, change };
}

async function* editedLines(file: SessionFile, change: Change): AsyncGenerator<string | Buffer> {
  let ordinal = 0;
  for await (const { block, messages } of file.messages()) {
    for (const message of messages) {
      const result = change(ordinal++, block.record(message));
      if (result === "keep") yield block.bytes.subarray(message.begin, message.end);
      else if (result !== "drop") yield messageLine(result);
    }
  }
}

export async function* extendedLines(
  file: SessionFile,
  change: Change = () => "keep",
  added: readonly MessageRecord[] = [],
) {
  yield* editedLines(file, change);
  yield* linesFor(added);
}

export function* linesFor(records: readonly MessageRecord[]): Generator<string> {
  for (const record of records) yield messageLine(record);
}
