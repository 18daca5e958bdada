/** The example for Next.js, built and started: its route handler keeps a conversation over a restart of the server. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync } from "node:fs";
import { join } from "node:path";
import { holds, project, repository, versionOf } from "./project.mjs";

const user = project("nextjs", { name: "nextjs", private: true });
user.install(
  ["core", "sqlite", "llamaindex"],
  [
    "next@16",
    "react@19",
    "react-dom@19",
    "@types/react@19",
    `@types/node@${versionOf("@types/node")}`,
    `typescript@${versionOf("typescript")}`,
    `llamaindex@${versionOf("llamaindex")}`,
    `@llamaindex/workflow@${versionOf("@llamaindex/workflow")}`,
  ],
);
const examples = join(repository, "examples");
cpSync(join(examples, "nextjs"), join(user.folder, "nextjs"), { recursive: true });
for (const name of ["login.ts", "model.ts", "offline-model.ts"]) {
  cpSync(join(examples, name), join(user.folder, name));
}
const layout = `export default function Layout({ children }: { children: React.ReactNode }) {
  return <html><body>{children}</body></html>;
}`;
user.write("nextjs/app/layout.tsx", layout);
user.write("nextjs/app/page.tsx", "export default function Page() { return <p>Chat</p>; }");
user.write(
  "nextjs/app/api/read/route.ts",
  `import { openChatStore, sessionKey } from "@chatstore/core";
export const dynamic = "force-dynamic";
export async function GET(): Promise<Response> {
  const store = await openChatStore({ url: "sqlite:./chat.db", shared: true });
  return Response.json(await store.getMessages(sessionKey({ user: "ada" })));
}`,
);
// What create-next-app writes, and the endings of the examples' imports.
user.write("nextjs/tsconfig.json", {
  compilerOptions: {
    allowImportingTsExtensions: true,
    esModuleInterop: true,
    incremental: true,
    isolatedModules: true,
    jsx: "react-jsx",
    lib: ["dom", "dom.iterable", "esnext"],
    module: "esnext",
    moduleResolution: "bundler",
    noEmit: true,
    plugins: [{ name: "next" }],
    resolveJsonModule: true,
    skipLibCheck: true,
    strict: true,
    target: "es2017",
  },
  include: ["next-env.d.ts", "**/*.ts", "**/*.tsx"],
});
const next = join(user.folder, "node_modules/next/dist/bin/next");
const quiet = { NEXT_TELEMETRY_DISABLED: "1" };
user.run("node", [next, "build", "nextjs"], quiet);
console.log("   built");

/** @type {string[]} */
const answers = [];
for (const message of ["First", "Second"]) {
  const server = spawn(
    "node",
    [next, "start", "nextjs", "--port", "0", "--hostname", "127.0.0.1"],
    {
      cwd: user.folder,
      env: { ...process.env, ...quiet },
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  const address = await new Promise((resolve, reject) => {
    let output = "";
    server.stdout.on("data", (data) => {
      output += data;
      const found = /Local:\s+(http:\S+)/.exec(output);
      if (found && output.includes("Ready")) resolve(found[1]);
    });
    server.on("exit", () => reject(new Error(`Next.js did not start:\n${output}`)));
  });
  const response = await fetch(`${address}/api/chat`, {
    method: "POST",
    headers: { Authorization: "Bearer token-of-ada" },
    body: JSON.stringify({ message }),
  });
  answers.push(await response.text());
  const read = await fetch(`${address}/api/read`);
  answers.push(JSON.stringify(await read.json()));
  server.kill("SIGKILL");
  await once(server, "exit");
}
holds(answers[2]?.includes("“First”, “Second”") === true, `The restart lost it: ${answers[2]}`);
holds(answers[3]?.includes("Second") === true, `openChatStore does not find it: ${answers[3]}`);
console.log("   a conversation outlives the server");
