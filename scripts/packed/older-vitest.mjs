/** Projects with an older vitest, or none: who installs a backend has nothing to do with the suite's tools. */
import { holds, project } from "./project.mjs";

const suite = `import { testChatStore } from "@chatstore/core/conformance";
testChatStore({ name: "own", module: "@chatstore/core", factory: "memoryChatStore", options: () => ({}) });`;

for (const version of [2, 3]) {
  const user = project(`vitest-${version}`, { private: true, type: "module" });
  user.install(["core", "sqlite"], [`vitest@${version}`]);
  const copies = user.run("npm", ["ls", "vitest", "--all", "--parseable"]).trim().split("\n");
  holds(copies.length === 1, `${copies.length} copies of vitest: ${copies}`);
  user.write("suite.test.js", suite);
  const said = user.fail("npx", ["vitest", "run"]);
  holds(
    said.includes(`needs vitest 4 or later, and ${version}.`),
    `The suite does not say that vitest ${version} is too old:\n${said}`,
  );
  user.write(
    "suite.test.js",
    `import { memoryChatStore, sessionKey } from "@chatstore/sqlite";
    import { expect, test } from "vitest";
    test("keeps", async () => {
      const store = memoryChatStore();
      await store.addMessage(sessionKey({ user: "a" }), { role: "user", content: "x" });
      expect(await store.getKeys().then((keys) => [...keys])).toHaveLength(1);
    });`,
  );
  user.run("npx", ["vitest", "run"]);
  console.log(`   vitest ${version}: one copy, and it runs`);
}

const without = project("no-vitest", { private: true, type: "module" });
without.install(["core", "sqlite"]);
without.write("suite.js", suite);
holds(
  without.fail("node", ["suite.js"]).includes("needs vitest 4 or later, which is not installed"),
  "The suite does not say that vitest is missing",
);
