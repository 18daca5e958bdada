/** Bundles of esbuild and webpack that run with nothing beside them but what is native. */
import { cpSync, renameSync } from "node:fs";
import { join } from "node:path";
import { holds, project } from "./project.mjs";

const user = project("bundlers");
user.install(["core", "file", "sqlite", "redis"], ["esbuild@0.28", "webpack@5", "webpack-cli@6"]);
user.write(
  "app.mjs",
  `import { openChatStore, redisChatStore } from "@chatstore/redis";
import { fileChatStore, sessionKey } from "@chatstore/file";
import { sqliteChatStore } from "@chatstore/sqlite";
const key = sessionKey({ user: "alice" });
const ways = {
  factory: () => openChatStore({ backend: fileChatStore, dir: "./chats" }),
  native: () => openChatStore({ backend: sqliteChatStore, path: "./chat.db" }),
  url: () => openChatStore("file:./chats"),
  absent: () => openChatStore({ backend: redisChatStore, url: "redis://127.0.0.1:1", timeout: 500 }),
};
async function main() {
  for (const [name, open] of Object.entries(ways)) {
    try {
      const store = await open();
      await store.addMessage(key, { role: "user", content: "Hello" });
      console.log(name, (await store.getMessages(key)).length > 0 ? "kept" : "lost");
      await store.close();
    } catch (error) {
      console.log(name, error.code, error.message);
    }
  }
}
main();`,
);
const esbuild = ["app.mjs", "--bundle", "--platform=node", "--external:better-sqlite3"];
user.run("npx", ["esbuild", ...esbuild, "--format=cjs", "--minify", "--outfile=out/esbuild.cjs"]);
const banner =
  'import { createRequire as newRequire } from "node:module"; const require = newRequire(import.meta.url);';
user.run("npx", [
  "esbuild",
  ...esbuild,
  "--format=esm",
  `--banner:js=${banner}`,
  "--outfile=out/esbuild.mjs",
]);
user.write(
  "webpack.config.js",
  `module.exports = {
  mode: "production",
  target: "node",
  entry: "./app.mjs",
  output: { filename: "webpack.cjs", path: __dirname + "/out" },
  externals: { "better-sqlite3": "commonjs better-sqlite3" },
};`,
);
const said = user.run("npx", ["webpack"]);
holds(!/warning/i.test(said), `webpack warns of what is meant:\n${said}`);

// Elsewhere, as they are deployed: only what is native comes along.
const place = project("bundles", { private: true });
cpSync(join(user.folder, "out"), join(place.folder, "out"), { recursive: true });
for (const name of ["better-sqlite3", "bindings", "file-uri-to-path"]) {
  const path = join("node_modules", name);
  cpSync(join(user.folder, path), join(place.folder, path), { recursive: true });
}
// Nor is there what it was made of: webpack writes down where a module was.
renameSync(user.folder, `${user.folder}-gone`);
for (const bundle of ["esbuild.cjs", "esbuild.mjs", "webpack.cjs"]) {
  const output = place.run("node", [`out/${bundle}`]);
  for (const expected of [
    "factory kept",
    "native kept",
    "absent BACKEND Redis failed: connect ECONNREFUSED",
    "url BACKEND_NOT_INSTALLED The backend package @chatstore/file is not installed",
    "openChatStore({ backend: redisChatStore",
  ]) {
    holds(output.includes(expected), `${bundle} does not say "${expected}":\n${output}`);
  }
  console.log(`   ${bundle}`);
}
