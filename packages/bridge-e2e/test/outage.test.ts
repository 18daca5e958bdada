/** The store is away for a while. */
import { Child } from "@chatstore/bridge-e2e";
import { sessionKey } from "@chatstore/core";
import { persistentMemory } from "@chatstore/llamaindex";
import { createMemory } from "llamaindex";
import { describe, test } from "vitest";
import { onEveryBackend, type Place } from "./backends.ts";

const say = (...texts: string[]) => texts.map((text) => ({ say: text }));
const failed = /^(BACKEND|TIMEOUT)$/;

/** An outage is mostly waiting: all backends have theirs at the same time. */
await onEveryBackend(define, describe.concurrent);

function define({ config, store, outages }: Place) {
  /** What a model is shown by another process. */
  const context = async (key: string) => {
    const memory = await persistentMemory(createMemory, { store: store(), key });
    return (await memory.getLLM()).map(({ content }) => content);
  };

  test.sequential.for(Object.entries(outages))(
    "while the store %s agents answer, and later all they said is there, once",
    async ([name, outage], { expect, onTestFinished }) => {
      const alice = sessionKey({ user: "alice", conversation: name });
      const bob = sessionKey({ user: "bob", conversation: name });
      const [surviving, dying] = [1, 2].map(() => {
        const child = new Child({ ...config, timeout: 1_000 });
        onTestFinished(() => child.end());
        return child;
      }) as [Child, Child];
      const { ask } = surviving;
      /** Also on a busy machine, where a second may be too short for the first attempt. */
      const flushed = ({ ask }: Child, key: string) =>
        expect.poll(() => ask.flush(key), { timeout: 20_000 }).toBeUndefined();
      await ask.perform(alice, say("before"));
      await dying.ask.perform(bob, say("before"));
      await Promise.all([flushed(surviving, alice), flushed(dying, bob)]);
      const heard = await ask.heard(alice);

      await outage.begin();
      await ask.perform(alice, say("one", "two"));
      await dying.ask.perform(bob, say("one", "two"));
      expect(await ask.flush(alice)).toMatch(failed);
      expect(await dying.ask.flush(bob)).toMatch(failed);
      // Of both together.
      expect(await ask.heard(alice)).toEqual([...heard, expect.stringMatching(failed)]);
      const { reply } = await ask.continue(alice, "agent", "How is the weather?");
      await dying.kill();

      await outage.end();
      await ask.perform(alice, say("after"));
      await flushed(surviving, alice);
      await surviving.kill();
      const forecasts = ["Rome", "Oslo", "Lima", "Cairo"].map((city) => `Sunny in ${city}`);
      expect(await context(alice)).toEqual([
        "before",
        "one",
        "two",
        "How is the weather?",
        ...["", forecasts[0], "", forecasts[1], forecasts[2], "", forecasts[3]],
        reply,
        "after",
      ]);
      const survivors = await context(bob);
      expect(survivors).not.toEqual([]);
      expect(survivors).toEqual(["before", "one", "two"].slice(0, survivors.length));
    },
  );
}
