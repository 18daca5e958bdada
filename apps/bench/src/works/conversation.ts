/** One conversation, whose length must not matter. */
import { type Arena, holds } from "../arena.js";
import type { Contestant, Conversation } from "../contestant.js";
import { isPeer } from "../entry.js";
import { type Lane, race, type Timing } from "../measure.js";
import { message } from "../messages.js";
import type { Work } from "./index.js";

const lengths = [10, 1_000, 100_000];
/** Times raw. */
const mostRatio = 1.3;
/** Times what the same takes at 1,000 messages. */
const mostGrowth = 1.2;
/** Milliseconds more than raw, where raw is a function call. */
const callOverhead = 0.05;
const pageSize = 20;

/** What is done with a conversation; `undefined`: the contestant cannot. */
type Deed = (
  contestant: Contestant,
  conversation: Conversation,
  length: number,
  pass: number,
) => (() => Promise<unknown>) | undefined;

/** @param isRead Whether a function call's overhead is forgiven. */
function atLengths(
  name: string,
  histories: readonly number[],
  deed: Deed,
  { isRead, isFlat }: { readonly isRead: boolean; readonly isFlat: boolean },
): Work {
  return {
    name,
    async run(arena) {
      const lanes = await lanesOf(arena, histories, deed);
      const timings = new Map<Lane, Timing>();
      // Lengths that are not compared with each other do not race: a long one's garbage would be collected in a short one's time.
      for (const group of isFlat ? [histories] : histories.map((one) => [one])) {
        const racing = lanes.filter(({ history }) => group.includes(history));
        for (const [lane, timing] of await race(racing, arena.effort)) timings.set(lane, timing);
      }
      const at = (history: number) =>
        new Map(
          lanes
            .filter((lane) => lane.history === history)
            .flatMap((lane) => {
              const timing = timings.get(lane);
              return timing === undefined ? [] : [[lane.contestant, timing] as const];
            }),
        );
      const short = at(1_000).get("ours")?.median ?? Number.POSITIVE_INFINITY;
      const entries = [];
      for (const history of histories) {
        const target = ({ raw }: { readonly raw: number }) => {
          const overhead = arena.backend.embedded && isRead ? callOverhead : 0;
          const most = Math.max(raw * mostRatio, raw + overhead);
          return isFlat && history > 1_000 ? Math.min(most, short * mostGrowth) : most;
        };
        const reasons = await tooLong(arena, history, deed);
        entries.push(await arena.entry(name, history, at(history), { target, reasons }));
      }
      return entries;
    },
  };
}

async function lanesOf(arena: Arena, histories: readonly number[], deed: Deed) {
  const lanes: (Lane & { readonly history: number })[] = [];
  for (const history of histories) {
    const conversations = await arena.conversations(history);
    for (const [contestant, it] of await arena.contestants()) {
      if (!holds(it, history)) continue;
      const prepare = (pass: number) => {
        const conversation = conversations[pass % conversations.length] as Conversation;
        return deed(it, conversation, history, pass);
      };
      if (prepare(0) === undefined) continue;
      const yields = isPeer(contestant);
      lanes.push({ contestant, yields, history, prepare: prepare as Lane["prepare"] });
    }
  }
  return lanes;
}

/** Why contestants do not do it at this length, with what it takes them, once, at the greatest that they hold. */
async function tooLong(arena: Arena, history: number, deed: Deed) {
  const reasons = new Map<string, string>();
  for (const [contestant, it] of await arena.contestants()) {
    if (it.longest === undefined || holds(it, history)) continue;
    const { messages, because } = it.longest;
    const [conversation] = (await arena.conversations(messages)) as [Conversation];
    const run = deed(it, conversation, messages, 0);
    if (run === undefined) continue;
    const begin = performance.now();
    await run();
    const time = (performance.now() - begin).toPrecision(3);
    const most = messages.toLocaleString("en");
    reasons.set(contestant, `not run beyond ${most}, where it takes ${time} ms: ${because}`);
  }
  return reasons;
}

function append(count: number): Work {
  const name = `append-${count}`;
  const deed: Deed = (contestant, conversation, _, pass) => {
    const batch = Array.from({ length: count }, (_, n) => message(pass * count + n, name));
    return () => contestant.append(conversation, batch);
  };
  return atLengths(name, lengths, deed, { isRead: false, isFlat: true });
}

const newest: Deed = (contestant, conversation) =>
  contestant.newest && (() => contestant.newest?.(conversation, pageSize) as Promise<unknown>);

const page: Deed = (contestant, conversation, length) => {
  const position = Math.floor(length / 2);
  const before = { id: `m${position}`, position };
  return (
    contestant.page && (() => contestant.page?.(conversation, before, pageSize) as Promise<unknown>)
  );
};

const all: Deed = (contestant, conversation) => () => contestant.all(conversation);

/** Reads come first: appends leave the conversations longer than they were. */
export const conversationWorks: readonly Work[] = [
  atLengths("newest-20", lengths, newest, { isRead: true, isFlat: true }),
  atLengths("page-20", lengths, page, { isRead: true, isFlat: true }),
  atLengths("all", [1_000, 10_000], all, { isRead: false, isFlat: false }),
  append(1),
  append(3),
];
