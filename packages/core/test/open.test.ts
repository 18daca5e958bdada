import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { expect, onTestFinished, test, vi } from "vitest";
import {
  createChatStore,
  InvalidOptionsError,
  MemoryBackend,
  memoryChatStore,
  openChatStore,
  sessionKey,
} from "../src/index.ts";

const key = sessionKey({ user: "alice" });
const core = new URL("../dist/index.js", import.meta.url).href;
const sound = `export { memoryChatStore as default } from "${core}";`;

/** An application outside this workspace, with these files. */
function application(files: Readonly<Record<string, string | object>>): string {
  const folder = mkdtempSync(join(tmpdir(), "chatstore-open-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  for (const [name, content] of Object.entries(files)) {
    const path = join(folder, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, typeof content === "string" ? content : JSON.stringify(content));
  }
  return folder;
}

/** A package for `import` only, as most are that have no CommonJS build. */
function packageOf(name: string, module: string): Record<string, string | object> {
  return {
    [`node_modules/${name}/package.json`]: { name, type: "module", exports: { import: "./i.js" } },
    [`node_modules/${name}/i.js`]: module,
  };
}

/** What `openChatStore` gives in a process of its own: the store's name, or its error. */
async function opened(
  source: string | object,
  { folder, cwd = folder, env = {} }: { folder: string; cwd?: string; env?: object },
): Promise<string> {
  const main = join(folder, "main.mjs");
  writeFileSync(
    main,
    `import { openChatStore } from "${core}";
    try { console.log("opened", (await openChatStore(...${JSON.stringify([source])})).name); }
    catch (error) { console.log(error.code, error.message, error.cause?.message ?? ""); }`,
  );
  const { stdout } = await promisify(execFile)(process.execPath, [main], {
    cwd,
    env: { ...process.env, NODE_PATH: "", ...env },
  });
  return stdout.trim();
}

test("opens by URL, by configuration, by CHATSTORE_URL, and with a factory", async () => {
  const one = await openChatStore("memory:shelf");
  await one.addMessage(key, { role: "user", content: "kept" });
  const url = "memory:shelf";
  for (const source of [
    { backend: "memory", name: "shelf" },
    { url },
    { backend: memoryChatStore, url },
  ]) {
    expect(await (await openChatStore(source)).getMessages(key)).toHaveLength(1);
  }
  vi.stubEnv("CHATSTORE_URL", url);
  onTestFinished(() => void vi.unstubAllEnvs());
  expect(await (await openChatStore()).getMessages(key)).toHaveLength(1);
});

test("a backend of anybody's is found by its scheme or its name, in the application", async () => {
  const folder = application({
    ...packageOf("chatstore-duck", sound),
    ...packageOf("@acme/store", sound),
    "node_modules/chatstore-old/package.json": { main: "./lib/old.js" },
    "node_modules/chatstore-old/lib/old.js": `
      Object.defineProperty(exports, "__esModule", { value: true });
      exports.default = (options) => globalThis.make(options);`,
    "node_modules/chatstore-either/package.json": {
      exports: { ".": [{ deno: "./no.js", node: { require: "./no.js", default: "./i.mjs" } }] },
    },
    "node_modules/chatstore-either/i.mjs": sound,
    "own/store.mjs": sound,
    "setup.mjs": `import { memoryChatStore } from "${core}"; globalThis.make = memoryChatStore;`,
  });
  for (const source of [
    "duck://me:secret@host/db",
    "duck+tls://host",
    "duck:./file.db",
    { backend: "duck" },
    { backend: "chatstore-duck" },
    { backend: "@acme/store" },
    "either://host",
    "old://host",
    { backend: "./own/store.mjs" },
    { backend: join(folder, "own/store.mjs") },
  ]) {
    const env = { NODE_OPTIONS: `--import=${join(folder, "setup.mjs")}` };
    expect(await opened(source, { folder, env }), JSON.stringify(source)).toBe("opened memory");
  }
  // A service is often started from elsewhere.
  expect(await opened("duck://host", { folder, cwd: tmpdir() })).toBe("opened memory");
  // A strict package manager links core and the command; the application is where it is run.
  const elsewhere = application({});
  expect(await opened("duck://host", { folder: elsewhere, cwd: folder })).toBe("opened memory");
});

test("our own package goes before another one of the same scheme", async () => {
  const folder = application({
    ...packageOf("chatstore-redis", "export default () => { throw new Error('the other') };"),
    ...packageOf("@chatstore/redis", sound),
  });
  expect(await opened("rediss://host", { folder })).toBe("opened memory");
});

test("what is the matter with a package is told apart", async () => {
  const folder = application({
    ...packageOf("chatstore-broken", `import "a-driver-that-is-missing"; ${sound}`),
    ...packageOf("chatstore-unbuilt", sound),
    "node_modules/chatstore-unbuilt/package.json": { exports: "./dist/index.js" },
    ...packageOf("chatstore-driver", "export default {};"),
    ...packageOf("mysql", "export default {};"),
    ...packageOf("chatstore-late", `export default async () => ({});`),
    ...packageOf("chatstore-older", `export default () => ({ open() {}, getMessages() {} });`),
  });
  const cases: readonly (readonly [string | object, ...RegExp[]])[] = [
    [
      "redis://me:secret@localhost",
      /^BACKEND_NOT_INSTALLED .*npm install @chatstore\/redis\./,
      /the working directory \(.*, @chatstore\/core \(/,
      /openChatStore\({ backend: redisChatStore/,
    ],
    [
      "mysql://me:secret@host/db",
      /^BACKEND_NOT_INSTALLED .*npm install chatstore-mysql\./,
      /@chatstore\/mysql, chatstore-mysql from/,
    ],
    [{ backend: "mysql" }, /^INVALID_OPTIONS mysql .*is no Chatstore backend.*@chatstore\/x/],
    ["broken://host", /^BACKEND_NOT_LOADED chatstore-broken .*a-driver-that-is-missing/],
    ["unbuilt://host", /^BACKEND_NOT_LOADED chatstore-unbuilt is installed.*dist/],
    ["driver://host", /^INVALID_OPTIONS chatstore-driver .*no Chatstore backend.*not a factory/],
    ["late://host", /^INVALID_OPTIONS chatstore-late .*made no chat store/],
    ["older://host", /^BACKEND_NOT_LOADED chatstore-older .*no .*readSession.*version/],
    [{ backend: "./nowhere.js" }, /^INVALID_OPTIONS There is no backend module \.\/nowhere\.js/],
    [{ backend: "@acme/store" }, /^BACKEND_NOT_INSTALLED .*npm install @acme\/store\./],
  ];
  for (const [source, ...expected] of cases) {
    const told = await opened(source, { folder });
    for (const each of expected) expect(told).toMatch(each);
    expect(told).not.toContain("secret");
  }
});

test("what names no backend is refused, and not shown", async () => {
  for (const source of [
    "localhost:6379/canary",
    "me:canary@localhost",
    "://me:canary@localhost",
    '"redis://me:canary@localhost"',
    " redis://me:canary@localhost",
    "canary",
    { url: "me:canary@localhost" },
    {},
    { url: 5 },
    { backend: "" },
    { backend: 5 },
    5,
    null,
    ["redis://canary"],
  ]) {
    const error = await openChatStore(source as string).then(
      () => undefined,
      (reason: Error) => reason,
    );
    expect(error, JSON.stringify(source)).toBeInstanceOf(InvalidOptionsError);
    expect(error?.message).not.toContain("canary");
  }
  vi.stubEnv("CHATSTORE_URL", "");
  onTestFinished(() => void vi.unstubAllEnvs());
  await expect(openChatStore()).rejects.toThrow(/Set CHATSTORE_URL/);
  vi.stubEnv("CHATSTORE_URL", '"redis://localhost"');
  await expect(openChatStore()).rejects.toThrow(
    /CHATSTORE_URL names no backend \(it begins with a quote/,
  );
});

test("a store that does not open is closed: its engine's client would keep the process alive", async () => {
  let closed = 0;
  const backend = () => {
    const made = new MemoryBackend();
    made.open = async () => {
      throw new InvalidOptionsError("no");
    };
    made.close = async () => void closed++;
    return made;
  };
  const factory = (options: object) => createChatStore("lame", options, {}, backend);
  await expect(openChatStore({ backend: factory })).rejects.toThrow("no");
  expect(closed).toBe(1);
});
