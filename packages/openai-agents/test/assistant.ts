/** The application whose memory is tested: agents with tools, a hand-off, an approval and a guardrail. */
import * as newest from "@openai/agents";
import OpenAI from "openai";
import { z } from "zod";

/**
 * @param dieIn A tool that the process does not survive.
 * @param sdk Another version of the SDK.
 */
export function assistant(baseURL: string, dieIn?: string, sdk = newest) {
  const { Agent, OpenAIProvider, Runner, tool } = sdk;
  const die = (name: string) => {
    if (name === dieIn) process.kill(process.pid, "SIGKILL");
  };
  const billing = new Agent({ name: "Billing", instructions: "You refund." });
  const agent = new Agent({
    name: "Support",
    instructions: "You help.",
    handoffs: [billing],
    tools: [
      tool({
        name: "get_weather",
        description: "The weather in a city",
        parameters: z.object({ city: z.string() }),
        execute: async ({ city }) => {
          die("get_weather");
          return `rain in ${city}`;
        },
      }),
      tool({
        name: "delete_file",
        description: "Deletes a file",
        parameters: z.object({ name: z.string() }),
        needsApproval: true,
        execute: async ({ name }) => {
          die("delete_file");
          return `${name} is gone`;
        },
      }),
    ],
    inputGuardrails: [
      {
        name: "manners",
        runInParallel: false,
        execute: async ({ input }) => ({
          tripwireTriggered: JSON.stringify(input).includes("curse"),
          outputInfo: {},
        }),
      },
    ],
  });
  const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
  const modelProvider = new OpenAIProvider({ openAIClient: client, useResponses: true });
  const runner = new Runner({ modelProvider, model: "gpt-4.1", tracingDisabled: true });
  return { agent, runner, client };
}
