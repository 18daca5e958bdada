/** What AWS Lambda does with a handler: one event after the other, and frozen from the moment that it has answered. */
import { writeSync } from "node:fs";
import { createInterface } from "node:readline";
import type { APIGatewayProxyEventV2 } from "aws-lambda";
import { handler } from "../lambda.ts";

for await (const line of createInterface({ input: process.stdin })) {
  const response = await handler(JSON.parse(line) as APIGatewayProxyEventV2);
  writeSync(1, `${JSON.stringify(response)}\n`);
  process.kill(process.pid, "SIGSTOP");
  writeSync(1, "thawed\n");
}
