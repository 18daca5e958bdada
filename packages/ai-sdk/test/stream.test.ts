import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { type ChatStore, type ChatStoreConfig, openChatStore } from "@chatstore/core";
import { startMongoServer, startPostgresServer, startRedisServer } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import type { UIMessage } from "ai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { aiSdkChat, type LoadedChat } from "../src/index.ts";
import {
  type Application,
  keyOf,
  openTab,
  sdks,
  startApplication,
  textsOf,
} from "./application.ts";
import { scriptedModel } from "./model.ts";
import type { Work } from "./worker.ts";

const folder = mkdtempSync(join(tmpdir(), "chatstore-ai-sdk-"));
afterAll(() => rmSync(folder, { recursive: true }));

let number = 0;
const newId = () => `chat-${process.pid}-${++number}`;

/** Until something holds: what a server does after a client has gone is not announced. */
async function until<T>(look: () => Promise<T>, holds: (found: T) => boolean): Promise<T> {
  for (;;) {
    const found = await look();
    if (holds(found)) return found;
    await pause(10);
  }
}

/** What has come of the answer. */
const answerIn = (messages: readonly UIMessage[]) =>
  textsOf(messages.filter(({ role }) => role === "assistant")).at(-1) ?? "";

function conversations(config: ChatStoreConfig, name: string): void {
  const sdk = sdks[name] as NonNullable<(typeof sdks)[string]>;
  let store: ChatStore;
  let application: Application;
  beforeAll(async () => {
    store = await openChatStore(config);
    application = await startApplication({ store, sdk });
  });
  afterAll(async () => {
    await application.close();
    await store.close();
  });
  const tab = (id: string, messages?: UIMessage[], headers?: Record<string, string>) =>
    openTab(sdk, application.url, id, messages, headers);
  const load = (id: string): Promise<LoadedChat> => aiSdkChat({ store, key: keyOf(id) }).load();
  /** Without what only travels by JSON. */
  const plain = (messages: readonly UIMessage[]) => JSON.parse(JSON.stringify(messages));

  test("client and server agree on every id and part, and a reload shows the same", async () => {
    const id = newId();
    const one = tab(id);
    await one.sendMessage({ text: "Hello" });
    await one.sendMessage({ text: "weather in Bonn and Rome" });
    await one.sendMessage({ text: "where am I" });
    await until(
      async () => one.status,
      (status) => status === "ready",
    );
    const { messages, title, version } = await load(id);
    expect(plain(messages)).toEqual(plain(one.messages));
    expect(textsOf(messages)).toEqual([
      "user: Hello",
      "assistant: You said: Hello",
      "user: weather in Bonn and Rome",
      "assistant: Let me see.[output-available][output-available]The tool says rain in Bonn, rain in Rome",
      "user: where am I",
      "assistant: [output-available]The tool says Bonn",
    ]);
    expect(title).toBe("Hello");
    expect(version).not.toBeNull();
    expect(application.errors).toEqual([]);
    const again = tab(id, messages);
    await again.sendMessage({ text: "Bye" });
    expect(textsOf((await load(id)).messages).at(-1)).toBe(
      "assistant: You said: Hello | weather in Bonn and Rome | where am I | Bye",
    );
  });

  test("an approval continues the same message", async () => {
    const id = newId();
    const one = tab(id);
    await one.sendMessage({ text: "delete a.txt" });
    const waiting = await load(id);
    expect(textsOf(waiting.messages)).toEqual([
      "user: delete a.txt",
      "assistant: [approval-requested]",
    ]);
    // In another tab, after a reload.
    const two = tab(id, waiting.messages);
    await approve(two, true);
    const done = await load(id);
    expect(textsOf(done.messages)).toEqual([
      "user: delete a.txt",
      "assistant: [output-available]The tool says a.txt is gone",
    ]);
    expect(plain(done.messages)).toEqual(plain(two.messages));
    // The first tab has not seen it, and must neither decide again nor undo it.
    await approve(one, false);
    expect(one.error?.message).toBe("VERSION_CONFLICT");
    expect(await load(id)).toEqual(done);
  });

  test("a tab that has not seen what another one wrote loses nothing of it", async () => {
    const id = newId();
    const one = tab(id);
    await one.sendMessage({ text: "Hello" });
    const two = tab(id, one.messages);
    await two.sendMessage({ text: "from two" });
    await one.sendMessage({ text: "from one" });
    expect(one.error?.message).toBe("VERSION_CONFLICT");
    expect(plain((await load(id)).messages)).toEqual(plain(two.messages));
    // Nor by answering anew what is no longer the last answer.
    const stale = tab(id, two.messages.slice(0, 2));
    await stale.regenerate();
    expect(stale.error?.message).toBe("VERSION_CONFLICT");
    const editing = tab(id, two.messages.slice(0, 2));
    const [first, last] = editing.messages as [UIMessage, UIMessage];
    await editing.sendMessage(
      { text: "Hi", messageId: first.id },
      { body: { lastMessageId: last.id } },
    );
    expect(editing.error?.message).toBe("VERSION_CONFLICT");
    expect(plain((await load(id)).messages)).toEqual(plain(two.messages));
  });

  test("two tabs at once: one answer is stored whole, the other one is told", async () => {
    const id = newId();
    const tabs = [tab(id), tab(id)];
    await Promise.all(tabs.map((one, index) => one.sendMessage({ text: `slowly ${index}` })));
    const refused = tabs.filter((one) => one.error?.message === "VERSION_CONFLICT");
    const [kept] = tabs.filter((one) => one.error === undefined);
    expect(refused).toHaveLength(1);
    expect(plain((await load(id)).messages)).toEqual(plain(kept?.messages ?? []));
  });

  test("regenerate and edit take the place of what they replace", async () => {
    const id = newId();
    const one = tab(id);
    await one.sendMessage({ text: "a" });
    await one.sendMessage({ text: "b" });
    const old = one.messages.map((message) => message.id);
    await one.regenerate();
    const again = await load(id);
    expect(plain(again.messages)).toEqual(plain(one.messages));
    expect(again.messages).toHaveLength(4);
    expect(again.messages[3]?.id).not.toBe(old[3]);
    await one.sendMessage({ text: "B", messageId: old[2] as string });
    expect(textsOf((await load(id)).messages).slice(2)).toEqual([
      "user: B",
      "assistant: You said: a | B",
    ]);
    await one.sendMessage({ text: "A", messageId: old[0] as string });
    const edited = await load(id);
    expect(textsOf(edited.messages)).toEqual(["user: A", "assistant: You said: A"]);
    expect(plain(edited.messages)).toEqual(plain(one.messages));
    expect(one.error).toBeUndefined();
  });

  test("what was said before a stop stays, and the conversation goes on", async () => {
    const id = newId();
    const one = tab(id, [], { stoppable: "yes" });
    const asked = one.sendMessage({ text: "slowly one two three four five six seven eight" });
    await until(
      async () => answerIn(one.messages),
      (text) => text.includes("three"),
    );
    await one.stop();
    await asked;
    await one.sendMessage({ text: "Go on" });
    expect(one.error).toBeUndefined();
    const { messages } = await load(id);
    expect(messages.map(({ role }) => role)).toEqual(["user", "assistant", "user", "assistant"]);
    expect(textsOf(messages)[1]).toContain("three");
    expect(textsOf(messages)[1]).not.toContain("eight");
    await one.sendMessage({ text: "And on" });
    expect(one.error).toBeUndefined();
    expect((await load(id)).messages).toHaveLength(6);
  });

  test("the answer is saved when its tab was closed", async () => {
    const id = newId();
    const one = tab(id);
    const asked = one.sendMessage({ text: "slowly one two three four" });
    await until(
      async () => answerIn(one.messages),
      (text) => text.includes("one"),
    );
    await one.stop(); // without abortSignal, as closing does
    await asked;
    const { messages } = await until(
      () => load(id),
      (found) => found.messages.length === 2,
    );
    expect(textsOf(messages)[1]).toBe("assistant: You said: slowly one two three four");
  });

  test("a question whose answer failed can be asked again", async () => {
    const id = newId();
    const one = tab(id);
    await one.sendMessage({ text: "fail" });
    expect(one.error).toBeDefined();
    expect(textsOf((await load(id)).messages)).toEqual(["user: fail"]);
    await one.regenerate();
    const reloaded = tab(id, (await load(id)).messages);
    await reloaded.sendMessage({ text: "Hello" });
    expect(textsOf((await load(id)).messages)).toEqual([
      "user: fail",
      "user: Hello",
      "assistant: You said: fail | Hello",
    ]);
    application.errors.length = 0;
  });

  test("the active stream is cleared with the answer, and only by it", async () => {
    const id = newId();
    const one = tab(id);
    const asked = one.sendMessage({ text: "slowly a b c d e f" }, { body: { streamId: "s1" } });
    const during = await until(
      () => load(id),
      (found) => found.activeStreamId !== undefined,
    );
    expect(during.activeStreamId).toBe("s1");
    expect(await aiSdkChat({ store, key: keyOf(id) }).endStream("s0")).toBe(false);
    // A title that somebody gives meanwhile is no conflict.
    await store.setTitle(keyOf(id), "Letters");
    await asked;
    const after = await load(id);
    expect(after.activeStreamId).toBeUndefined();
    expect(after.title).toBe("Letters");
    expect(plain(after.messages)).toEqual(plain(one.messages));
  });

  test("an agent's own response is saved, too", async () => {
    const id = newId();
    const chat = aiSdkChat({ store, key: keyOf(id) });
    const parts = [{ type: "text" as const, text: "Hello" }];
    const { messages } = await chat.receive({ message: { id: "u1", role: "user", parts } });
    const response = await sdk.createAgentUIStreamResponse({
      agent: new sdk.ToolLoopAgent({ model: scriptedModel() }),
      uiMessages: messages,
      ...chat.streamOptions(messages),
    });
    const text = await response.text();
    const [, answer] = (await load(id)).messages;
    expect(textsOf(answer ? [answer] : [])).toEqual(["assistant: You said: Hello"]);
    expect(text).toContain(JSON.stringify({ type: "start", messageId: answer?.id }));
  });

  describe("after a kill", () => {
    test("in the middle of an answer, the question is there and the tab goes on", async () => {
      const id = newId();
      await using process = await startProcess({ config, sdk: name });
      const one = openTab(sdk, process.url, id);
      const asked = one.sendMessage(
        { text: "slowly one two three four five six" },
        { body: { streamId: "s1" } },
      );
      await until(
        async () => answerIn(one.messages),
        (text) => text.includes("two"),
      );
      process.kill();
      await asked;
      const { messages, activeStreamId } = await load(id);
      expect(textsOf(messages)).toEqual(["user: slowly one two three four five six"]);
      // Nobody has it any more: the route that resumes streams says so.
      expect(activeStreamId).toBe("s1");
      expect(await aiSdkChat({ store, key: keyOf(id) }).endStream("s1")).toBe(true);
      const same = tab(id, one.messages);
      await same.sendMessage({ text: "Still there?" });
      expect(same.error).toBeUndefined();
      const after = (await load(id)).messages;
      expect(after).toHaveLength(4);
      expect(plain(after)).toEqual(plain(same.messages));
    });

    test("within a tool, the steps before it are there", async () => {
      const id = newId();
      const writes = name !== "newest";
      await using process = await startProcess({ config, sdk: name, dieIn: "get_news", writes });
      const one = openTab(sdk, process.url, id);
      await one.sendMessage({ text: "walk Bonn" });
      expect(one.error).toBeDefined();
      const { messages } = await load(id);
      const steps = ["user: walk Bonn", "assistant: Let me see.[output-available]"];
      // The first of version 6 have no callback for a step.
      expect(textsOf(messages)).toEqual(name === "oldest" ? steps.slice(0, 1) : steps);
      // The tab shows more than was saved, and goes on.
      const same = tab(id, one.messages);
      await same.sendMessage({ text: "Still there?" });
      expect(same.error).toBeUndefined();
      expect(plain((await load(id)).messages.slice(-2))).toEqual(plain(same.messages.slice(-2)));
    });

    test("within an approved tool, the conversation is usable", async () => {
      const id = newId();
      await using process = await startProcess({ config, sdk: name, dieIn: "delete_file" });
      const one = openTab(sdk, process.url, id);
      await one.sendMessage({ text: "delete a.txt" });
      await approve(one, true);
      expect(one.error).toBeDefined();
      const { messages } = await load(id);
      expect(textsOf(messages)).toEqual(["user: delete a.txt", "assistant: [approval-responded]"]);
      const reloaded = tab(id, messages);
      await reloaded.sendMessage({ text: "Still there?" });
      expect(reloaded.error).toBeUndefined();
      // Nobody knows whether the file is gone, and the model is told so.
      expect(textsOf((await load(id)).messages)).toEqual([
        "user: delete a.txt",
        "assistant: [output-error]",
        "user: Still there?",
        "assistant: You said: delete a.txt | Still there?",
      ]);
    });
  });
}

async function approve(tab: ReturnType<typeof openTab>, approved: boolean): Promise<void> {
  for (const part of tab.messages.at(-1)?.parts ?? []) {
    if ("approval" in part && part.approval) {
      await tab.addToolApprovalResponse({ id: part.approval.id, approved });
    }
  }
  await until(
    async () => tab.status,
    (status) => status === "ready" || status === "error",
  );
}

async function startProcess(work: Work): Promise<{ url: string; kill(): void } & AsyncDisposable> {
  const args = ["--import", "tsx", join(import.meta.dirname, "worker.ts"), JSON.stringify(work)];
  const child: ChildProcess = spawn(process.execPath, args, {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = once(child, "exit");
  const [line] = (await once(child.stdout as NodeJS.EventEmitter, "data")) as [Buffer];
  return {
    url: String(line).trim(),
    kill: () => child.kill("SIGKILL"),
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGKILL");
      await ended;
    },
  };
}

describe.each(Object.keys(sdks))("%s", (name) => {
  conversations({ backend: "sqlite", path: join(folder, "chat.db") }, name);
});
for (const [backend, start] of [
  ["postgres", startPostgresServer],
  ["redis", startRedisServer],
  ["mongo", startMongoServer],
] as const) {
  await withEngine<Awaited<ReturnType<typeof start>>>(start, ({ url }) => {
    describe(backend, () => conversations({ backend, url }, "newest"));
  });
}
