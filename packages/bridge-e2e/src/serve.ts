import { type ChatStoreConfig, openChatStore } from "@chatstore/core";
import { createBirpc } from "birpc";
import { type Conversations, conversations, type Parent } from "./conversations.js";
import type { Framework } from "./framework.js";

/**
 * The whole program of a child process: holds the conversations that its parent, a `Child`, asks for. It handles no
 * unhandled rejection: one ends it, and fails the test.
 */
export async function serve(framework: Framework): Promise<void> {
  process.on("disconnect", () => process.exit(1)); // it must not outlive its parent
  const store = await openChatStore(JSON.parse(process.argv[2] ?? "") as ChatStoreConfig);
  const parent = createBirpc<Parent, Conversations>(
    conversations(framework, store, (value) => void parent.report.asEvent(value)),
    {
      post: (data) => process.send?.(data),
      on: (receive) => process.on("message", receive),
      timeout: -1,
    },
  );
}
