/** The public types of every backend, in each way that TypeScript finds modules, with and without `skipLibCheck`. */
import { join } from "node:path";
import { project, repository, versionOf } from "./project.mjs";

const user = project("typescript");
user.install(
  ["core", "file", "sqlite", "postgres", "redis", "mongo"],
  [`@types/node@${versionOf("@types/node")}`],
);

const uses = `
import { openChatStore } from "@chatstore/core";
import { fileChatStore } from "@chatstore/file";
import { mongoChatStore } from "@chatstore/mongo";
import { postgresChatStore } from "@chatstore/postgres";
import { redisChatStore, type ChatStore } from "@chatstore/redis";
import { sqliteChatStore } from "@chatstore/sqlite";
export const stores: ChatStore[] = [
  fileChatStore({ dir: "x" }),
  mongoChatStore({ url: "x" }),
  postgresChatStore({ pool: { max: 3 } }),
  redisChatStore({ url: "x", redis: { db: 1 } }),
  sqliteChatStore({ path: "x" }),
];
export const opened: Promise<ChatStore> = openChatStore({ backend: redisChatStore, url: "x" });
// Types that are missing at the user's would be any, and take everything.
// @ts-expect-error
mongoChatStore({ client: 5 });
// @ts-expect-error
postgresChatStore({ pool: "text" });
// @ts-expect-error
postgresChatStore({ pool: { max: "three" } });
// @ts-expect-error
redisChatStore({ redis: { db: "one" } });
// @ts-expect-error
redisChatStore({ client: 5 });
// @ts-expect-error
sqliteChatStore({ database: 5 });
`;
user.write("module.mts", uses);
user.write("bundled.ts", uses);
user.write("common.cts", uses);
// Before nodenext learned that Node.js can require a module, CommonJS had this way only.
user.write(
  "old-common.cts",
  `export async function open() {
    const { sessionKey, sqliteChatStore } = await import("@chatstore/sqlite");
    const store = sqliteChatStore({ path: "chat.db" });
    await store.addMessage(sessionKey({ user: "alice" }), { role: "user", content: "Hello" });
    return store;
  }`,
);

const tsc = join(repository, "node_modules/.bin/tsc");
const bundler = ["--module", "esnext", "--moduleResolution", "bundler"];
// What compiles without skipLibCheck compiles with it: two of them with it, too, say so.
for (const [file = "", ...options] of [
  ["module.mts", "--module", "nodenext"],
  ["module.mts", "--module", "nodenext", "--skipLibCheck"],
  ["module.mts", "--module", "node16"],
  ["common.cts", "--module", "nodenext"],
  ["old-common.cts", "--module", "node16"],
  ["bundled.ts", ...bundler],
  ["bundled.ts", ...bundler, "--skipLibCheck"],
]) {
  const all = ["--noEmit", "--strict", "--exactOptionalPropertyTypes", "--target", "es2022"];
  user.run(tsc, [...all, "--types", "node", ...options, file]);
  console.log(`   ${[file, ...options].join(" ")}`);
}
