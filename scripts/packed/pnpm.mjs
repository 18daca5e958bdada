/** pnpm, which shows a dependency only to who declares it: the backend by its factory and by URL, and the suite. */
import { holds, project, versionOf } from "./project.mjs";

const user = project("pnpm", { private: true, type: "module" });
const { core, sqlite } = user.tarballs;
user.write("package.json", {
  private: true,
  type: "module",
  dependencies: { "@chatstore/core": `file:${core}`, "@chatstore/sqlite": `file:${sqlite}` },
  devDependencies: {
    "fast-check": versionOf("fast-check"),
    vitest: versionOf("vitest"),
  },
  // Not in the registry yet.
  pnpm: { overrides: { "@chatstore/core": `file:${core}` } },
});
// Strict: without the folder in which pnpm would let packages find what they did not declare.
user.write(".npmrc", "hoist=false\n");
user.run("pnpm", ["install", "--ignore-scripts", "--ignore-workspace"]);
user.write(
  "chat.js",
  `import { openChatStore, sessionKey } from "@chatstore/core";
const key = sessionKey({ user: "alice" });
const store = await openChatStore("memory:");
await store.addMessage(key, { role: "user", content: "Hello" });
console.log("memory", (await store.getMessages(key)).length);
console.log(await openChatStore("sqlite:./chat.db").then(() => "opened", (error) => error.message));`,
);
const said = user.run("node", ["chat.js"]);
// Its install script did not run, so it cannot be opened; it was found, and says what to do.
holds(said.includes("memory 1"), said);
holds(/opened|better-sqlite3/.test(said) && !said.includes("not installed"), said);
user.write(
  "suite.test.js",
  `import { testChatStore } from "@chatstore/core/conformance";
testChatStore({
  name: "own",
  module: "@chatstore/core",
  factory: "memoryChatStore",
  options: (namespace) => ({ name: namespace }),
  guarantees: ["G4", "G5"],
});`,
);
user.run("pnpm", ["exec", "vitest", "run"]);
console.log("   found by URL, and the suite runs, with nothing hoisted");
