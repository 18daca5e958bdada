import { sessionKey, sqliteChatStore } from "@chatstore/sqlite";
import { expect, onTestFinished, test } from "vitest";
import { chatRequest } from "./client.ts";
import { newFolder, Program } from "./program.ts";

const start = async (folder: string) => {
  const server = new Program("hono.ts", folder, [], { PORT: "0" });
  return { server, url: await server.prints(/http:\S+/) };
};
const say = async (url: string, user: string, message: string) =>
  (await fetch(chatRequest(url, user, message))).text();

test("users of an endpoint find their own conversation, and only that, after it was killed", async () => {
  const folder = newFolder();
  const first = await start(folder);
  await Promise.all([say(first.url, "ada", "I am Ada"), say(first.url, "bob", "I am Bob")]);
  await first.server.kill();

  const second = await start(folder);
  expect(await say(second.url, "ada", "Who am I?")).toBe("You said “I am Ada”, “Who am I?”.");
  expect(await say(second.url, "bob", "Who am I?")).toBe("You said “I am Bob”, “Who am I?”.");
  const stranger = await fetch(chatRequest(second.url, "eve", "Who am I?"));
  expect([stranger.status, await stranger.text()]).toEqual([401, "Sign in first"]);
});

test("a reader who leaves in the middle of a reply finds what was said until then", async () => {
  const folder = newFolder();
  const { server, url } = await start(folder);
  const message = "tell me more ".repeat(1_000);
  const reader = new AbortController();
  const response = await fetch(chatRequest(url, "ada", message, { signal: reader.signal }));
  await response.body?.getReader().read();
  reader.abort();

  const store = sqliteChatStore({ path: `${folder}/chat.db` });
  onTestFinished(() => store.close());
  const key = sessionKey({ user: "ada" });
  const count = async () => (await store.getMessages(key)).length;
  await expect.poll(count, { timeout: 20_000 }).toBe(2);
  await server.kill();
  const [question, reply] = await store.getMessages(key);
  expect(question?.content).toBe(message);
  expect(reply).toMatchObject({ role: "assistant", annotations: [{ partial: true }] });
  expect(`You said “${message}”.`.startsWith(String(reply?.content))).toBe(true);
});
