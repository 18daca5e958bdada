/** Jest with its defaults, and with what docs/installing.md says. */
import { holds, project } from "./project.mjs";

const user = project("jest");
user.install(["core", "sqlite"], ["jest@30"]);
user.write(
  "chat.test.mjs",
  `import { openChatStore, sessionKey, sqliteChatStore } from "@chatstore/sqlite";
test("a conversation is kept", async () => {
  const key = sessionKey({ user: "alice" });
  const store = sqliteChatStore({ path: "chat.db" });
  await store.addMessage(key, { role: "user", content: "Hello" });
  await store.close();
  const again = await openChatStore("sqlite:./chat.db");
  expect((await again.getMessages(key)).map(({ content }) => content)).toEqual(["Hello"]);
  await again.close();
});`,
);
holds(
  user.fail("npx", ["jest"]).includes("import"),
  "docs/installing.md says that Jest needs a flag",
);
user.run("npx", ["jest"], { NODE_OPTIONS: "--experimental-vm-modules" });
console.log("   with --experimental-vm-modules");
