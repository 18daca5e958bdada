/**
 * Chatstore as a new user gets it: an empty project outside the repository that installs the packed packages, runs the
 * snippets of README.md, type-checks those of docs/llamaindex.md, and runs the conformance suite on a backend. Needs built packages and the npm registry: run it by
 * `pnpm packed`.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

process.chdir(dirname(import.meta.dirname));

const project = mkdtempSync(join(tmpdir(), "chatstore-packed-"));
const tarballs = join(project, "tarballs");
mkdirSync(tarballs);
/** @param {string} command @param {string[]} args @param {string} [cwd] */
const run = (command, args, cwd = project) =>
  execFileSync(command, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
/** @param {string} name */
const versionOf = (name) =>
  JSON.parse(readFileSync(`packages/llamaindex/node_modules/${name}/package.json`, "utf8")).version;

console.log("packing");
for (const folder of ["core", "llamaindex", "sqlite"]) {
  run("pnpm", ["pack", "--pack-destination", tarballs], `packages/${folder}`);
}
const packed = readdirSync(tarballs).map((name) => join(tarballs, name));

console.log("installing in an empty project");
const manifest = { name: "new-user", private: true, type: "module" };
writeFileSync(join(project, "package.json"), JSON.stringify(manifest));
const others = ["llamaindex", "@llamaindex/workflow", "vitest", "fast-check"].map(
  (name) => `${name}@${versionOf(name)}`,
);
run("npm", ["install", "--no-audit", "--no-fund", "--loglevel=error", ...packed, ...others]);

/** @param {string} file */
const snippetsOf = (file) =>
  [...readFileSync(file, "utf8").matchAll(/```ts\n([\s\S]*?)```/g)].map(([, code]) => code ?? "");
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
writeFileSync(
  join(project, "snippet-1.mjs"),
  `${surroundings}${withLlamaIndex}
console.log(answer.message.content, "MODEL WAS:", engine.constructor.name);
process.kill(process.pid, "SIGKILL");`,
);
writeFileSync(
  join(project, "snippet-2.mjs"),
  `${withoutIt}
console.log(newest.map(({ role, content }) => role + ": " + content).join("\\n"));`,
);

console.log("the README's snippet with LlamaIndex, killed and run again");
const [first, second] = [1, 2].map(() => {
  try {
    return run("node", ["snippet-1.mjs"]);
  } catch (error) {
    const { signal, stdout } = /** @type {{ signal: string, stdout: string }} */ (error);
    if (signal !== "SIGKILL") throw error;
    return stdout;
  }
});
const question = "What did I ask yesterday?";
const asked = [first, second].map((answer) => answer?.split(question).length ?? 0);
console.log(
  `  the model was shown the question ${asked.map((parts) => parts - 1).join(", then ")} times`,
);
if (asked[0] !== 2 || (asked[1] ?? 0) <= 2) {
  throw new Error(`After the kill the model was not shown what was said before:\n${second}`);
}

console.log("the README's snippet without LlamaIndex");
if (!run("node", ["snippet-2.mjs"]).includes("assistant: On its way.")) {
  throw new Error("The second snippet does not give back what it stored");
}

console.log("the snippets of docs/llamaindex.md, type-checked");
writeFileSync(
  join(project, "guide.ts"),
  `import type { BaseToolWithCall, ToolCallLLM } from "llamaindex";
declare const user: { id: string };
declare const llm: ToolCallLLM;
declare const placeOrder: BaseToolWithCall;
declare const response: { write(text: string): void };
${snippetsOf("docs/llamaindex.md").join("\n")}`,
);
const tsc = [
  "--noEmit",
  "--strict",
  "--skipLibCheck",
  "--target",
  "es2022",
  "--module",
  "nodenext",
];
run(
  join("node_modules", ".bin", "tsc"),
  [...tsc, "--types", "node", join(project, "guide.ts")],
  ".",
);

console.log("the conformance suite on a backend of the project's own");
writeFileSync(
  join(project, "conformance.test.js"),
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
  run("npx", ["vitest", "run", "--reporter=dot"]).trim().split("\n").slice(-5).join("\n"),
);

rmSync(project, { recursive: true });
