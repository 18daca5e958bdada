/**
 * Outlives the process that started it and then ends what that left behind: its standard input ends when that process
 * does, however it does. Reads lines: `+pid signal`, `-pid`, and the path of a temporary folder.
 */
import { rmSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";

const signals = new Map<number, NodeJS.Signals>();
const folders = new Set<string>();

// Whoever ends everything at once would otherwise end this first.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => {});

for await (const line of createInterface({ input: process.stdin })) {
  const [pid, signal] = line.slice(1).split(" ");
  if (line.startsWith("+")) signals.set(Number(pid), signal as NodeJS.Signals);
  else if (line.startsWith("-")) signals.delete(Number(pid));
  else folders.add(line);
}

// In good order first: PostgreSQL then frees its shared memory. A stopped process has to be woken for that.
for (const [pid, signal] of signals) {
  send(pid, signal);
  send(pid, "SIGCONT");
}
for (let waited = 0; waited < 3_000 && [...signals.keys()].some((pid) => send(pid, 0)); ) {
  waited += await delay(50, 50);
}
for (const pid of signals.keys()) send(pid, "SIGKILL");
for (const folder of folders) {
  rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
}

/** Whether the process was there. */
function send(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, signal);
  } catch {
    return false;
  }
}
