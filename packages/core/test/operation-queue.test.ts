import { setImmediate } from "node:timers/promises";
import { expect, test } from "vitest";
import { OperationQueue } from "../src/operation-queue.ts";

test("nothing is kept of a lane whose operations have settled", async () => {
  const queue = new OperationQueue();
  const keys = Array.from({ length: 20_000 }, (_, n) => `key ${n}`);
  const results = keys.map((key, n) =>
    queue.run({ takes: [key, "all"], waits: [] }, async () => {
      if (n % 100 === 0) throw new Error("refused");
    }),
  );
  expect(queue.busy(() => true)).toHaveLength(keys.length + 1);
  await Promise.allSettled(results);
  await setImmediate();
  expect(queue.busy(() => true)).toEqual([]);
});
