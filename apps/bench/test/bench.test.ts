import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { afterAll, describe, expect, onTestFinished, test, vi } from "vitest";
import { refuseDifferent } from "../src/arena.ts";
import { backends } from "../src/backends.ts";
import type { Contestant, Durability, Message } from "../src/contestant.ts";
import { ahead, alike, besidePeers, type Entry, misses, timed } from "../src/entry.ts";
import { race } from "../src/measure.ts";
import { history, message } from "../src/messages.ts";
import { type Report, renewed } from "../src/report.ts";
import { refuseLoss } from "../src/works/together.ts";

const run = promisify(execFile);
const folder = await mkdtemp(join(tmpdir(), "chatstore-bench-test-"));
afterAll(() => rm(folder, { recursive: true }));

describe.each(["sqlite", "file"] as const)("on %s", (name) => {
  test.each(["ours", "raw"] as const)("%s does the work that is measured", async (who) => {
    const { [who]: open, bytes } = backends[name];
    const place = { at: folder, namespace: `${who}_${name}` };
    const contestant = await open(place);
    const conversation = { user: "alice", name: "one" };
    await contestant.fill([
      [conversation, history(100)],
      [{ user: "alice", name: "two" }, history(1)],
      [{ user: "bob", name: "one" }, history(1)],
    ]);
    await delay(50); // the sessions are listed by the time of their last change, and a file system may tick slowly
    await contestant.append(conversation, [message(100), message(101)]);
    const expected = Array.from({ length: 102 }, (_, n) => message(n));
    const { all, newest, page, list } = contestant as Required<Contestant>;
    const said = (messages: readonly Message[]) =>
      messages.map(({ role, content }) => ({ role, content }));

    const stored = await all.call(contestant, conversation);
    expect(said(stored)).toEqual(expected);
    expect(new Set(stored.map(({ id }) => id)).size).toBe(102);
    expect(said(await newest.call(contestant, conversation, 20))).toEqual(expected.slice(-20));
    const before = { id: "m50", position: 50 };
    expect(said(await page.call(contestant, conversation, before, 20))).toEqual(
      expected.slice(30, 50),
    );
    expect(await list.call(contestant, "alice", 20)).toEqual(["one", "two"]);
    expect(contestant.durability.survives).toBe("host");
    await contestant.close();

    expect(await bytes(place)).toBeGreaterThan(102 * 400);
    const again = await open(place);
    expect(said(await again.all(conversation))).toEqual(expected);
    await again.close();
  });
});

test("--json prints the entries, and nothing else", async () => {
  const { stdout } = await run(
    process.execPath,
    [
      ...[new URL("../dist/index.js", import.meta.url).pathname, "--quick", "--json"],
      ...["--backend", "sqlite,file", "--work", "all,append-8"],
    ],
    { cwd: join(import.meta.dirname, "..") },
  );
  const entries = JSON.parse(stdout) as Entry[];
  const lines = entries.map(({ backend, work, history }) => [backend, work, history]);
  expect(lines).toEqual(
    ["sqlite", "file"].flatMap((backend) => [
      ...[1_000, 10_000].map((length) => [backend, "all", length]),
      [backend, "append-8-one", null],
      [backend, "append-8-own", null],
    ]),
  );
  for (const { ours, raw, ratio, target, work } of entries) {
    expect(ours).toBeGreaterThan(0);
    expect(target === undefined).toBe(work !== "all");
    expect(ratio).toBeCloseTo(ours / (raw as number));
  }
}, 120_000);

test("an interrupted run leaves no folder behind", async () => {
  const temporary = join(folder, "interrupted");
  await mkdir(temporary);
  const bench = spawn(
    process.execPath,
    [new URL("../dist/index.js", import.meta.url).pathname, "--backend", "file", "--work", "all"],
    { env: { ...process.env, TMPDIR: temporary }, stdio: "ignore" },
  );
  await expect.poll(() => readdir(temporary), { timeout: 20_000 }).toHaveLength(1);
  bench.kill("SIGINT");
  await once(bench, "exit");
  await expect.poll(() => readdir(temporary), { timeout: 20_000 }).toEqual([]);
}, 60_000);

test("a contestant that lost, doubled or reordered a message does not pass", () => {
  const contents = (numbers: readonly number[]) => numbers.map((n) => message(n, "a").content);
  refuseLoss("here", [...contents([0, 1]), message(0, "b").content], "a", 2);
  for (const stored of [[0], [1, 0], [0, 1, 1], []]) {
    expect(() => refuseLoss("here", contents(stored), "a", 2)).toThrow(/a appended/);
  }
  const said = (contents: string) =>
    [...contents].map((content) => ({ role: "user", content }) as const);
  refuseDifferent("here", said("xy"), said("xy"));
  for (const other of ["x", "yx", "xyy"]) {
    expect(() => refuseDifferent("here", said("xy"), said(other))).toThrow(/here/);
  }
});

test("contestants run by turns, as often, on the same passes", async () => {
  const log: string[] = [];
  const lanes = ["a", "b"].map((contestant) => ({
    contestant,
    prepare: (pass: number) => async () => {
      log.push(`${contestant}${pass}`);
    },
  }));
  const timings = await race(lanes, { rounds: 2, roundTime: 0, passes: [3, 3] });
  const passes = Array.from({ length: 9 }, (_, pass) => pass);
  expect(log).toEqual(
    passes.flatMap((pass) => (pass % 2 === 0 ? ["a", "b"] : ["b", "a"]).map((one) => one + pass)),
  );
  expect([...timings.values()].map(({ samples }) => samples)).toEqual([6, 6]);
});

test("what survives less is not compared", () => {
  const timing = (median: number) => ({ median, quartiles: [median, median] as const, samples: 1 });
  const timings = new Map([
    ["ours", timing(2)],
    ["raw", timing(1)],
  ]);
  const entry = timed({ backend: "b", work: "w", history: 1 }, timings, ({ raw }) => raw * 1.5);
  expect(entry).toMatchObject({ ratio: 2, target: 1.5 });
  expect(misses(entry)).toBe(true);
  const settings = "";
  const durable: Durability = { survives: "host", settings };
  const weak: Durability = { survives: "process", settings };
  expect(alike(entry, { ours: durable, raw: durable })).toEqual(entry);
  const unlike = alike(entry, { ours: durable, raw: weak });
  expect(unlike).toMatchObject({ ours: 2, raw: 1, ratio: null });
  expect(unlike.target).toBeUndefined();
  expect(unlike.note).toMatch(/unlike durability/);
});

test("a slow peer takes few of the turns, and leaves the others theirs", async () => {
  vi.useFakeTimers({ toFake: ["performance"] });
  onTestFinished(() => void vi.useRealTimers());
  const lane = (contestant: string, time: number, yields: boolean) => ({
    contestant,
    yields,
    prepare: () => async () => void vi.advanceTimersByTime(time),
  });
  const lanes = [lane("ours", 1, false), lane("fast", 1, true), lane("slow", 150, true)];
  const effort = { rounds: 2, roundTime: 100, passes: [1, 1_000] } as const;
  const timings = await race(lanes, effort);
  // The slow one once in each round.
  expect(lanes.map((lane) => timings.get(lane)?.samples)).toEqual([200, expect.anything(), 2]);
  expect(timings.get(lanes[1] as (typeof lanes)[1])?.samples).toBeGreaterThan(50);
});

test("a peer is ahead only of ours that survives the same", () => {
  const settings = "";
  const host: Durability = { survives: "host", settings };
  const weak: Durability = { survives: "process", settings };
  const entry: Entry = {
    ...{ backend: "b", work: "append-3", history: 10, ours: 4, raw: 4, ratio: 1, unit: "ms" },
  };
  const compared = besidePeers(
    entry,
    new Map([
      ["ours", 4],
      ["raw", 4],
      ["ours-process", 1],
      ["durable", 3],
      ["weak", 2],
    ]),
    new Map([
      ["ours", { durability: host }],
      ["raw", { durability: host }],
      ["ours-process", { durability: weak }],
      ["durable", { durability: host }],
      ["weak", { durability: weak }],
      ["unable", { durability: host, cannot: { "append-3": "cannot append" } }],
    ]),
  );
  expect(compared.peers).toEqual({
    ours: { value: 4, ratio: null },
    "ours-process": { value: 1, ratio: null },
    durable: { value: 3, ratio: 4 / 3 },
    weak: { value: 2, ratio: 1 / 2, note: "as durable as ours-process" },
    unable: { value: null, ratio: null, note: "cannot append" },
  });
  expect(ahead(compared)).toEqual(["durable"]);
});

test("a part that is measured anew takes the place of the old one, and leaves the peers' figures", () => {
  const entry = (backend: string, work: string, history: number, ours: number): Entry => ({
    ...{ backend, work, history, ours, raw: 1, ratio: ours, unit: "ms" },
  });
  const peers = { ours: { value: 3, ratio: null }, other: { value: 6, ratio: 0.5 } };
  const settings = { survives: "host", settings: "" } as const;
  const old: Report = {
    machine: "m",
    quick: false,
    engines: [
      { backend: "a", version: "1", durability: { ours: settings, other: settings } },
      { backend: "b", version: "1" },
    ],
    entries: [entry("a", "w", 10, 1), { ...entry("a", "w", 20, 1), peers }, entry("b", "w", 10, 1)],
  };
  const part: Report = {
    ...old,
    engines: [
      { backend: "a", version: "2", durability: { ours: settings } },
      { backend: "b", skipped: "away" },
    ],
    entries: [entry("a", "w", 10, 2), entry("a", "w", 20, 2), entry("a", "v", 10, 2)],
  };
  expect(renewed(old, part)).toEqual({
    ...old,
    engines: [
      { backend: "a", version: "2", durability: { ours: settings, other: settings }, without: {} },
      { backend: "b", version: "1" },
    ],
    entries: [
      entry("a", "w", 10, 2),
      { ...entry("a", "w", 20, 2), peers },
      entry("b", "w", 10, 1),
      entry("a", "v", 10, 2),
    ],
  });
  for (const other of [{ machine: "n" }, { quick: true }]) {
    expect(renewed(old, { ...part, ...other })).toBeUndefined();
  }
});
