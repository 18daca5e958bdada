/** Bun and Deno: every backend without a native part works, SQLite's says what is the matter. */
import { holds, project } from "./project.mjs";

const user = project("runtimes");
user.install(["core", "file", "sqlite", "postgres", "redis", "mongo"]);
// They bring their programs by install scripts.
user.run("npm", ["install", "--no-audit", "--no-fund", "--loglevel=error", "bun@1", "deno@2"]);
user.write(
  "chat.mjs",
  `import { openChatStore, sessionKey } from "@chatstore/core";
const key = sessionKey({ user: "alice" });
for (const url of process.argv.slice(2)) {
  const [name] = url.split(":");
  try {
    const store = await openChatStore({ url, timeout: 1_000 });
    await store.addMessage(key, { role: "user", content: "Hello" });
    console.log(name, (await store.getMessages(key)).length > 0 ? "kept" : "lost");
    await store.close();
  } catch (error) {
    console.log(name, error.code, error.message);
  }
}`,
);
const absent = ["redis://127.0.0.1:1", "postgres://127.0.0.1:1/x", "mongodb://127.0.0.1:1/"];
const urls = ["file:./chats", "sqlite:./chat.db", ...absent];
for (const [name, command, ...options] of [
  ["Bun", "bun"],
  ["Deno", "deno", "run", "--allow-all"],
]) {
  const output = user.run("npx", [`${command}`, ...options, "chat.mjs", ...urls]);
  for (const expected of [
    /^file kept$/m,
    /^sqlite (kept|BACKEND .*better-sqlite3)/m,
    /^redis BACKEND .*ECONNREFUSED/m,
    /^postgres BACKEND .*ECONNREFUSED/m,
    /^mongodb (BACKEND|TIMEOUT) .*ECONNREFUSED/m,
  ]) {
    holds(expected.test(output), `${name} does not say ${expected}:\n${output}`);
  }
  console.log(`   ${name}: ${/^sqlite .{0,70}/m.exec(output)?.[0]}`);
}
