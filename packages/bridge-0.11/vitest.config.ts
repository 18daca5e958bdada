import { fileURLToPath } from "node:url";
import { mergeConfig } from "vitest/config";
import shared from "../../vitest.shared.ts";

/** The tests of the bridge, which import LlamaIndex by name: here the name means this package's version of it. */
export default mergeConfig(shared, {
  plugins: [
    {
      name: "llamaindex-0.11",
      enforce: "pre",
      resolveId: (id: string) =>
        /^(llamaindex$|@llamaindex\/)/.test(id)
          ? fileURLToPath(import.meta.resolve(id))
          : undefined,
    },
  ],
  test: {
    include: ["../llamaindex/test/*.test.ts", "../bridge-e2e/test/restart.test.ts"],
    env: {
      CHATSTORE_E2E_WORKER: fileURLToPath(new URL("test/worker.js", import.meta.url)),
      CHATSTORE_E2E_BACKENDS: "sqlite",
    },
    silent: "passed-only", // it has no logger but the console
  },
});
