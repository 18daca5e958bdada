/** The READMEs of the bridges: each one's snippet is type-checked, and run where it needs no model of a provider. */
import { join } from "node:path";
import { holds, project, repository, snippetsOf, versionOf } from "./project.mjs";

const user = project("bridges", { name: "bridges", private: true, type: "module" });
const bridges = ["ai-sdk", "claude-agent", "langchain", "openai-agents"];
const frameworks = [
  ["ai", "ai-sdk"],
  ["@anthropic-ai/claude-agent-sdk", "claude-agent"],
  ["@langchain/core", "langchain"],
  ["@openai/agents", "openai-agents"],
  ["zod", "openai-agents"],
].map(([name = "", folder]) => `${name}@${versionOf(name, folder)}`);
user.install(["core", "sqlite", "postgres", ...bridges], ["--omit=optional", ...frameworks]);

// What the reader of a snippet brings along.
const surroundings = {
  "ai-sdk": `declare const user: { id: string };
declare const model: import("ai").LanguageModel;
`,
  "claude-agent": `declare const sessionId: string | undefined;
`,
  langchain: `declare const model: { invoke(messages: object[]): Promise<import("@langchain/core/messages").AIMessage> };
`,
  "openai-agents": "",
};
for (const [bridge, declared] of Object.entries(surroundings)) {
  const [snippet = ""] = snippetsOf(`packages/${bridge}/README.md`);
  holds(snippet !== "", `packages/${bridge}/README.md no longer has a snippet`);
  user.write(`${bridge}.ts`, `${declared}${snippet}`);
}
const tsc = join(repository, "node_modules/.bin/tsc");
const strict = ["--noEmit", "--strict", "--skipLibCheck", "--target", "es2022"];
const types = ["--typeRoots", join(repository, "node_modules/@types"), "--types", "node"];
const files = bridges.map((bridge) => `${bridge}.ts`);
user.run(tsc, [...strict, ...types, "--module", "nodenext", ...files]);
console.log(`   ${files.join(", ")} compile`);

const [snippet = ""] = snippetsOf("packages/langchain/README.md");
user.write(
  "langchain.mjs",
  `import { AIMessage } from "@langchain/core/messages";
const model = { invoke: async (messages) => new AIMessage("I was shown " + messages.length) };
${snippet}
console.log(answer.content);
process.kill(process.pid, "SIGKILL");`,
);
const answers = [1, 2].map(() => user.fail("node", ["langchain.mjs"]));
holds(
  answers[0]?.includes("I was shown 1") === true && answers[1]?.includes("I was shown 3") === true,
  `After the kill the model was not shown what was said before: ${answers}`,
);
console.log("   a history outlives its process");
