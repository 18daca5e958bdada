import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { TimeoutError } from "@chatstore/core";
import { afterAll, describe, expect, onTestFinished, test } from "vitest";
import { Locks } from "../dist/lock.js";

const root = await mkdtemp(join(tmpdir(), "chatstore-lock-"));
afterAll(() => rm(root, { recursive: true }));

let folders = 0;
const newFolder = () => join(root, `${folders++}`);

function open(folder: string): Locks {
  const locks = new Locks(folder);
  onTestFinished(() => locks.close());
  return locks;
}

const take = (locks: Locks, milliseconds: number) =>
  locks.hold("a", AbortSignal.timeout(milliseconds), async () => "taken");

/** Another process, which holds the lock until it dies. */
async function otherProcess(folder: string, shell = (command: string) => `exec ${command}`) {
  const module = new URL("../dist/lock.js", import.meta.url).href;
  const script = `
    import { Locks } from "${module}";
    await new Locks("${folder}").hold("a", new AbortController().signal, async () => {
      console.log(process.pid);
      await new Promise((resolve) => setTimeout(resolve, 60_000));
    });`;
  const command = `"${process.execPath}" --input-type=module --eval '${script}'`;
  const child = spawn("sh", ["-c", shell(command)], { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit");
  onTestFinished(async () => {
    child.kill("SIGKILL");
    await exited;
  });
  const pid = await Promise.race([
    once(child.stdout, "data").then(([output]) => Number(output)),
    exited.then(([code]) => Promise.reject(new Error(`The other process ended: ${code}`))),
  ]);
  return { pid, exited };
}

describe("a holder that was killed", () => {
  test("loses its lock at once, and leaves nothing", async () => {
    const folder = newFolder();
    const { pid, exited } = await otherProcess(folder);
    process.kill(pid, "SIGKILL");
    await exited;
    const locks = open(folder);
    expect(await take(locks, 5_000)).toBe("taken");
    await locks.sweep();
    expect(await readdir(folder)).toHaveLength(1); // our own claim
  });

  test.runIf(process.platform === "linux")("loses it also while nobody reaps it", async () => {
    const folder = newFolder();
    const { pid } = await otherProcess(folder, (command) => `${command} & exec sleep 60`);
    process.kill(pid, "SIGKILL");
    expect(await take(open(folder), 5_000)).toBe("taken");
  });

  test("is succeeded by one at a time, whoever wants it and dies in turn", async () => {
    for (let round = 0; round < 30; round++) {
      const folder = newFolder();
      const self = await identity(folder);
      const dead = { ...self, start: "another" };
      for (let generation = 0; generation <= round % 3; generation++) {
        const name = generation === 0 ? "a.lock" : `a.dead${generation - 1}.lock`;
        await writeFile(join(folder, name), JSON.stringify({ ...dead, id: `dead${generation}` }));
      }
      let inside = 0;
      let most = 0;
      let taken = 0;
      const enter = async () => {
        most = Math.max(most, ++inside);
        await delay(Math.random() * 3);
        inside--;
        taken++;
      };
      const all = Array.from({ length: 8 }, () => open(folder));
      await Promise.all(all.map((locks) => locks.hold("a", AbortSignal.timeout(20_000), enter)));
      expect({ most, taken }).toEqual({ most: 1, taken: 8 });
      expect((await readdir(folder)).filter((name) => name.endsWith(".lock"))).toEqual([]);
    }
  });
});

describe("a holder that may live", () => {
  test("keeps its lock while it is stopped", async () => {
    const folder = newFolder();
    const { pid, exited } = await otherProcess(folder);
    process.kill(pid, "SIGSTOP");
    const locks = open(folder);
    // As core waits for it: one turn of the event loop longer than until the signal aborts.
    const controller = new AbortController();
    const aborted = new Promise((_, reject) => {
      setTimeout(() => {
        controller.abort();
        setImmediate(() => reject(new Error("It did not say why in time")));
      }, 1_500);
    });
    const taken = locks.hold("a", controller.signal, async () => "taken");
    const error = await Promise.race([taken, aborted]).catch((reason: TimeoutError) => reason);
    expect(error).toMatchObject({ code: "TIMEOUT", retryable: true, outcome: "not-applied" });
    expect(String(error)).toContain(`process ${pid}`);
    expect(String(error)).toContain(join(folder, "a.lock"));
    process.kill(pid, "SIGKILL");
    await exited;
    expect(await take(locks, 5_000)).toBe("taken");
  });

  test.each([
    ["on another host", { host: "other", boot: "other" }, false],
    ["before this host was restarted", { boot: "other" }, true],
    ["in another container", { pidNamespace: "pid:[1]" }, false],
    ["with the pid of a process that began later", { start: "other" }, true],
    ["that is this process", {}, false],
    ["that another user runs", { pid: 1, start: "" }, false],
  ])("%s", async (_, difference, hasDied) => {
    const folder = newFolder();
    const self = await identity(folder);
    // What tells a restart, and a container, is known on Linux only.
    if (self["boot"] === "" && ("boot" in difference || "pidNamespace" in difference)) return;
    const other = { ...self, ...difference, id: "other" };
    await writeFile(join(folder, "a.lock"), JSON.stringify(other));
    const outcome = await take(open(folder), 600).catch(({ code }: TimeoutError) => code);
    expect(outcome).toBe(hasDied ? "taken" : "TIMEOUT");
  });

  test("is not guessed at", async () => {
    const folder = newFolder();
    await identity(folder);
    await writeFile(join(folder, "a.lock"), "");
    await expect(take(open(folder), 600)).rejects.toMatchObject({ code: "TIMEOUT" });
  });
});

test.each([1, 300])("who takes it for %i ms again and again lets others have it", async (time) => {
  const folder = newFolder();
  const [busy, patient] = [open(folder), open(folder)];
  let done = false;
  const loop = (async () => {
    while (!done) await busy.hold("a", AbortSignal.timeout(20_000), () => delay(time));
  })();
  await delay(100);
  const outcomes: string[] = [];
  for (let n = 0; n < 3; n++) {
    outcomes.push(await take(patient, 2_500).catch(({ code }: TimeoutError) => code));
  }
  done = true;
  await loop;
  expect(outcomes).toEqual(["taken", "taken", "taken"]);
  expect((await readdir(folder)).filter((name) => !name.endsWith(".holder"))).toEqual([]);
});

test("somebody who cleans up below us does not stop us", async () => {
  const folder = newFolder();
  const locks = open(folder);
  await take(locks, 1_000);
  await rm(folder, { recursive: true });
  expect(await take(locks, 1_000)).toBe("taken");
});

test("the clock is the file system's, and runs between its ticks", async () => {
  const locks = open(newFolder());
  const times: number[] = [];
  for (let n = 0; n < 20; n++) {
    times.push(await locks.now());
    await delay(2);
  }
  expect(times).toEqual(times.toSorted((a, b) => a - b));
  expect(new Set(times).size).toBe(20);
  expect(Math.abs((times[0] ?? 0) - Date.now())).toBeLessThan(2_000);
});

/** What this process says of itself in a folder. */
async function identity(folder: string): Promise<Record<string, unknown>> {
  const locks = open(folder);
  await locks.now();
  const [claim = ""] = await readdir(folder);
  return JSON.parse(await readFile(join(folder, claim), "utf8"));
}
