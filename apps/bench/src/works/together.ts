/** Many at once: conversations in one process, processes on one conversation. */
import { max, median, min } from "simple-statistics";
import { Child } from "../child.js";
import type { Conversation } from "../contestant.js";
import { type Lane, race, type Timing } from "../measure.js";
import { message } from "../messages.js";
import type { Task } from "../worker.js";
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
      if (it.newest === undefined) continue;
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
    return [await arena.entry(mixed.name, history, new Map(each), target)];
  },
};

/** @param isShared Whether all processes append to one conversation. */
function appending(isShared: boolean): Work {
  const name = `append-${processes}-${isShared ? "one" : "own"}`;
  return {
    name,
    async run(arena) {
      const messages = arena.quick ? 15 : 200;
      const rounds = arena.quick ? 1 : arena.effort.rounds;
      const timings = new Map<string, Timing>();
      for (const [contestant, it] of await arena.contestants()) {
        if (isShared && !it.sharesConversations) continue;
        const tasks = Array.from({ length: processes }, (_, n) => ({
          backend: arena.name,
          contestant,
          place: arena.place(contestant, "main"),
          conversation: { user: "processes", name: isShared ? name : `${name}-${n}` },
          who: `process${n}-`,
          messages,
        }));
        const times: number[] = [];
        for (let round = 0; round < rounds; round++) {
          const some = tasks.map(
            (task): Task => ({ ...task, kind: "append", first: round * messages }),
          );
          times.push((await inProcesses(some)) / (processes * messages));
        }
        for (const { conversation } of isShared ? tasks.slice(0, 1) : tasks) {
          const writers = isShared
            ? tasks
            : tasks.filter((task) => task.conversation === conversation);
          const stored = (await it.all(conversation)).map(({ content }) => content);
          refuseLoss(
            `${arena.name}, ${contestant}, ${name}`,
            stored,
            writers.map(({ who }) => who),
            rounds * messages,
          );
        }
        timings.set(contestant, {
          median: median(times),
          quartiles: [min(times), max(times)],
          samples: times.length,
        });
      }
      const note = "nothing was lost; spread: the fastest and the slowest round";
      return [await arena.entry(name, null, timings, undefined, note)];
    },
  };
}

/** @throws when a message of a writer is not there, is there twice, or is not in the order in which it was appended. */
export function refuseLoss(
  where: string,
  stored: readonly string[],
  writers: readonly string[],
  count: number,
): void {
  for (const who of writers) {
    const found = stored.filter((content) => content.startsWith(who));
    const expected = Array.from({ length: count }, (_, n) => message(n, who).content);
    const wrong = expected.findIndex((content, n) => found[n] !== content);
    if (wrong >= 0 || found.length !== count) {
      throw new Error(
        `${where}: of ${count} messages that ${who} appended, ${found.length} are there, ` +
          `the first that is not in its place is number ${wrong}`,
      );
    }
  }
}

/** Milliseconds from when all processes are told to begin until all are done. */
async function inProcesses(tasks: readonly Task[]): Promise<number> {
  const children = tasks.map((task) => new Child(task));
  await Promise.all(children.map(({ ready }) => ready));
  const begin = performance.now();
  await Promise.all(children.map((child) => child.run()));
  const time = performance.now() - begin;
  await Promise.all(children.map(({ gone }) => gone));
  return time;
}

export const togetherWorks: readonly Work[] = [mixed, appending(true), appending(false)];
