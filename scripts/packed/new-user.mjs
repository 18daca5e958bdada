/** A new user of the README: its snippets, those of docs/llamaindex.md type-checked, and a conformance run of his own. */
import { join } from "node:path";
import { project, quiet, repository, snippetsOf, versionOf } from "./project.mjs";

const user = project("new-user", { name: "new-user", private: true, type: "module" });
const others = ["llamaindex", "@llamaindex/workflow", "vitest", "fast-check"].map(
  (name) => `${name}@${versionOf(name)}`,
);
// With install scripts, as he would.
const { core = "", llamaindex = "", sqlite = "" } = user.tarballs;
user.run("npm", [...quiet, core, llamaindex, sqlite, ...others]);

const [withLlamaIndex, withoutIt] = snippetsOf("README.md");
if (withLlamaIndex === undefined || withoutIt === undefined) {
  throw new Error("README.md no longer has its two snippets");
}

// What the reader of the snippet brings along: a model, documents, and a signed-in user.
const surroundings = `
import { Settings, SimpleChatEngine } from "llamaindex";
Settings.llm = {
  metadata: { model: "offline", contextWindow: 8000 },
  chat: async ({ messages }) => ({
    raw: null,
    message: { role: "assistant", content: messages.map(({ content }) => content).join(" | ") },
  }),
};
const retriever = { retrieve: async () => [] };
const user = { id: "alice" };
`;
user.write(
  "snippet-1.mjs",
  `${surroundings}${withLlamaIndex}
console.log(answer.message.content, "MODEL WAS:", engine.constructor.name);
process.kill(process.pid, "SIGKILL");`,
);
user.write(
  "snippet-2.mjs",
  `${withoutIt}
console.log(newest.map(({ role, content }) => role + ": " + content).join("\\n"));`,
);

console.log("   the README's snippet with LlamaIndex, killed and run again");
const [first, second] = [1, 2].map(() => {
  try {
    return user.run("node", ["snippet-1.mjs"]);
  } catch (error) {
    const { signal, stdout } = /** @type {{ signal: string, stdout: string }} */ (error);
    if (signal !== "SIGKILL") throw error;
    return stdout;
  }
});
const question = "What did I ask yesterday?";
const asked = [first, second].map((answer) => answer?.split(question).length ?? 0);
console.log(
  `   the model was shown the question ${asked.map((parts) => parts - 1).join(", then ")} times`,
);
if (asked[0] !== 2 || (asked[1] ?? 0) <= 2) {
  throw new Error(`After the kill the model was not shown what was said before:\n${second}`);
}

console.log("   the README's snippet without LlamaIndex");
if (!user.run("node", ["snippet-2.mjs"]).includes("assistant: On its way.")) {
  throw new Error("The second snippet does not give back what it stored");
}

console.log("   the snippets of docs/llamaindex.md, type-checked");
user.write(
  "guide.ts",
  `import type { BaseToolWithCall, ToolCallLLM } from "llamaindex";
declare const user: { id: string };
declare const llm: ToolCallLLM;
declare const placeOrder: BaseToolWithCall;
declare const response: { write(text: string): void };
${snippetsOf("docs/llamaindex.md").join("\n")}`,
);
const tsc = join(repository, "node_modules/.bin/tsc");
const strict = ["--noEmit", "--strict", "--skipLibCheck", "--target", "es2022"];
const types = ["--typeRoots", join(repository, "node_modules/@types"), "--types", "node"];
user.run(tsc, [...strict, ...types, "--module", "nodenext", "guide.ts"]);

console.log("   the conformance suite on a backend of the project's own");
user.write(
  "conformance.test.js",
  `
import { testChatStore } from "@chatstore/core/conformance";
testChatStore({
  name: "own",
  module: "@chatstore/core",
  factory: "memoryChatStore",
  options: (namespace) => ({ name: namespace }),
  guarantees: ["G2", "G4", "G5", "API"],
});
`,
);
console.log(
  user.run("npx", ["vitest", "run", "--reporter=dot"]).trim().split("\n").slice(-5).join("\n"),
);
