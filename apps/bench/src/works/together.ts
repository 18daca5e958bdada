/** Many at once: conversations in one process, processes on one conversation. */
import { max, median, min } from "simple-statistics";
import type { Arena } from "../arena.js";
import { Child } from "../child.js";
import type { Contestant, Conversation } from "../contestant.js";
import { isPeer } from "../entry.js";
import { type Lane, race, type Timing } from "../measure.js";
import { message } from "../messages.js";
import type { Work } from "./index.js";

const conversationsAtOnce = 64;
/** Of a conversation in one sample; the last of them is an append, the others read. */
const operationsEach = 5;
const history = 40;
const processes = 8;

/** 0.8 times raw's throughput. */
const leastThroughput = 0.8;

const mixed: Work = {
  name: "mixed-64",
  async run(arena) {
    const conversations = (await arena.conversations(history)).slice(0, conversationsAtOnce);
    const lanes: Lane[] = [];
    for (const [contestant, it] of await arena.contestants()) {
      if (it.newest === undefined || it.cannot?.[mixed.name]) continue;
      const newest = it.newest.bind(it);
      const converse = async (conversation: Conversation, pass: number) => {
        for (let n = 0; n < operationsEach; n++) {
          if (n === operationsEach - 1) {
            await it.append(conversation, [message(pass, "mixed")]);
          } else await newest(conversation, 20);
        }
      };
      lanes.push({
        contestant,
        yields: isPeer(contestant),
        prepare: (pass) => () =>
          Promise.all(conversations.map((conversation) => converse(conversation, pass))),
      });
    }
    const timings = await race(lanes, arena.effort);
    const operations = conversations.length * operationsEach;
    const each = [...timings].map(([{ contestant }, { median, quartiles, samples }]) => {
      const [lower, upper] = quartiles;
      const per = (time: number) => time / operations;
      return [
        contestant,
        { median: per(median), quartiles: [per(lower), per(upper)] as const, samples },
      ] as const;
    });
    const target = ({ raw }: { raw: number }) => raw / leastThroughput;
    return [await arena.entry(mixed.name, history, new Map(each), { target })];
  },
};

const sharedName = `append-${processes}-one`;
const ownName = `append-${processes}-own`;

const eight: Work = {
  name: `append-${processes}`,
  async run(arena) {
    const shared = { timings: new Map<string, Timing>(), reasons: new Map<string, string>() };
    const own = { timings: new Map<string, Timing>(), reasons: new Map<string, string>() };
    for (const [contestant, it] of await arena.contestants()) {
      if (it.cannot?.[ownName]) continue;
      const writers = startWriters(arena, contestant);
      const append = async ({ timings, reasons }: typeof own, by: readonly Writer[]) => {
        try {
          timings.set(contestant, await appendAtOnce(arena, contestant, it, by));
        } catch (error) {
          // A peer that loses messages is told of, and has no figure.
          if (!(error instanceof LossError && isPeer(contestant))) throw error;
          reasons.set(contestant, error.message);
        }
      };
      try {
        await Promise.all(writers.map(({ child }) => child.ready));
        if (!it.cannot?.[sharedName]) {
          const one = { user: "everybody", name: "one" };
          const all = writers.map((writer) => ({ ...writer, conversation: one }));
          await append(shared, all);
        }
        await append(own, writers);
      } finally {
        await Promise.all(writers.map(({ child }) => child[Symbol.asyncDispose]()));
      }
    }
    const note = "nothing was lost; spread: the fastest and the slowest round";
    return [
      await arena.entry(sharedName, null, shared.timings, { note, reasons: shared.reasons }),
      await arena.entry(ownName, null, own.timings, { note, reasons: own.reasons }),
    ];
  },
};

/** A process that appends, and to which conversation. */
interface Writer {
  readonly child: Child;
  readonly who: string;
  readonly conversation: Conversation;
}

function startWriters(arena: Arena, contestant: string): Writer[] {
  return Array.from({ length: processes }, (_, n) => {
    const who = `process${n}-`;
    const child = new Child({
      kind: "append",
      backend: arena.name,
      contestant,
      place: arena.place(contestant, "main"),
      who,
      messages: messagesOf(arena),
    });
    return { child, who, conversation: { user: `user-of-${who}`, name: "own" } };
  });
}

/** That each process appends in one round. */
function messagesOf({ quick }: Arena): number {
  return quick ? 10 : 100;
}

/** Milliseconds for each message, when all append at once. */
async function appendAtOnce(
  arena: Arena,
  contestant: string,
  it: Contestant,
  writers: readonly Writer[],
): Promise<Timing> {
  const messages = messagesOf(arena);
  const { rounds } = arena.effort;
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const begin = performance.now();
    await Promise.all(
      writers.map(({ child, conversation }) =>
        child.run({ conversation, first: round * messages }),
      ),
    );
    times.push((performance.now() - begin) / (writers.length * messages));
  }
  for (const { who, conversation } of writers) {
    const stored = (await it.all(conversation)).map(({ content }) => content);
    refuseLoss(contestant, stored, who, rounds * messages);
  }
  return { median: median(times), quartiles: [min(times), max(times)], samples: rounds };
}

/** Messages were not stored as they were appended. */
class LossError extends Error {}

/** @throws LossError when a message of a writer is not there, is there twice, or is not in the order in which it was appended. */
export function refuseLoss(
  where: string,
  stored: readonly string[],
  who: string,
  count: number,
): void {
  const found = stored.filter((content) => content.startsWith(who));
  const expected = Array.from({ length: count }, (_, n) => message(n, who).content);
  const wrong = expected.findIndex((content, n) => found[n] !== content);
  if (wrong >= 0 || found.length !== count) {
    throw new LossError(
      `${where}: of ${count} messages that ${who} appended, ${found.length} are there, ` +
        `the first that is not in its place is number ${wrong}`,
    );
  }
}

export const togetherWorks: readonly Work[] = [mixed, eight];
