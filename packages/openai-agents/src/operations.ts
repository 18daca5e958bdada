/** Which history transactions a session has seen: kept in its state, and written with what they change. */
import { createHash } from "node:crypto";
import { InvalidOptionsError } from "@chatstore/core";
import type { AgentInputItem, SessionHistoryTransactionArgs } from "@openai/agents-core";

/** The entry of a session's state. */
const entry = "openaiAgents";
/** Operations that are remembered. One that comes again later than this is not known any more. */
const maxOperations = 1_000;

/** Id and digest of the content. */
type Operation = readonly [id: string, digest: string];

export const Operations = {
  /** @throws InvalidOptionsError when the id is none. */
  of(id: unknown, transaction: SessionHistoryTransactionArgs["transaction"]): Operation {
    if (typeof id !== "string" || id.trim() === "") {
      throw new InvalidOptionsError(
        "A history transaction needs an operationId that is the same when it is repeated",
      );
    }
    // Ids of any length are kept short.
    return [digestOf(id), digestOf(transaction)];
  },

  /**
   * The state with one more operation.
   *
   * @throws InvalidOptionsError when the id was used with another content.
   */
  added(
    state: Readonly<Record<string, unknown>> | undefined,
    [id, digest]: Operation,
  ): "applied" | Record<string, unknown> {
    const known = state?.[entry] as { readonly operations: readonly Operation[] } | undefined;
    const operations = known?.operations ?? [];
    const found = operations.find(([one]) => one === id);
    if (found === undefined) {
      const kept = operations.slice(1 - maxOperations);
      return { [entry]: { operations: [...kept, [id, digest]] } };
    }
    if (found[1] === digest) return "applied";
    throw new InvalidOptionsError(
      "This operationId was used before, with another content: an operation keeps its id and its content",
    );
  },
};

/** Whether items say the same, in whatever order their fields stand. */
export function sameItems(
  some: readonly AgentInputItem[],
  others: readonly AgentInputItem[],
): boolean {
  return canonical(some) === canonical(others);
}

function digestOf(value: unknown): string {
  return createHash("sha256").update(canonical(value)).digest("base64url").slice(0, 22);
}

/** JSON with sorted keys. An `undefined` member equals an absent one: items travel by JSON. */
function canonical(value: unknown): string {
  return JSON.stringify(value, function (this: Record<string, unknown>, name, item: unknown) {
    // The value itself: that of a Buffer has become something else by now.
    const own = this[name];
    if (own instanceof Uint8Array) return { $bytes: Buffer.from(own).toString("base64") };
    if (typeof item !== "object" || item === null || Array.isArray(item)) return item;
    return Object.fromEntries(
      Object.entries(item).sort(([one], [other]) => (one < other ? -1 : 1)),
    );
  });
}
