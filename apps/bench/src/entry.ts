/** One line of the result. */
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

/** An entry of what each contestant took. */
export function timed(
  about: Pick<Entry, "backend" | "work" | "history">,
  timings: ReadonlyMap<string, Timing>,
  target?: (times: { readonly ours: number; readonly raw: number }) => number | undefined,
): Entry {
  const { ours, raw, ...peers } = Object.fromEntries(
    [...timings].map(([name, { median }]) => [name, median]),
  );
  if (ours === undefined) throw new Error(`Nobody measured ours at ${about.work}`);
  const most = raw === undefined ? undefined : target?.({ ours, raw });
  return {
    ...about,
    ours,
    raw: raw ?? null,
    ratio: raw === undefined ? null : ours / raw,
    ...(most !== undefined && { target: most }),
    unit: "ms",
    spread: Object.fromEntries([...timings].map(([name, { quartiles }]) => [name, quartiles])),
    ...(Object.keys(peers).length > 0 && { peers: peers as Record<string, number> }),
  };
}

export function misses({ ours, target }: Entry): boolean {
  return target !== undefined && ours > target;
}
