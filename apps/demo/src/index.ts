import cluster from "node:cluster";
import { once } from "node:events";
import { mkdir } from "node:fs/promises";
import type { Server } from "node:http";
import { ChatStoreError } from "@chatstore/core";
import { createAdaptorServer } from "@hono/node-server";
import getPort, { portNumbers } from "get-port";
import { openStore, readSettings, SettingError, type Settings } from "./config.js";
import { IndexError, indexFolder, loadIndex, rebuildIndex } from "./knowledge.js";
import { loadModel, ModelError } from "./model.js";
import { createApp, type Demo } from "./server.js";

const hostname = "127.0.0.1";
const defaultPorts = portNumbers(3210, 3299);
/** Milliseconds that running requests get to finish. */
const longestStop = 10_000;

try {
  await main();
} catch (error) {
  // What the person at the terminal can put right needs no stack trace.
  const known = [ChatStoreError, IndexError, ModelError, SettingError];
  console.error(known.some((type) => error instanceof type) ? String(error) : error);
  process.exit(1);
}

async function main(): Promise<void> {
  const settings = readSettings(process.env);
  await mkdir(settings.dataFolder, { recursive: true });
  if (process.argv[2] === "index") {
    const folder = await indexFolder(settings.dataFolder);
    await rebuildIndex(folder);
    console.log(`Built the index in ${folder}`);
  } else if (cluster.isWorker) {
    await serve(await openDemo(settings), settings.port ?? 0);
  } else {
    const port = await findPort(settings.port);
    const demo = await openDemo(settings);
    if (settings.workers === 1) await serve(demo, port);
    else await startWorkers(demo, port);
    console.log(
      `Chatstore demo: ${demo.store.name} store, ${settings.model} model, ` +
        `${settings.workers === 1 ? "one server process" : `${settings.workers} server processes`}, data in ${settings.dataFolder}\n\n` +
        "Kill the server with Ctrl-C, start it again, and ask: what did I ask before?\n\n" +
        `Open http://${hostname}:${port}`,
    );
  }
}

/** All that can fail, fails here: before anybody is served. */
async function openDemo(settings: Settings): Promise<Demo> {
  const model = await loadModel(settings.model);
  const index = await loadIndex(await indexFolder(settings.dataFolder));
  const store = await openStore(settings.dataFolder);
  if (settings.workers > 1 && !store.capabilities.multiProcess) {
    throw new SettingError(
      `WORKERS=${settings.workers} needs a store that several processes can share, and ${store.name} is none`,
    );
  }
  return { store, index, model, workers: settings.workers };
}

async function findPort(wanted: number | undefined): Promise<number> {
  const port = await getPort({ port: wanted ?? defaultPorts, host: hostname });
  if (wanted && port !== wanted) {
    throw new SettingError(`Port ${wanted} is taken. Set PORT to another one`);
  }
  return port;
}

async function serve(demo: Demo, port: number): Promise<void> {
  const server = createAdaptorServer({ fetch: createApp(demo).fetch }) as Server;
  server.listen(port, hostname);
  await once(server, "listening");
  onStop(async () => {
    server.keepAliveTimeout = 1; // a connection ends with the request that it is busy with
    server.close();
    await once(server, "close");
    await demo.store.close();
  });
}

/** Several processes behind one port. Each request may land on any of them. */
async function startWorkers(demo: Demo, port: number): Promise<void> {
  await demo.store.close(); // it opened: the workers' own will, too
  let stopping = false;
  const start = async () => {
    const worker = cluster.fork({ PORT: port });
    const ended = once(worker, "exit").then(() => {
      if (!stopping) throw new Error("A server process ended before it could serve");
    });
    await Promise.race([once(worker, "listening"), ended]);
  };
  await Promise.all(Array.from({ length: demo.workers }, start));
  cluster.on("exit", async (worker) => {
    if (stopping) return;
    console.error(`Server process ${worker.process.pid} ended: starting another one`);
    await start();
  });
  onStop(async () => {
    stopping = true;
    const workers = Object.values(cluster.workers ?? {}).filter((worker) => worker !== undefined);
    await Promise.all(
      workers.map((worker) => {
        worker.process.kill("SIGTERM");
        return once(worker, "exit");
      }),
    );
  });
}

/** Do this once when the process is asked to end, then end it. */
function onStop(stop: () => Promise<void>): void {
  let stopping = false;
  const onSignal = async () => {
    if (stopping) return; // Ctrl-C reaches a worker twice: from the terminal, and through the primary
    stopping = true;
    setTimeout(() => process.exit(1), longestStop).unref();
    await stop();
    process.exit(0);
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
}
