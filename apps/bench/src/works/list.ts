/** One user's list among everybody's. */
import { isPeer } from "../entry.js";
import { type Lane, race, type Timing } from "../measure.js";
import { history } from "../messages.js";
import type { Work } from "./index.js";

/** Sessions that this user has. */
const own = 20;
/** Times what it takes among few. */
const mostGrowth = 1.2;
const few = 100;

export const list: Work = {
  name: "list-user",
  async run(arena) {
    const crowds = [few, arena.quick ? 1_000 : 100_000];
    const messages = history(1);
    const lanes: (Lane & { readonly crowd: number })[] = [];
    for (const crowd of crowds) {
      for (const [contestant, it] of await arena.contestants(`crowd_${crowd}`)) {
        if (it.list === undefined) continue;
        const readList = it.list.bind(it);
        await it.fill(sessions(crowd, messages));
        const prepare = () => () => readList("alice", own);
        lanes.push({ contestant, yields: isPeer(contestant), crowd, prepare });
      }
    }
    await arena.backend.settle(arena.at);
    const timings = await race(lanes, arena.effort);
    const among = (crowd: number) =>
      new Map(
        lanes
          .filter((lane) => lane.crowd === crowd)
          .map((lane) => [lane.contestant, timings.get(lane) as Timing]),
      );
    const base = among(few).get("ours")?.median ?? Number.NaN;
    const note = "history: sessions of other users";
    return Promise.all(
      crowds.map((crowd) => {
        const target = () => (crowd === few ? undefined : base * mostGrowth);
        return arena.entry(list.name, crowd, among(crowd), { target, note });
      }),
    );
  },
};

/** Alice's, and those of others, each of whom has one. */
function* sessions(others: number, messages: ReturnType<typeof history>) {
  for (let n = 0; n < own; n++) yield [{ user: "alice", name: `of-alice-${n}` }, messages] as const;
  for (let n = 0; n < others; n++) yield [{ user: `other${n}`, name: "one" }, messages] as const;
}
