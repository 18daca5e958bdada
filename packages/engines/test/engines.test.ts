import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { Redis } from "ioredis";
import { describe, expect, onTestFinished, test } from "vitest";
import { EngineMissingError, startProxy, startRedisServer } from "../dist/index.js";
import { withEngine } from "../dist/vitest.js";

const built = new URL("../dist/index.js", import.meta.url).href;

await withEngine(startRedisServer, (server) => {
  const connect = (url: string) => {
    const client = new Redis(url, { retryStrategy: null, maxRetriesPerRequest: 0 });
    client.on("error", () => {});
    onTestFinished(() => client.disconnect());
    return client;
  };

  test.each(["SIGKILL", "SIGINT", "SIGTERM"] as const)(
    "a process ended by %s leaves no server and no folder behind, not even a stopped one",
    async (signal) => {
      const source = `import { startRedisServer } from ${JSON.stringify(built)};
        const servers = await Promise.all([startRedisServer(), startRedisServer()]);
        servers[1].process.freeze();
        console.log(JSON.stringify(servers.map(({ url, process }) => ({ url, pid: process.pid }))));
        setInterval(() => {}, 1000);`;
      const child = spawn(process.execPath, ["--input-type=module", "--eval", source]);
      const [line] = (await once(child.stdout, "data")) as [Buffer];
      const [running] = JSON.parse(line.toString()) as [{ url: string }];
      const [, folder] = (await connect(running.url).config("GET", "dir")) as [string, string];
      const servers = JSON.parse(line.toString()) as { pid: number }[];
      child.kill(signal);
      await expect
        .poll(() => servers.filter(({ pid }) => isAlive(pid)), { timeout: 10_000 })
        .toEqual([]);
      await expect.poll(() => existsSync(folder), { timeout: 10_000 }).toBe(false);
    },
  );

  test("a process that forgets its server can end", async () => {
    const source = `import { startRedisServer } from ${JSON.stringify(built)}; await startRedisServer();`;
    const child = spawn(process.execPath, ["--input-type=module", "--eval", source]);
    expect(await once(child, "close")).toEqual([0, null]);
  });

  test("a killed server comes back with its data at its address", async () => {
    const own = await startRedisServer({ appendfsync: "always" });
    onTestFinished(() => own.stop());
    await connect(own.url).set("greeting", "hello");
    await own.process.kill();
    await own.process.start();
    expect(await connect(own.url).get("greeting")).toBe("hello");
  });

  describe("the proxy", () => {
    const behindProxy = async () => {
      const proxy = await startProxy(server.url);
      onTestFinished(() => proxy.stop());
      const client = connect(proxy.url);
      await client.ping();
      return { proxy, client };
    };

    test("counts round trips, what is sent together as one", async () => {
      const { proxy, client } = await behindProxy();
      const before = proxy.roundTrips;
      await client.ping();
      await client.pipeline([["ping"], ["ping"], ["ping"]]).exec();
      expect(proxy.roundTrips - before).toBe(2);
    });

    test.each([
      ["before the request", null],
      ["after the request", "yes"],
      ["in the reply", "yes"],
    ] as const)("breaks a connection %s", async (cut, stored) => {
      const { proxy, client } = await behindProxy();
      const name = cut.replaceAll(" ", "-");
      const happened = proxy.cutNext(cut, name);
      await client.ping();
      await expect(client.set(name, "yes")).rejects.toThrow();
      await happened;
      expect(await connect(proxy.url).get(name)).toBe(stored);
    });

    test("swallows everything, and is well again", async () => {
      const { proxy, client } = await behindProxy();
      proxy.blackHole();
      const reply = client.ping();
      const silence = new Promise((resolve) => setTimeout(resolve, 200, "silence"));
      expect(await Promise.race([reply, silence])).toBe("silence");
      proxy.heal();
      await expect(reply).rejects.toThrow();
      expect(await connect(proxy.url).ping()).toBe("PONG");
    });
  });
});

test("an engine that must be there and is not fails its tests", async () => {
  const before = process.env["CHATSTORE_REQUIRE_ENGINES"];
  process.env["CHATSTORE_REQUIRE_ENGINES"] = "redis, postgres";
  onTestFinished(() => {
    if (before === undefined) delete process.env["CHATSTORE_REQUIRE_ENGINES"];
    else process.env["CHATSTORE_REQUIRE_ENGINES"] = before;
  });
  const start = () => Promise.reject(new EngineMissingError("postgres", "install it"));
  await expect(withEngine(start, () => {})).rejects.toThrow("install it");
});

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}
