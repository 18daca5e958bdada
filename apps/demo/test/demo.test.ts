import { once } from "node:events";
import { cp, mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { memoryChatStore, sessionKey } from "@chatstore/core";
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { IndexError, indexFolder, loadIndex } from "../src/knowledge.js";
import { OfflineModel } from "../src/model.js";
import { createApp } from "../src/server.js";
import { DemoServer, type Message, Visitor } from "./demo-server.js";

let temporary: string;
let data: string;
let env: NodeJS.ProcessEnv;
let count = 0;

beforeAll(async () => {
  temporary = await mkdtemp(join(tmpdir(), "chatstore-demo-"));
});
beforeEach(() => {
  data = join(temporary, String(++count));
  env = { DEMO_DATA: data };
});
afterAll(() => rm(temporary, { recursive: true }));

const textOf = ({ content }: Message) =>
  typeof content === "string" ? content : content.map(({ text }) => text).join("");
/** The conversation in what the model was given: all but the retrieved passages. */
const spoken = (messages: readonly Message[]) =>
  messages
    .filter(({ role }) => role !== "system")
    .map((message) => ({ role: message.role, content: textOf(message) }));

describe("memory", () => {
  it("outlives kill -9: the next process gives the model all that was said", async () => {
    const visitor = new Visitor();
    const first = await DemoServer.start(env);
    const id = await visitor.begin(first);
    const said: { role: string; content: string }[] = [];
    for (const question of ["My dog's name is Bo.", "Which backend should I choose?"]) {
      const { text } = await visitor.say(first, id, question);
      said.push({ role: "user", content: question }, { role: "assistant", content: text });
    }
    await first.stop("SIGKILL");

    await using second = await DemoServer.start(env);
    const question = "What did I ask before?";
    const answer = await visitor.say(second, id, question);
    expect(answer.process).not.toBe(first.pid);
    expect(spoken(answer.given)).toEqual([...said, { role: "user", content: question }]);
    expect(answer.text).toContain("“My dog's name is Bo.”");
    expect(answer.text).toContain("“Which backend should I choose?”");
    expect((await visitor.say(second, id, "What is my dog's name?")).text).toContain("Bo");
  });

  it("keeps the question when the process is killed in the middle of the answer", async () => {
    const visitor = new Visitor();
    const first = await DemoServer.start(env);
    const id = await visitor.begin(first);
    const response = await visitor.request(first, "POST", `/api/sessions/${id}/messages`, {
      message: "Why does chat memory get lost?",
    });
    await response.body?.getReader().read();
    await first.stop("SIGKILL");

    await using second = await DemoServer.start(env);
    const { given } = await visitor.say(second, id, "What did I ask before?");
    expect(spoken(given).map(({ content }) => content)).toEqual([
      "Why does chat memory get lost?",
      "What did I ask before?",
    ]);
  });

  it("keeps what was said until the visitor stopped the answer", async () => {
    const visitor = new Visitor();
    await using server = await DemoServer.start(env);
    const id = await visitor.begin(server);
    const stopper = new AbortController();
    const response = await visitor.request(
      server,
      "POST",
      `/api/sessions/${id}/messages`,
      { message: "Why does chat memory get lost?" },
      { signal: stopper.signal },
    );
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ""; !text.includes("event: text"); ) text += (await reader?.read())?.value;
    stopper.abort();

    await expect
      .poll(async () => (await visitor.messages(server, id))[1])
      .toMatchObject({ role: "assistant", annotations: [{ partial: true }] });
    const [, partial] = await visitor.messages(server, id);
    const whole = await visitor.say(server, id, "Why does chat memory get lost?");
    const said = textOf(partial as Message);
    expect(said.length).toBeGreaterThan(0);
    expect(said.length).toBeLessThan(whole.text.length);
    expect(whole.text.startsWith(said)).toBe(true);
  });

  it("is the same in four workers behind one port, also after two of them are killed", {
    timeout: 90_000,
  }, async () => {
    await using server = await DemoServer.start({ ...env, WORKERS: "4" });
    const visitors = [new Visitor(), new Visitor(), new Visitor()];
    const processes = new Set<number>();
    await Promise.all(
      visitors.map(async (visitor, index) => {
        const id = await visitor.begin(server);
        const questions: string[] = [];
        for (let turn = 1; turn <= 8; turn++) {
          questions.push(`My number is ${index}${turn}.`);
          const answer = await visitor.say(server, id, questions.at(-1) as string);
          processes.add(answer.process);
          const asked = spoken(answer.given).filter(({ role }) => role === "user");
          expect(asked.map(({ content }) => content)).toEqual(questions);
        }
      }),
    );
    expect(processes.size).toBeGreaterThan(1);

    const visitor = visitors[0] as Visitor;
    const id = await visitor.begin(server);
    await visitor.say(server, id, "My name is Ada.");
    const [one, two] = [...processes];
    process.kill(one as number, "SIGKILL");
    process.kill(two as number, "SIGKILL");
    await expect.poll(() => server.output.match(/ended: starting another one/g)).toHaveLength(2);
    for (let turn = 1; turn <= 8; turn++) {
      const answer = await visitor.say(server, id, "What is my name?");
      expect(answer.text).toBe("You told me: your name is Ada.");
      expect([one, two]).not.toContain(answer.process);
    }
    expect(await server.stop("SIGTERM")).toBe(0);
  });

  it.each(["CHATSTORE_URL", "chatstore.config.ts"])("is stored where %s says", async (how) => {
    const folder = await mkdtemp(join(temporary, "config-"));
    const dir = join(folder, "elsewhere");
    let cwd: string | undefined;
    if (how === "CHATSTORE_URL") env["CHATSTORE_URL"] = pathToFileURL(dir).href;
    else {
      const backend = fileURLToPath(import.meta.resolve("@chatstore/file"));
      const config = JSON.stringify({ backend, dir });
      await writeFile(join(folder, how), `export default ${config} as const;`);
      cwd = folder;
    }
    const visitor = new Visitor();
    const first = await DemoServer.start(env, cwd);
    const id = await visitor.begin(first);
    await visitor.say(first, id, "My name is Ada.");
    await first.stop("SIGKILL");
    expect(await readdir(dir)).not.toEqual([]);
    expect(await readdir(data)).toEqual([expect.stringMatching(/^index-/)]);

    await using second = await DemoServer.start(env, cwd);
    expect((await visitor.say(second, id, "What is my name?")).text).toContain("Ada");
  });
});

describe("a visitor", () => {
  let server: DemoServer;
  beforeAll(async () => {
    server = await DemoServer.start({ DEMO_DATA: join(temporary, "visitors") });
    return () => server.stop("SIGKILL");
  });

  it("sees and changes no conversation of another one", async () => {
    const ada = new Visitor();
    const bob = new Visitor();
    const id = await ada.begin(server, "Ada's");
    await ada.say(server, id, "My secret is 42.");

    expect(await bob.get(server, "/api/sessions")).toEqual({ sessions: [] });
    const path = `/api/sessions/${id}`;
    const tries = [
      await bob.request(server, "GET", `${path}/messages`),
      await bob.request(server, "POST", `${path}/messages`, { message: "What is my secret?" }),
      await bob.request(server, "PATCH", path, { title: "Bob's" }),
    ];
    expect(tries.map(({ status }) => status)).toEqual([404, 404, 404]);
    await bob.request(server, "DELETE", path);
    await bob.request(server, "DELETE", "/api/me");
    expect(await ada.messages(server, id)).toHaveLength(2);
    expect(await ada.get(server, "/api/sessions")).toMatchObject({
      sessions: [{ id, title: "Ada's", messageCount: 2 }],
    });
  });

  it("renames and deletes a conversation, and erases all", async () => {
    const visitor = new Visitor();
    const [first, second, third] = [
      await visitor.begin(server),
      await visitor.begin(server),
      await visitor.begin(server),
    ];
    await visitor.request(server, "PATCH", `/api/sessions/${first}`, { title: "Renamed" });
    await visitor.request(server, "DELETE", `/api/sessions/${second}`);
    expect(await visitor.get(server, "/api/sessions")).toMatchObject({
      sessions: [{ id: first, title: "Renamed" }, { id: third }],
    });
    const erased = await visitor.request(server, "DELETE", "/api/me");
    expect(await erased.json()).toEqual({ erased: 2 });
    expect(await visitor.get(server, "/api/sessions")).toEqual({ sessions: [] });
  });

  it.each([
    ["an empty message", { message: " " }, {}, 400],
    ["a message that is no text", { message: 1 }, {}, 400],
    ["a message that is too long", { message: "x".repeat(8_001) }, {}, 400],
    ["more than a request may carry", { message: "x".repeat(70_000) }, {}, 413],
    ["no JSON", { message: "Hi" }, { "Content-Type": "text/plain" }, 400],
  ])("is told what is wrong with %s", async (_, body, headers, status) => {
    const visitor = new Visitor();
    const id = await visitor.begin(server);
    const path = `/api/sessions/${id}/messages`;
    const response = await visitor.request(server, "POST", path, body, { headers });
    expect(response.status).toBe(status);
    expect(await response.json()).toMatchObject({ message: expect.any(String) });
    expect(await visitor.messages(server, id)).toEqual([]);
  });

  it("gets the page with all that it loads, and a policy that lets it load nothing else", async () => {
    const visitor = new Visitor();
    const response = await visitor.request(server, "GET", "/");
    expect(response.headers.get("content-security-policy")).toContain("default-src 'none'");
    expect(response.headers.getSetCookie()[0]).toMatch(/HttpOnly; SameSite=Strict/);
    const page = await response.text();
    const script = await (await visitor.request(server, "GET", "/app.js")).text();
    const files = [
      ...page.matchAll(/(?:href|src)="([^"#]+)/g),
      ...script.matchAll(/from "([^"]+)"/g),
    ].map(([, path]) => new URL(path as string, server.url).pathname);
    expect(files).toContain("/vendor/marked.js");
    for (const file of new Set(files)) {
      const { status, headers } = await visitor.request(server, "GET", file);
      expect([file, status]).toEqual([file, 200]);
      expect(headers.get("content-type")).toMatch(/javascript|css|svg/);
    }
  });

  it("cannot come in under a foreign host name", async () => {
    // fetch() does not let a program say a Host of its own.
    const { port } = new URL(server.url);
    const [response] = await once(
      request({
        port,
        host: "127.0.0.1",
        path: "/api/server",
        headers: { Host: "evil.example" },
      }).end(),
      "response",
    );
    response.resume();
    expect(response.statusCode).toBe(403);
  });
});

it("tells the visitor that the model failed, and keeps the question and what was said", async () => {
  class FailingModel extends OfflineModel {
    override async chat(): Promise<never> {
      async function* fail() {
        yield { delta: "I think ", raw: null };
        throw new Error("the model's own secret");
      }
      return fail() as never;
    }
  }
  const log = vi.spyOn(console, "error").mockReturnValue();
  const index = await loadIndex(await indexFolder(data));
  await using store = memoryChatStore();
  const app = createApp({ store, index, model: new FailingModel(), workers: 1 });
  const key = sessionKey({ tenant: "demo", user: "ada", conversation: "one" });
  await store.setTitle(key, "One");

  const response = await app.request("http://localhost/api/sessions/one/messages", {
    method: "POST",
    headers: { "Content-Type": "application/json", Cookie: "chatstore_demo_user=ada" },
    body: JSON.stringify({ message: "Hello" }),
  });
  const events = await response.text();
  expect(events).toContain('event: error\ndata: {"status":500');
  expect(events).not.toContain("secret");
  expect(log.mock.lastCall?.[0]).toMatchObject({ message: "the model's own secret" });
  expect(await store.getMessages(key)).toMatchObject([
    { role: "user", content: "Hello" },
    { role: "assistant", content: "I think ", annotations: [{ partial: true }] },
  ]);
});

describe("start-up fails, and says what to do, when", () => {
  it("CHATSTORE_URL has an unknown scheme", async () => {
    const output = await DemoServer.startInVain({ ...env, CHATSTORE_URL: "oracle://me:secret@db" });
    expect(output).toMatch(/BackendNotInstalledError: .*chatstore-oracle/s);
    expect(output).not.toContain("secret");
  });

  it("the backend is not installed", async () => {
    const folder = await mkdtemp(join(temporary, "missing-"));
    await writeFile(
      join(folder, "chatstore.config.json"),
      JSON.stringify({ backend: "chatstore-backend-that-nobody-wrote" }),
    );
    expect(await DemoServer.startInVain(env, folder)).toContain(
      "Run: npm install chatstore-backend-that-nobody-wrote",
    );
  });

  it("the store cannot be opened", async () => {
    const url = `sqlite:${join(data, "no", "such", "folder", "chat.db")}`;
    expect(await DemoServer.startInVain({ ...env, CHATSTORE_URL: url })).toMatch(/^\w+Error: /);
  });

  it("several workers cannot share the store", async () => {
    const output = await DemoServer.startInVain({ ...env, WORKERS: "2", CHATSTORE_URL: "memory:" });
    expect(output).toContain("WORKERS=2 needs a store that several processes can share");
  });

  it.each([
    ["claude:opus", 'DEMO_MODEL is "claude:opus"'],
    ["openai:gpt-4o-mini", "needs the environment variable OPENAI_API_KEY"],
  ])("DEMO_MODEL is %s", async (model, message) => {
    expect(await DemoServer.startInVain({ ...env, DEMO_MODEL: model })).toContain(message);
  });

  it("the port is taken", async () => {
    const other = createServer().listen(0, "127.0.0.1");
    await once(other, "listening");
    const { port } = other.address() as AddressInfo;
    const output = await DemoServer.startInVain({ ...env, PORT: String(port) });
    expect(output).toContain(`Port ${port} is taken. Set PORT to another one`);
    other.close();
  });
});

describe("the index", () => {
  let whole: string;
  beforeAll(async () => {
    whole = await indexFolder(join(temporary, "index"));
    await loadIndex(whole);
  });

  const names = ["doc_store.json", "index_store.json", "vector_store.json"];
  const damages: Record<string, (path: string) => Promise<void>> = {
    missing: (path) => rm(path),
    empty: (path) => truncate(path, 0),
    truncated: (path) => truncate(path, 1_000),
    "an empty object": (path) => writeFile(path, "{}"),
    "short of one node": async (path) => {
      const text = await readFile(path, "utf8");
      const id = /[0-9a-f-]{36}(?=":\{"(?:__data__|id_)|":\[)/.exec(text)?.[0] as string;
      await writeFile(path, text.replaceAll(id, "another-node"));
    },
  };
  const cases = names.flatMap((name) =>
    Object.keys(damages).map((damage) => [name, damage] as const),
  );

  it.each(cases)("is refused when %s is %s", async (name, damage) => {
    const folder = await indexFolder(data);
    await cp(whole, folder, { recursive: true });
    await damages[damage]?.(join(folder, name));
    const error = await loadIndex(folder).catch((reason) => reason);
    expect(error).toBeInstanceOf(IndexError);
    expect(error.message).toContain(name);
    expect(error.message).toContain("--filter @chatstore/demo run index");
  });

  it("is built whole when several servers start at once for the first time", async () => {
    const folder = await indexFolder(data);
    const indexes = await Promise.all([1, 2, 3].map(() => loadIndex(folder)));
    for (const index of indexes) {
      const [found] = await index.asRetriever().retrieve({ query: "What is flush?" });
      expect(found?.node.metadata).toMatchObject({ source: "using-chatstore-with-llamaindex.md" });
    }
    expect(await readdir(data)).toHaveLength(1);
  });

  it("stops the server at start-up when it is damaged, and serves again once it is rebuilt", async () => {
    const folder = await indexFolder(data);
    await cp(whole, folder, { recursive: true });
    await rm(join(folder, "vector_store.json"));
    const output = await DemoServer.startInVain(env);
    expect(output).toMatch(/^IndexError: .*vector_store\.json cannot be read\. Build the index/);

    await DemoServer.rebuildIndex(env);
    await using server = await DemoServer.start(env);
    const visitor = new Visitor();
    const answer = await visitor.say(server, await visitor.begin(server), "What is flush?");
    expect(answer.text).toContain("using-chatstore-with-llamaindex.md");
  });
});

it("finishes the running answer before it stops", async () => {
  await using server = await DemoServer.start(env);
  const visitor = new Visitor();
  const id = await visitor.begin(server);
  const response = await visitor.request(server, "POST", `/api/sessions/${id}/messages`, {
    message: "Why does chat memory get lost?",
  });
  const stopped = server.stop("SIGTERM");
  expect(await response.text()).toContain("event: done");
  expect(await stopped).toBe(0);
});
