import { memoryChatStore, sessionKey } from "@chatstore/core";
import fc from "fast-check";
import { createMemory } from "llamaindex";
import { expect, test } from "vitest";
import { forAll } from "../../core/src/conformance/arbitraries.ts";
import { persistentMemory } from "../src/index.ts";
import {
  anySetting,
  fixedBlocksOnly,
  input,
  isJson,
  modelOf,
  optionsOf,
  toolTurn,
  World,
  withOwnIds,
} from "./conversations.ts";

type Step = "clear" | "restart" | { readonly add: readonly object[] };

/** Tools are sometimes called without a result, or answer twice: whatever was interrupted. */
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.array(input, { minLength: 1, maxLength: 3 }).map((add) => ({ add })) },
  {
    weight: 2,
    arbitrary: toolTurn.chain((turn) => fc.subarray(turn)).map((add) => ({ add })),
  },
  { weight: 1, arbitrary: fc.constant("clear" as const) },
  { weight: 3, arbitrary: fc.constant("restart" as const) },
);
const steps = fc.array(step, { maxLength: 30, size: "max" }).map((some) => {
  const ids = withOwnIds(some.flatMap((one) => (typeof one === "object" ? one.add : [])));
  return some.map((one) =>
    typeof one === "object" ? { add: ids.splice(0, one.add.length) } : one,
  );
});

test("after a restart nothing is different: neither what the model is shown, nor a message", async () => {
  const conversation = fc.record({
    setting: fc.oneof(anySetting, fixedBlocksOnly),
    stale: fc.constantFrom("keep" as const, "refuse" as const, "refresh" as const),
    steps,
  });
  await forAll(conversation, 60, async ({ setting, stale, steps }) => {
    // A block that fails is given the same again; others may be, after a restart.
    fc.pre(!setting.blocks.some(({ kind }) => kind === "vectors") || isJson(steps));
    const store = memoryChatStore();
    const user = (name: string) => {
      const world = new World();
      const key = sessionKey({ user: name });
      return () =>
        persistentMemory(createMemory, {
          store,
          key,
          stale,
          onWarning: () => {},
          ...optionsOf(setting, world, true),
          logger: { log() {}, warn() {}, error() {} },
        });
    };
    const running = await user("runs on")();
    const open = user("restarts");
    let restarted = await open();
    /** What a model is shown by the options' limits, and one that reads all. */
    const shown = async (memory: typeof running) => [
      await memory.getLLM().catch(({ message }: Error) => ({ thrown: message })),
      await memory.getLLM(modelOf(1_000_000)),
    ];
    for (const one of [...steps, "restart" as const]) {
      if (one === "restart") {
        const before = [await restarted.get(), await restarted.get({ type: "vercel" })];
        restarted = await open();
        expect([await restarted.get(), await restarted.get({ type: "vercel" })]).toEqual(before);
      } else {
        for (const memory of [running, restarted]) {
          if (one === "clear") void memory.clear();
          else for (const message of one.add) void memory.add(message);
          await memory.flush();
        }
      }
      expect(await shown(restarted)).toEqual(await shown(running));
    }
  });
});
