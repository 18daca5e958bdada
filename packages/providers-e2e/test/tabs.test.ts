/** Two tabs talk in one session at once, and write in between each other. */
import { persistentMemory } from "@chatstore/llamaindex";
import {
  type FakeApis,
  modelsAt,
  providerNames,
  serveAll,
  talk,
  urlsOf,
} from "@chatstore/providers-e2e";
import { memoryChatStore, sessionKey } from "@chatstore/sqlite";
import { createMemory } from "llamaindex";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const key = sessionKey({ user: "alice" });
let apis: FakeApis;
beforeAll(async () => {
  apis = await serveAll();
});
afterAll(async () => {
  for (const api of Object.values(apis)) await api.close();
});

describe.each(providerNames)("%s", (provider) => {
  test.each(["keep", "refresh"] as const)(
    "accepts what both tabs send (stale: %s), and a third one afterwards",
    async (stale) => {
      const llm = modelsAt(urlsOf(apis))[provider];
      const store = memoryChatStore();
      const open = () => persistentMemory(createMemory, { store, key, stale });
      const { refused, refusing } = apis[provider];
      const [one, other] = [await open(), await open()];

      // While the tool of the first works, the second has a whole turn, and begins another one.
      let further: Promise<string> | undefined;
      const meanwhile = async (city: string) => {
        if (city === "Rome") await talk.agent(other, llm, "And in the second tab?");
        if (city === "Oslo") further = talk.agent(other, llm, "And again?");
      };
      await Promise.race([talk.agent(one, llm, "How is it?", meanwhile), refusing()]);
      await Promise.race([further, refusing()]);
      await one.flush();
      await other.flush();
      expect(refused).toEqual([]);

      const third = await open();
      const reply = talk["tools, not streaming"](third, llm, "And now?");
      expect(await Promise.race([reply, refusing()])).toContain("Sunny in Lima");
      expect(refused).toEqual([]);
    },
  );

  test("accepts the question of a tab behind which another one has answered its own", async () => {
    const llm = modelsAt(urlsOf(apis))[provider];
    const store = memoryChatStore();
    const memory = await persistentMemory(createMemory, { store, key, stale: "refresh" });
    void memory.add({ role: "user", content: "Mine" });
    await memory.flush();
    await store.addMessages(key, [
      { role: "user", content: "Theirs" },
      { role: "assistant", content: "An answer to theirs" },
    ]);
    const messages = await memory.getLLM(llm);
    expect(messages.map(({ content }) => content)).toEqual([
      "Theirs",
      "An answer to theirs",
      "Mine",
    ]);
    await llm.chat({ messages });
    expect(apis[provider].refused).toEqual([]);
  });
});
