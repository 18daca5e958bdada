/** How time is taken: contestants by turns, in rounds, after a warm-up. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { quantile } from "simple-statistics";

/** Milliseconds of a peer's turn that leaves much to the garbage collector, which the others would pay for. */
const longTurn = 50;

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
  /** Whether it runs between the rounds of the others, for no longer than they do, so that it is not felt by them. */
  readonly yields?: boolean;
  /** Prepares a run, and returns what is timed. Every pass of a race has another number. */
  prepare(pass: number): () => Promise<unknown>;
}

/** Milliseconds. */
export interface Timing {
  readonly median: number;
  readonly quartiles: readonly [number, number];
  readonly samples: number;
}

/**
 * Run the lanes by turns, in one order and then in the opposite one, so that whatever disturbs the machine, and whatever
 * one run leaves behind for the next, meets all of them alike. Those that yield have each a turn of its own behind every
 * round: five other libraries between two runs leave nothing of the first one's code in the processor's caches. In it they
 * alternate with the steady ones, too: who talks to a server without a pause is served in half the time.
 */
export async function race<L extends Lane>(
  lanes: readonly L[],
  effort: Omit<Effort, "warmUpTime">,
): Promise<ReadonlyMap<L, Timing>> {
  const samples = new Map(lanes.map((lane) => [lane, [] as number[]]));
  const yielding = lanes.filter((lane) => lane.yields);
  const steady = lanes.filter((lane) => !lane.yields);
  let pass = 0;
  let steadyTime = 0;

  const runOne = async (lane: L, record: boolean) => {
    const run = lane.prepare(pass);
    const begin = performance.now();
    await run();
    const time = performance.now() - begin;
    if (record) samples.get(lane)?.push(time);
    return time;
  };
  const runSteady = async (record: boolean) => {
    const order = pass % 2 === 0 ? steady : steady.toReversed();
    for (const lane of order) steadyTime += await runOne(lane, record);
    pass++;
  };
  /** Often, but no longer than its share of a round's time; once in any case. */
  const runYielding = async (lane: L, most: number, record: boolean) => {
    let taken = 0;
    for (let n = 0; n < most && (n === 0 || taken * yielding.length < effort.roundTime); n++) {
      taken += await runOne(lane, record);
      const other = steady[n % steady.length];
      if (other !== undefined) await runOne(other, false);
      pass++;
    }
    if (taken > longTurn) collectGarbage();
  };

  const [least, most] = effort.passes;
  while (pass < least || (pass < most && steadyTime < effort.roundTime)) await runSteady(false);
  const passTime = steadyTime / pass;
  const passes = Math.min(most, Math.max(least, Math.floor(effort.roundTime / passTime)));
  for (const lane of yielding) await runYielding(lane, 1, false);
  for (let round = 0; round < effort.rounds; round++) {
    for (let count = 0; count < passes; count++) await runSteady(true);
    for (const lane of yielding) await runYielding(lane, passes, true);
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
