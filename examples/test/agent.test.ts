import { expect, test } from "vitest";
import { newFolder, Program } from "./program.ts";

test("an agent killed within a tool knows what it has done: the user does not ask again, and no finished tool runs again", async () => {
  const folder = newFolder();
  const first = new Program("agent.ts", folder, ["ada", "Refund order 1001"]);
  await first.prints(/\(looking order 1001 up\)\nRefund order 1001\? /);
  await first.kill();

  const second = new Program("agent.ts", folder, ["ada", "Go on"]);
  await second.prints(/^Refund order 1001\? /); // and nothing before it
  second.write("y");
  expect(await second.ends()).toContain(
    "You said “Refund order 1001”, “Go on”. " +
      "I found “Order 1001: 2 kettles, paid”, “Order 1001 is refunded”.\n",
  );
});

test("users of one agent do not get into each other's conversation", async () => {
  const folder = newFolder();
  await new Program("agent.ts", folder, ["ada", "I am Ada"]).ends();
  const other = new Program("agent.ts", folder, ["bob", "Who am I?"]);
  expect(await other.ends()).toBe("You said “Who am I?”.\n");
  const again = new Program("agent.ts", folder, ["ada", "Who am I?"]);
  expect(await again.ends()).toBe("You said “I am Ada”, “Who am I?”.\n");
});
