/** One line of the result. */
import { type Contestant, type Durability, relaxedOurs } from "./contestant.js";
import type { Timing } from "./measure.js";

export interface Entry {
  readonly backend: string;
  readonly work: string;
  /** How much was there before: messages of the conversation, or what the work counts. `null`: it does not matter. */
  readonly history: number | null;
  readonly ours: number;
  /** What the raw driver takes, or what else the work compares with. `null`: nothing. */
  readonly raw: number | null;
  /** `ours / raw`. `null`: nothing to compare with, or nothing alike: the note says why. */
  readonly ratio: number | null;
  /** The most that `ours` may be, in the same unit; absent: none is set. */
  readonly target?: number;
  /** Of `ours`, `raw`, `target` and the peers. */
  readonly unit: "ms" | "bytes";
  /** The quartiles of what was sampled, by contestant. */
  readonly spread?: Readonly<Record<string, readonly [number, number]>>;
  /** By name; with `ours` as it was in the race with them. */
  readonly peers?: Readonly<Record<string, PeerResult>>;
  readonly note?: string;
}

/** What a peer takes for the same work, or why it does not do it. */
export interface PeerResult {
  /** In the unit of the entry. `null`: not measured. */
  readonly value: number | null;
  /** Ours by this, where ours survives the same. Below 1: ours is ahead. `null`: not measured, or not alike. */
  readonly ratio: number | null;
  readonly note?: string;
}

export type About = Pick<Entry, "backend" | "work" | "history">;
export type Target = (times: { readonly ours: number; readonly raw: number }) => number | undefined;

/** An entry of what each contestant took. */
export function timed(
  about: About,
  timings: ReadonlyMap<string, Timing>,
  target: Target = () => undefined,
): Entry {
  const medians = [...timings].map(([name, { median }]) => [name, median] as const);
  const { ours, raw = null } = Object.fromEntries(medians);
  if (ours === undefined) throw new Error(`Nobody measured ours at ${about.work}`);
  const most = raw === null ? undefined : target({ ours, raw });
  return {
    ...about,
    ours,
    raw,
    ratio: raw === null ? null : ours / raw,
    ...(most !== undefined && { target: most }),
    unit: "ms",
    spread: Object.fromEntries([...timings].map(([name, { quartiles }]) => [name, quartiles])),
  };
}

/** An entry without comparisons between writes that do not survive the same. */
export function alike(entry: Entry, durabilities: Readonly<Record<string, Durability>>): Entry {
  const { ours, raw } = durabilities;
  if (entry.raw === null || raw === undefined || ours?.survives === raw.survives) return entry;
  const { target, ...rest } = entry;
  const unlike = `unlike durability: a write of ours survives ${ours?.survives}, of raw ${raw.survives}`;
  return { ...rest, ratio: null, note: [entry.note, unlike].filter(Boolean).join("; ") };
}

/**
 * An entry with what the peers took.
 *
 * @param values By contestant.
 * @param reasons Why a peer was not measured, where it does not know that itself.
 */
export function besidePeers(
  entry: Entry,
  values: ReadonlyMap<string, number>,
  contestants: ReadonlyMap<string, Pick<Contestant, "durability" | "cannot">>,
  reasons: ReadonlyMap<string, string> = new Map(),
): Entry {
  const peers: Record<string, PeerResult> = {};
  const own = ["ours", relaxedOurs].filter((name) => values.has(name));
  for (const [name, { durability, cannot }] of contestants) {
    const value = values.get(name);
    const reason = reasons.get(name) ?? cannot?.[entry.work];
    if (value === undefined) {
      if (reason !== undefined) peers[name] = { value: null, ratio: null, note: reason };
    } else if (own.includes(name)) {
      peers[name] = { value, ratio: null };
    } else if (isPeer(name)) {
      const { survives } = durability;
      const rival = own.find((one) => contestants.get(one)?.durability.survives === survives);
      const times = rival === undefined ? null : (values.get(rival) as number) / value;
      const note =
        rival === undefined ? `not alike: survives ${survives}` : `as durable as ${rival}`;
      peers[name] = { value, ratio: times, ...(rival !== "ours" && { note }) };
    }
  }
  return Object.keys(peers).some(isPeer) ? { ...entry, peers } : entry;
}

/** Entries, and for those that have no peers the peers of the same work. */
export function withPeers(entries: readonly Entry[], compared: readonly Entry[]): Entry[] {
  return entries.map((entry) => {
    const { backend, work, history } = entry;
    const { peers } =
      compared.find(
        (one) => one.backend === backend && one.work === work && one.history === history,
      ) ?? {};
    return peers === undefined ? entry : { ...entry, peers: entry.peers ?? peers };
  });
}

/** Whether a contestant comes only with `--peers`. */
export function isPeer(name: string): boolean {
  return name !== "ours" && name !== "raw";
}

/** The peers that take less than ours does. */
export function ahead({ peers = {} }: Entry): string[] {
  return Object.keys(peers).filter((name) => (peers[name]?.ratio ?? 0) > 1);
}

/** Whether the target is missed. */
export function misses({ ours, target }: Entry): boolean {
  return target !== undefined && ours > target;
}
