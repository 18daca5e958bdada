/** Plain JavaScript after `npm init -y`, which declares CommonJS: what docs/installing.md says of it. */
import { holds, project, snippetsOf } from "./project.mjs";

const user = project("javascript");
user.install(["core", "sqlite"]);
const snippet = `${snippetsOf("README.md")[1]}
console.log(newest.map(({ role, content }) => role + ": " + content).join(", "));`;

user.write("chat.js", snippet);
holds(
  user.fail("node", ["chat.js"]).includes("Cannot use import statement outside a module"),
  "docs/installing.md says that .js is CommonJS after npm init -y",
);
user.write("chat.mjs", snippet);
holds(user.run("node", ["chat.mjs"]).includes("assistant: On its way."), "The snippet as .mjs");
const [common] = snippetsOf("docs/installing.md", "js");
user.write("common.js", `${common}`);
holds(user.run("node", ["common.js"]).includes("Where is my order?"), "The snippet with require()");
user.run("npm", ["pkg", "set", "type=module"]);
holds(user.run("node", ["chat.js"]).includes("assistant: On its way."), "The snippet as a module");
console.log("   as .mjs, by require(), and with type: module");
