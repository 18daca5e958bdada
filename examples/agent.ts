/**
 * An agent with tools that serves many users, each with a memory of their own. End it while it waits for your approval, and
 * start it again: it knows what it has done already.
 *
 *     npx tsx agent.ts ada "Refund order 1001"
 *     npx tsx agent.ts ada "Go on"
 */
import { createInterface } from "node:readline/promises";
import { persistentMemory } from "@chatstore/llamaindex";
import { sessionKey, sqliteChatStore } from "@chatstore/sqlite";
import { tool } from "@llamaindex/core/tools";
import { agent } from "@llamaindex/workflow";
import { createMemory } from "llamaindex";
import { llm } from "./model.ts";

const terminal = createInterface({ input: process.stdin, output: process.stdout });
const parameters = {
  type: "object",
  properties: { order: { type: "string", description: "The number of the order" } },
  required: ["order"],
} as const;

const findOrder = tool(
  ({ order }: { order: string }) => {
    console.log(`(looking order ${order} up)`);
    return `Order ${order}: 2 kettles, paid`;
  },
  { name: "findOrder", description: "Look an order up", parameters },
);

const refund = tool(
  async ({ order }: { order: string }) => {
    // A call that was cut off has no result, and is made again: a real payment needs an idempotency key.
    const approval = await terminal.question(`Refund order ${order}? (y/n) `);
    return `Order ${order} is ${approval === "y" ? "refunded" : "not refunded: refused"}`;
  },
  { name: "refund", description: "Pay the price of an order back", parameters },
);

const store = sqliteChatStore({ path: "chat.db" });
await store.open();
/** One for all users, hence without a `memory`: that would be everybody's. */
const support = agent({ llm, tools: [findOrder, refund], systemPrompt: "You work in support." });

async function chat(user: string, message: string): Promise<string> {
  const memory = await persistentMemory(createMemory, { store, key: sessionKey({ user }) });
  const { data } = await support.run(message, { state: memory.runState(support) });
  await memory.flush(); // an agent does not await what it adds; now it is stored
  return String(data.result);
}

const [user = "ada", message = "Refund order 1001"] = process.argv.slice(2);
console.log(await chat(user, message));
terminal.close();
await store.close();
