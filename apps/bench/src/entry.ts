/** One line of the result. */
import type { Durability } from "./contestant.js";
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
  readonly peers?: Readonly<Record<string, number>>;
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
  const peers = medians.filter(([name]) => name !== "ours" && name !== "raw");
  return {
    ...about,
    ours,
    raw,
    ratio: raw === null ? null : ours / raw,
    ...(most !== undefined && { target: most }),
    unit: "ms",
    spread: Object.fromEntries([...timings].map(([name, { quartiles }]) => [name, quartiles])),
    ...(peers.length > 0 && { peers: Object.fromEntries(peers) }),
  };
}

/** An entry without comparisons between writes that do not survive the same. */
export function alike(entry: Entry, durabilities: ReadonlyMap<string, Durability>): Entry {
  const ours = durabilities.get("ours")?.survives;
  const unlike = [...durabilities].filter(
    ([name, { survives }]) => survives !== ours && entry.spread?.[name] !== undefined,
  );
  if (unlike.length === 0) return entry;
  const others = unlike.map(([name, { survives }]) => `of ${name} ${survives}`).join(", ");
  const note = [entry.note, `unlike durability: a write of ours survives ${ours}, ${others}`];
  const { target, ...rest } = entry;
  const isRawAlike = unlike.every(([name]) => name !== "raw");
  return {
    ...(isRawAlike ? entry : { ...rest, ratio: null }),
    note: note.filter((part) => part !== undefined).join("; "),
  };
}

/** Whether the target is missed. */
export function misses({ ours, target }: Entry): boolean {
  return target !== undefined && ours > target;
}
