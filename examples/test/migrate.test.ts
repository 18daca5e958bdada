import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type ChatStore, rawSessionKey, sessionKey, sqliteChatStore } from "@chatstore/sqlite";
import { ChatMemoryBuffer, SimpleChatStore } from "llamaindex";
import { expect, onTestFinished, test } from "vitest";
import { llm } from "../model.ts";
import { newFolder, Program } from "./program.ts";

/** What the comment in the example has the old application do. */
function writeDown(chatStore: SimpleChatStore, folder: string): void {
  const chats = [...chatStore.getKeys()].map((key) => [key, chatStore.getMessages(key)]);
  writeFileSync(join(folder, "chats.json"), JSON.stringify(Object.fromEntries(chats)));
}

function open(folder: string): ChatStore {
  const store = sqliteChatStore({ path: join(folder, "chat.db") });
  onTestFinished(() => store.close());
  return store;
}

const user = (content: string) => ({ role: "user" as const, content });

test("each user finds the conversation from the old store, nobody finds the one that all shared, and no second run undoes what was said since", async () => {
  const folder = newFolder();
  const chatStore = new SimpleChatStore();
  const ada = new ChatMemoryBuffer({ chatStore, llm, chatStoreKey: "user-ada-support" });
  const call = { id: "1", name: "findOrder", input: { order: "1001" } };
  const conversation = [
    user("Where is order 1001?"),
    { role: "assistant" as const, content: "", options: { toolCall: [call] } },
    { ...user(""), options: { toolResult: { id: "1", result: "On its way", isError: false } } },
    { role: "assistant" as const, content: "On its way." },
  ];
  for (const message of conversation) await ada.put(message);
  await new ChatMemoryBuffer({ chatStore, llm }).put(user("I am Bob, and my secret is 42"));
  writeDown(chatStore, folder);

  expect(await new Program("migrate.ts", folder).ends()).toBe(
    "user-ada-support → u:ada/c:support\nchat_history → raw:chat_history\n",
  );
  const store = open(folder);
  const key = sessionKey({ user: "ada", conversation: "support" });
  expect(await store.getMessages(key)).toMatchObject(conversation);
  expect(await store.getMessages(rawSessionKey("chat_history"))).toHaveLength(1);
  for (const name of ["ada", "bob"]) {
    const { sessions } = await store.listSessions({ user: name });
    expect(sessions.map((session) => session.key)).toEqual(name === "ada" ? [key] : []);
  }

  await store.addMessage(key, user("Thank you"));
  expect(await new Program("migrate.ts", folder).ends()).toBe(
    "u:ada/c:support is there already\nraw:chat_history is there already\n",
  );
  expect(await store.getMessages(key)).toMatchObject([...conversation, user("Thank you")]);
});

test("a migration that was killed goes on where it was, and each conversation arrives whole and once", async () => {
  const folder = newFolder();
  const chatStore = new SimpleChatStore();
  for (let n = 0; n < 300; n++) chatStore.setMessages(`user-${n}`, [user(`I am ${n}`), user("Hi")]);
  writeDown(chatStore, folder);

  const first = new Program("migrate.ts", folder);
  await first.prints(/user-50 /);
  await first.kill();
  const output = await new Program("migrate.ts", folder).ends();
  expect(output.match(/already$/gm)?.length).toBeGreaterThan(50);

  const store = open(folder);
  expect([...(await store.getKeys())]).toHaveLength(300);
  for (let n = 0; n < 300; n++) {
    expect(await store.getMessages(sessionKey({ user: `${n}` }))).toMatchObject([
      user(`I am ${n}`),
      user("Hi"),
    ]);
  }
});
