/** How time is taken: contestants by turns, in rounds, after a warm-up. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { quantile } from "simple-statistics";

/** Milliseconds of a run that leaves much to the garbage collector, probably. */
const longRun = 50;

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

/** How much is measured. */
export interface Effort {
  readonly rounds: number;
  /** Milliseconds of one round, and of the warm-up, for all lanes of a race together. */
  readonly roundTime: number;
  /** Milliseconds that each contestant does something before anything is measured. */
  readonly warmUpTime: number;
  /** Bounds of how often each lane runs in a round. */
  readonly passes: readonly [least: number, most: number];
}

/** One competitor in one situation. */
export interface Lane<Name extends string = string> {
  readonly contestant: Name;
  /** Whether it sits out passes once it has taken its share of time, so that a slow one does not leave few to the others. */
  readonly yields?: boolean;
  /** Prepares a run, and returns what is timed. Every pass of a race has another number, the same for all lanes. */
  prepare(pass: number): () => Promise<unknown>;
}

/** Milliseconds. */
export interface Timing {
  readonly median: number;
  readonly quartiles: readonly [number, number];
  readonly samples: number;
}

/**
 * Run all lanes by turns, in one order and then in the opposite one, so that whatever disturbs the machine, and whatever
 * one run leaves behind for the next, meets all of them alike. Those that yield run at least once in each round.
 */
export async function race<L extends Lane>(
  lanes: readonly L[],
  effort: Omit<Effort, "warmUpTime">,
): Promise<ReadonlyMap<L, Timing>> {
  const samples = new Map(lanes.map((lane) => [lane, [] as number[]]));
  const taken = new Map(lanes.map((lane) => [lane, 0]));
  const yielding = lanes.filter(({ yields = false }) => yields);
  let pass = 0;
  /** Of all lanes that do not yield. */
  let steadyTime = 0;
  const sitsOut = (lane: L) =>
    lane.yields === true && (taken.get(lane) ?? 0) * yielding.length > steadyTime;

  const runAll = async (record: boolean, all: boolean) => {
    const order = pass % 2 === 0 ? lanes : lanes.toReversed();
    for (const lane of order) {
      if (!all && sitsOut(lane)) continue;
      const run = lane.prepare(pass);
      const begin = performance.now();
      await run();
      const time = performance.now() - begin;
      if (record) samples.get(lane)?.push(time);
      taken.set(lane, (taken.get(lane) ?? 0) + time);
      if (!lane.yields) steadyTime += time;
      // Or it would be done in the time of the others.
      else if (time > longRun) collectGarbage();
    }
    pass++;
  };

  const [least, most] = effort.passes;
  while (pass < least || (pass < most && steadyTime < effort.roundTime)) {
    await runAll(false, pass === 0);
  }
  const passTime = steadyTime / pass;
  const passes = Math.min(most, Math.max(least, Math.floor(effort.roundTime / passTime)));
  for (let count = 0; count < effort.rounds * passes; count++) {
    await runAll(true, count % passes === 0);
  }
  return new Map([...samples].map(([lane, times]) => [lane, summary(times)]));
}

function summary(times: readonly number[]): Timing {
  const [lower, median, upper] = quantile([...times], [0.25, 0.5, 0.75]) as [
    number,
    number,
    number,
  ];
  return { median, quartiles: [lower, upper], samples: times.length };
}
