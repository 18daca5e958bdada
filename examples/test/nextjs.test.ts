import { existsSync } from "node:fs";
import { sessionKey, sqliteChatStore } from "@chatstore/sqlite";
import { expect, onTestFinished, test } from "vitest";
import { chatRequest } from "./client.ts";
import { newFolder } from "./program.ts";

// A route handler is a function from a web standard Request to a Response, which Next.js calls in its Node.js process. So do
// these tests, without all of Next.js.
type Route = typeof import("../nextjs/app/api/chat/route.ts");

const route = new URL("../nextjs/app/api/chat/route.ts", import.meta.url).href;
let evaluations = 0;
/** The file as the first request finds it, and as each hot reload does: evaluated anew in the same process. */
const evaluate = (): Promise<Route> =>
  import(/* @vite-ignore */ `${route}?evaluation=${++evaluations}`);
const post = ({ POST }: Route, message: string) =>
  POST(chatRequest("http://localhost:3000", "ada", message));

function enterNewFolder(): void {
  const before = process.cwd();
  process.chdir(newFolder());
  onTestFinished(() => process.chdir(before));
}

test("a conversation outlives hot reloads, and none of them leaves a connection open", async () => {
  enterNewFolder();
  const said: string[] = [];
  for (let reload = 1; reload <= 5; reload++) {
    said.push(`Turn ${reload}`);
    const response = await post(await evaluate(), said.at(-1) as string);
    expect(await response.text()).toBe(`You said ${said.map((text) => `“${text}”`).join(", ")}.`);
  }
  // The last connection takes SQLite's log with it.
  expect(existsSync("chat.db-wal")).toBe(true);
  await sqliteChatStore({ path: "chat.db", shared: true }).close();
  expect(existsSync("chat.db-wal")).toBe(false);
});

test("a reader who leaves in the middle of a reply finds what was said until then", async () => {
  enterNewFolder();
  const response = await post(await evaluate(), "tell me more ".repeat(1_000));
  const reader = response.body?.getReader();
  await reader?.read();
  await reader?.cancel();

  await using store = sqliteChatStore({ path: "chat.db", shared: true });
  const messages = await store.getMessages(sessionKey({ user: "ada" }));
  expect(messages).toMatchObject([
    { role: "user" },
    { role: "assistant", annotations: [{ partial: true }] },
  ]);
});
