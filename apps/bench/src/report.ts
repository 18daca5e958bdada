/** The result for people: what was run on, the table, and the charts. */
import { statfsSync } from "node:fs";
import { cpus, release, tmpdir, totalmem, type } from "node:os";
import Table from "cli-table3";
import { BarChart } from "echarts/charts";
import { GridComponent, LegendComponent, TitleComponent } from "echarts/components";
import { init, use } from "echarts/core";
import { SVGRenderer } from "echarts/renderers";
import type { Durability } from "./contestant.js";
import { ahead, type Entry, misses, type PeerResult, withPeers } from "./entry.js";

/** One run. */
export interface Report {
  readonly machine: string;
  /** Whether few rounds and smaller numbers had to do. */
  readonly quick: boolean;
  readonly engines: readonly EngineReport[];
  readonly entries: readonly Entry[];
}

export interface EngineReport {
  readonly backend: string;
  /** Of engine and driver. Absent: skipped. */
  readonly version?: string;
  /** By contestant. */
  readonly durability?: Readonly<Record<string, Durability>>;
  /** What peers do not give that ours does. */
  readonly without?: Readonly<Record<string, readonly string[]>>;
  /** Why there is no such engine here. */
  readonly skipped?: string;
}

export function machine(): string {
  const [first] = cpus();
  const memory = `${Math.round(totalmem() / 2 ** 30)} GiB`;
  const system = `${type()} ${release()}`;
  // Where a sync to disk costs nothing, no write is slow.
  const disk =
    statfsSync(tmpdir()).type === 0x01021994 ? ", temporary files in memory (tmpfs)" : "";
  return `${cpus().length} × ${first?.model.trim()}, ${memory}, ${system}, Node ${process.version}${disk}`;
}

/**
 * A report with a part measured anew; peers that were not measured this time stay. `undefined` when the two are of different
 * machines, or only one was quick.
 */
export function renewed(old: Report, part: Report): Report | undefined {
  if (old.machine !== part.machine || old.quick !== part.quick) return undefined;
  const engines = part.engines.map((engine) => {
    const known = old.engines.find(({ backend }) => backend === engine.backend);
    if (known === undefined || engine.skipped !== undefined) return known ?? engine;
    const durability = { ...known.durability, ...engine.durability };
    return { ...engine, durability, without: { ...known.without, ...engine.without } };
  });
  return {
    ...part,
    engines: inPlaceOf(old.engines, engines),
    entries: inPlaceOf(old.entries, withPeers(part.entries, old.entries)),
  };
}

/** Those of the same backend and work by new ones, where there are any; what is only new comes last. */
function inPlaceOf<T extends { readonly backend: string; readonly work?: string }>(
  old: readonly T[],
  now: readonly T[],
): T[] {
  const kept = old.map((one) => {
    const newer = now.filter(({ backend, work }) => backend === one.backend && work === one.work);
    return newer.length > 0 ? newer : [one];
  });
  return [...new Set([...kept.flat(), ...now])];
}

const columns = ["backend", "work", "history", "ours", "raw", "ratio", "target", ""];

export function toTable({ machine, engines, entries, quick }: Report): string {
  const table = new Table({
    head: columns,
    style: { head: [], border: [], compact: true },
    colAligns: ["left", "left", "right", "right", "right", "right", "right", "left"],
  });
  table.push(...entries.map(toRow));
  return [
    machine,
    ...engines.map(describe),
    howMeasured(quick),
    table.toString(),
    ...(entries.some(({ peers }) => peers) ? [toPeerTable(entries, engines)] : []),
  ].join("\n");
}

/** The same as a page of the docs. */
export function toPage({ machine, engines, entries, quick }: Report): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [
    "# Benchmark results",
    "",
    "Written by `pnpm bench`, which is described in [performance.md](../performance.md). Do not edit.",
    "",
    ...[machine, ...engines.map(describe)].map((about) => `- ${about}`),
    "",
    howMeasured(quick),
    "",
    line(columns),
    line(columns.map((_, index) => (index > 1 && index < 7 ? "--:" : "---"))),
    ...entries.map((entry) => line(toRow(entry))),
    ...(entries.some(({ peers }) => peers)
      ? ["", "```text", toPeerTable(entries, engines), "```"]
      : []),
    "",
  ].join("\n");
}

function howMeasured(quick: boolean): string {
  return (
    `Medians (and quartiles), by turns, each work on a backend in one run${quick ? "; --quick: few rounds, more noise" : ""}. ` +
    "Target: the most that ours may be."
  );
}

function toRow(entry: Entry): string[] {
  const { backend, work, history, ours, raw, ratio, target, spread, note = "" } = entry;
  const show = (value: number | null | undefined, name = "") => {
    if (value === null || value === undefined) return "";
    const quartiles = spread?.[name]?.map((one) => format(one, entry.unit));
    return format(value, entry.unit) + (quartiles ? ` (${quartiles.join("–")})` : "");
  };
  return [
    backend,
    work,
    history === null ? "" : history.toLocaleString("en"),
    show(ours, "ours"),
    show(raw, "raw"),
    ratio === null ? "" : `${ratio < 0.1 ? ratio.toPrecision(1) : ratio.toFixed(2)} ×`,
    show(target),
    [misses(entry) ? "MISSED" : "", note].filter((part) => part !== "").join("; "),
  ];
}

/** An engine, and what a write on it survives. */
function describe({ backend, version, durability = {}, skipped }: EngineReport): string {
  if (skipped !== undefined) return `${backend}: SKIPPED: ${skipped}`;
  const settings = Object.entries(durability).map(
    ([name, { survives, settings }]) => `a write of ${name} survives ${survives} (${settings})`,
  );
  return `${backend}: ${version}; ${settings.join(", ")}`;
}

/** What the peers take, how many times ours that is, who takes less than ours, and why others have nothing to show. */
function toPeerTable(entries: readonly Entry[], engines: readonly EngineReport[]): string {
  const names = peersOf(entries);
  const table = new Table({
    head: ["backend", "work", "history", ...names, "ahead"],
    style: { head: [], border: [], compact: true },
    colAligns: ["left", "left", "right", ...names.map(() => "right" as const), "left"],
  });
  const notes: string[] = [];
  const cell = (unit: Entry["unit"], peer: PeerResult | undefined) => {
    if (peer === undefined) return "";
    const { value, ratio, note } = peer;
    if (note !== undefined && !notes.includes(note)) notes.push(note);
    const times = ratio === null ? "" : ` (${Number((1 / ratio).toPrecision(2))} ×)`;
    const mark = note === undefined ? "" : ` [${notes.indexOf(note) + 1}]`;
    return (value === null ? "–" : format(value, unit) + times) + mark;
  };
  for (const entry of entries) {
    const { backend, work, history, unit, peers } = entry;
    if (peers === undefined) continue;
    table.push([
      backend,
      work,
      history === null ? "" : history.toLocaleString("en"),
      ...names.map((name) => cell(unit, peers[name])),
      ahead(entry).join(", ") || "ours",
    ]);
  }
  return [
    "Peers: medians, and how many times ours they are.",
    table.toString(),
    ...notes.map((note, index) => `[${index + 1}] ${note}`),
    ...engines.flatMap(({ backend, without = {} }) =>
      Object.entries(without)
        .filter(([, lacks]) => lacks.length > 0)
        .map(([name, lacks]) => `${name} on ${backend} does without: ${lacks.join("; ")}`),
    ),
  ].join("\n");
}

/** Ours first. */
function peersOf(entries: readonly Entry[]): string[] {
  return [...new Set(entries.flatMap(({ peers = {} }) => Object.keys(peers)))];
}

function format(value: number, unit: Entry["unit"]): string {
  if (unit === "ms") return value < 10 ? `${value.toPrecision(3)} ms` : `${value.toFixed(1)} ms`;
  return value < 100_000 ? `${Math.round(value)} B` : `${(value / 1e6).toFixed(1)} MB`;
}

use([BarChart, GridComponent, LegendComponent, TitleComponent, SVGRenderer]);

/** Works that have a chart, with its title. */
const charted: Readonly<Record<string, string>> = {
  "append-3": "Append a batch of 3",
  "newest-20": "Read the newest 20",
  "page-20": "Read a page of 20 in the middle",
  all: "Read the whole history",
};

/** Works that have one beside the peers. */
const chartedWithPeers = ["append-3", "newest-20"];

/** SVG by name, of those that were measured. */
export function toCharts(entries: readonly Entry[]): ReadonlyMap<string, string> {
  const charts = new Map<string, string>();
  for (const [work, title] of Object.entries(charted)) {
    const shown = entries.filter((entry) => entry.work === work);
    if (shown.length === 0) continue;
    const of = (name: "ours" | "raw") => ({ name, values: shown.map((entry) => entry[name]) });
    charts.set(work, toChart(title, shown, [of("ours"), of("raw")]));
    const series = peersOf(shown).map((name) => ({
      name,
      values: shown.map(({ peers }) => peers?.[name]?.value ?? null),
    }));
    if (series.length > 0 && chartedWithPeers.includes(work)) {
      charts.set(`peers-${work}`, toChart(title, shown, series));
    }
  }
  return charts;
}

function toChart(
  title: string,
  entries: readonly Entry[],
  series: readonly { readonly name: string; readonly values: readonly (number | null)[] }[],
): string {
  const shown = series.flatMap(({ values }) => values.filter((value) => value !== null));
  const floor = 10 ** Math.floor(Math.log10(Math.min(...shown)));
  const chart = init(null, null, { renderer: "svg", ssr: true, width: 960, height: 420 });
  chart.setOption({
    animation: false,
    backgroundColor: "#fff",
    title: {
      text: title,
      subtext: "milliseconds, logarithmic: shorter is better",
      left: 16,
      top: 8,
    },
    legend: { right: 16, top: 12 },
    grid: { left: 64, right: 24, top: 72, bottom: 56 },
    xAxis: {
      type: "category",
      data: entries.map(({ backend, history }) => `${backend}\n${history?.toLocaleString("en")}`),
      axisLabel: { interval: 0, fontSize: 11 },
    },
    // Bars of a logarithmic axis grow from 1, unless told from where.
    yAxis: { type: "log", min: floor, startValue: floor },
    series: series.map(({ name, values }) => ({
      name,
      type: "bar",
      silent: true, // a picture: without styles for a pointer above it
      data: values.map((value) => value && Number(value.toPrecision(4))),
    })),
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return svg;
}
