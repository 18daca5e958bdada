/**
 * OpenAI's responses without a framework: the items that the SDK gives are stored as they are, reasoning included, and sent
 * again after a restart.
 *
 *     npx tsx openai-responses.ts ada "How is the weather in Rome?"
 *     npx tsx openai-responses.ts ada "And now?"
 */
import { nativeContext, sessionKey, sqliteChatStore } from "@chatstore/sqlite";
import OpenAI from "openai";

/** None of a response has `null` for an id, which the SDK's type allows in a request. */
type Item = OpenAI.Responses.ResponseInputItem & { id?: string };

const store = sqliteChatStore<Item>({ path: "chat.db" });
await store.open();
const client = new OpenAI(); // OPENAI_API_KEY, OPENAI_BASE_URL

const weather: OpenAI.Responses.FunctionTool = {
  type: "function",
  name: "weather",
  description: "The weather of a city",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  strict: false,
};

async function chat(user: string, message: string): Promise<string> {
  const key = sessionKey({ user });
  await store.addMessage(key, { role: "user", content: message });
  for (;;) {
    const response = await client.responses.create({
      model: "gpt-4.1",
      instructions: "You know the weather.",
      input: nativeContext(await store.getMessages(key, { last: 100 })),
      tools: [weather],
      // The conversation is in this store: OpenAI need not keep it, and gives reasoning along.
      store: false,
      include: ["reasoning.encrypted_content"],
    });
    await store.addMessages(key, response.output as Item[]);
    const results = response.output
      .filter((item) => item.type === "function_call")
      .map((call) => {
        const { city } = JSON.parse(call.arguments) as { city: string };
        const output = `Sunny in ${city}`;
        return { type: "function_call_output" as const, call_id: call.call_id, output };
      });
    if (results.length === 0) return response.output_text;
    await store.addMessages(key, results); // all of them in one step
  }
}

const [user = "ada", message = "How is the weather in Rome?"] = process.argv.slice(2);
console.log(await chat(user, message));
await store.close();
