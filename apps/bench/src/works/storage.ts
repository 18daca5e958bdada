/** What is stored, and what it takes to read all of it. */
import { holds } from "../arena.js";
import { Child } from "../child.js";
import { besidePeers, type Entry } from "../entry.js";
import { history as say } from "../messages.js";
import type { Work } from "./index.js";

export const bytesStored: Work = {
  name: "bytes-message",
  async run(arena): Promise<Entry[]> {
    const history = arena.quick ? 10_000 : 100_000;
    const namespace = "bytes";
    const sizes = new Map<string, number>();
    const contestants = await arena.contestants(namespace);
    for (const [name, contestant] of contestants) {
      if (contestant.cannot?.[bytesStored.name] || !holds(contestant, history)) continue;
      await contestant.fill([[{ user: "alice", name: "long" }, say(history)]]);
      await arena.backend.settle(arena.at);
      sizes.set(name, (await arena.backend.bytes(arena.place(name, namespace))) / history);
    }
    const { ours = Number.NaN, raw = null } = Object.fromEntries(sizes);
    const about = { backend: arena.name, work: bytesStored.name, history };
    const ratio = raw === null ? null : ours / raw;
    const note = "text of 400 characters each";
    return [besidePeers({ ...about, ours, raw, ratio, unit: "bytes", note }, sizes, contestants)];
  },
};

const million = 1_000_000;
/** Over which the messages are spread. */
const sessions = 10;
const mostBytes = 150_000_000;

export const exportAll: Work = {
  name: "ram-export",
  async run(arena): Promise<Entry[]> {
    const history = arena.quick ? 20_000 : million;
    const namespace = "export";
    const messages = say(history / sessions);
    const ours = (await arena.contestants(namespace)).get("ours");
    await ours?.fill(
      Array.from({ length: sessions }, (_, n) => [{ user: `user${n}`, name: "long" }, messages]),
    );
    await arena.backend.settle(arena.at);
    await using child = new Child({
      kind: "export",
      backend: arena.name,
      place: arena.place("ours", namespace),
    });
    await child.ready;
    const bytes = await child.run();
    const about = { backend: arena.name, work: exportAll.name, history };
    const target = history < million ? {} : { target: mostBytes };
    const note = "the most that a process of its own ever had";
    return [{ ...about, ours: bytes, raw: null, ratio: null, ...target, unit: "bytes", note }];
  },
};
