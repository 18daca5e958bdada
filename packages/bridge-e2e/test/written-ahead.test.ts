/** A process that is killed by the very tool that it calls: what the next one knows of the call. */
import { Child, refusal } from "@chatstore/bridge-e2e";
import { sessionKey } from "@chatstore/core";
import { expect, test } from "vitest";
import { onEveryBackend } from "./backends.ts";

const key = (conversation: string) => sessionKey({ user: "alice", conversation });

/** Each city with those that are asked for no later; Oslo and Lima are asked for at once. */
const turns = {
  Rome: ["Rome"],
  Lima: ["Rome", "Oslo", "Lima"],
  Cairo: ["Rome", "Oslo", "Lima", "Cairo"],
};

await onEveryBackend(({ config, store }) => {
  test.each(["agent", "multiAgent"] as const)(
    "%s: a call is stored before its tool runs, and the next process goes on behind it",
    async (who) => {
      const next = new Child(config);
      const die = async ([city, cities]: readonly [string, readonly string[]]) => {
        const conversation = key(`${who} dies in ${city}`);
        const child = new Child(config);
        const turn = child.ask.die(conversation, who, "How is it?", city);
        await expect(turn).rejects.toThrow("SIGKILL");
        const messages = await store().getMessages(conversation);
        const calls = messages.flatMap(
          ({ options }) => (options as { toolCall?: ToolCall[] })?.toolCall ?? [],
        );
        expect(calls.flatMap(({ input }) => input.city ?? [])).toEqual(cities);
        const { shown } = await next.ask.turn(conversation, who, "And now?");
        for (const request of shown) expect(refusal(request)).toBeUndefined();
      };
      await Promise.all(Object.entries(turns).map(die));
      await next.kill();
    },
  );
});

interface ToolCall {
  readonly input: { readonly city?: string };
}
