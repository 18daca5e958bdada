/**
 * A serverless handler, here for AWS Lambda behind API Gateway or a function URL. Instances come and go, and each is frozen
 * between two requests, so the conversation is in a database beside them: DATABASE_URL.
 */
import { persistentMemory } from "@chatstore/llamaindex";
import { postgresChatStore, sessionKey } from "@chatstore/postgres";
import { tool } from "@llamaindex/core/tools";
import { agent } from "@llamaindex/workflow";
import type { APIGatewayProxyEventV2, APIGatewayProxyStructuredResultV2 } from "aws-lambda";
import { createMemory } from "llamaindex";
import { signedInUser } from "./login.ts";
import { llm } from "./model.ts";

const findOrder = tool(({ order }: { order: string }) => `Order ${order}: on its way`, {
  name: "findOrder",
  description: "Look an order up",
  parameters: { type: "object", properties: { order: { type: "string" } }, required: ["order"] },
});

// Made once for all requests that this instance will serve.
const store = postgresChatStore({ url: process.env.DATABASE_URL });
const support = agent({ llm, tools: [findOrder] });

export async function handler(
  event: APIGatewayProxyEventV2,
): Promise<APIGatewayProxyStructuredResultV2> {
  const user = signedInUser(event.headers.authorization);
  if (user === undefined) return { statusCode: 401, body: "Sign in first" };
  const { message } = JSON.parse(event.body ?? "{}") as { message: string };

  const memory = await persistentMemory(createMemory, { store, key: sessionKey({ user }) });
  const { data } = await support.run(message, { state: memory.runState(support) });
  await memory.flush(); // before returning: what is still under way when the instance freezes is lost with it
  return { statusCode: 200, body: String(data.result) };
}
