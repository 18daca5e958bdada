/**
 * OpenAI's chat completions without a framework: what the SDK gives is stored as it is, and sent again after a restart.
 *
 *     npx tsx openai-chat.ts ada "How is the weather in Rome?"
 *     npx tsx openai-chat.ts ada "And now?"
 */
import { nativeContext, sessionKey, sqliteChatStore } from "@chatstore/sqlite";
import OpenAI from "openai";

const store = sqliteChatStore<OpenAI.ChatCompletionMessageParam>({ path: "chat.db" });
await store.open();
const client = new OpenAI(); // OPENAI_API_KEY, OPENAI_BASE_URL

const weather: OpenAI.ChatCompletionFunctionTool = {
  type: "function",
  function: {
    name: "weather",
    description: "The weather of a city",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};

async function chat(user: string, message: string): Promise<string> {
  const key = sessionKey({ user });
  await store.addMessage(key, { role: "user", content: message });
  for (;;) {
    const messages = nativeContext(await store.getMessages(key, { last: 100 }));
    const { choices } = await client.chat.completions.create({
      model: "gpt-4.1",
      messages: [{ role: "system", content: "You know the weather." }, ...messages],
      tools: [weather],
    });
    const answer = choices[0]?.message;
    if (answer === undefined) throw new Error("The model gave no answer");
    await store.addMessage(key, answer);
    if (answer.tool_calls === undefined) return answer.content ?? "";
    const results = answer.tool_calls
      .filter((call) => call.type === "function")
      .map((call) => {
        const { city } = JSON.parse(call.function.arguments) as { city: string };
        return { role: "tool" as const, tool_call_id: call.id, content: `Sunny in ${city}` };
      });
    await store.addMessages(key, results); // all of them in one step
  }
}

const [user = "ada", message = "How is the weather in Rome?"] = process.argv.slice(2);
console.log(await chat(user, message));
await store.close();
