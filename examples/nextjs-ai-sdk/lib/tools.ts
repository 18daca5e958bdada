import { jsonSchema, tool } from "ai";

export const tools = {
  get_weather: tool({
    description: "The weather in a city",
    inputSchema: jsonSchema<{ city: string }>({
      type: "object",
      properties: { city: { type: "string" } },
    }),
    execute: async ({ city }) => `rain in ${city}`,
  }),
  delete_file: tool({
    description: "Deletes a file, when a person agrees",
    inputSchema: jsonSchema<{ name: string }>({
      type: "object",
      properties: { name: { type: "string" } },
    }),
    needsApproval: true,
    execute: async ({ name }) => `${name} is gone`,
  }),
};
