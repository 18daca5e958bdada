/**
 * Two copies of LlamaIndex in one process: a memory made by one, an engine of the other. No object is an instance of both
 * copies' `Memory`, so where LlamaIndex asks for one, the least is an error instead of a conversation that is forgotten.
 */
import { createRequire } from "node:module";
import { memoryChatStore, sessionKey } from "@chatstore/core";
import { persistentMemory } from "@chatstore/llamaindex";
import { tool } from "@llamaindex/core/tools";
import * as workflow from "@llamaindex/workflow";
import * as llamaindex from "llamaindex";
import { describe, expect, test } from "vitest";
import type { Framework } from "../../bridge-e2e/src/framework.ts";
import { offlineLLM } from "../../bridge-e2e/src/offline-llm.ts";
import { participantNames, participants } from "../../bridge-e2e/src/participants.ts";

const ours = { llamaindex, workflow, tool } as unknown as Framework;
const requireNewest = createRequire(new URL("../../llamaindex/package.json", import.meta.url));
const newest: Framework = {
  llamaindex: requireNewest("llamaindex"),
  workflow: requireNewest("@llamaindex/workflow"),
  tool: requireNewest("@llamaindex/core/tools").tool,
};

describe.each([
  { name: "an engine of 0.11, a memory of 0.12", engines: ours, memories: newest },
  { name: "an engine of 0.12, a memory of 0.11", engines: newest, memories: ours },
])("$name", ({ name, engines, memories }) => {
  const people = participants(engines);
  const key = sessionKey({ user: "alice" });
  const open = (conversation: string) => {
    const store = memoryChatStore({ name: `${name} ${conversation}` });
    return persistentMemory(memories.llamaindex.createMemory, { store, key });
  };

  test.each(participantNames.filter((one) => !one.startsWith("ContextChatEngine")))(
    "%s is shown what was said before the restart",
    async (participant) => {
      const memory = await open(participant);
      const { reply } = await people[participant](memory, "I am Alice");
      await memory.flush();
      const { shown } = await people[participant](await open(participant), "Who am I?");
      const context = shown[0]?.map(({ content }) => content).join("\n");
      expect(context).toContain("I am Alice");
      expect(context).toContain(reply);
    },
  );

  test("ContextChatEngine, which would forget the conversation, refuses to begin", async () => {
    const memory = await open("context");
    const turn = people.ContextChatEngine(memory, "I am Alice");
    await expect(turn).rejects.toThrow("two copies of @llamaindex/core");
  });

  test("a memory given with a call, which would be forgotten, is refused", async () => {
    const chatHistory = await open("call");
    const llm = new (offlineLLM(engines.llamaindex))();
    const engine = new engines.llamaindex.SimpleChatEngine({ llm });
    const turn = engine.chat({ message: "I am Alice", chatHistory });
    await expect(turn).rejects.toThrow("two copies of @llamaindex/core");
  });
});
