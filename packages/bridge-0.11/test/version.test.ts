import { memoryChatStore, sessionKey } from "@chatstore/core";
import { persistentMemory } from "@chatstore/llamaindex";
import * as llamaindex from "llamaindex";
import { expect, test } from "vitest";

test("these tests run with LlamaIndex 0.11, whose compiler knows the memory as its own", async () => {
  const memory: llamaindex.Memory = await persistentMemory(llamaindex.createMemory, {
    store: memoryChatStore(),
    key: sessionKey({ user: "alice" }),
    tokenLimit: 100,
    memoryBlocks: [llamaindex.staticBlock({ content: "Be kind" })],
  });
  expect(memory).toBeInstanceOf(llamaindex.Memory);
  expect(llamaindex).not.toHaveProperty("vectorBlock");
});
