import { sessionKey, sqliteChatStore } from "@chatstore/sqlite";
import { expect, test } from "vitest";
import { newFolder, Program } from "./program.ts";

test("a chat in the terminal knows after kill -9 what was said before", async () => {
  const folder = newFolder();
  const first = new Program("chat-engine.ts", folder);
  await first.prints(/> /);
  first.write("I am Ada");
  await first.prints(/You said “I am Ada”\.\n/);
  first.write("I like kettles");
  await first.prints(/You said “I am Ada”, “I like/); // in the middle of the reply
  await first.kill();

  await using store = sqliteChatStore({ path: `${folder}/chat.db` });
  const messages = await store.getMessages(sessionKey({ user: "ada", conversation: "terminal" }));
  expect(messages.slice(0, 3).map(({ content }) => content)).toEqual([
    "I am Ada",
    "You said “I am Ada”.",
    "I like kettles",
  ]);

  const second = new Program("chat-engine.ts", folder);
  await second.prints(/> /);
  second.write("Who am I?");
  await second.prints(/You said “I am Ada”, “I like kettles”, “Who am I\?”\.\n/);
});
