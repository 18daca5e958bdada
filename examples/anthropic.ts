/**
 * Anthropic's messages without a framework: what the SDK gives is stored as it is, and sent again after a restart.
 *
 *     npx tsx anthropic.ts ada "How is the weather in Rome?"
 *     npx tsx anthropic.ts ada "And now?"
 */
import Anthropic from "@anthropic-ai/sdk";
import { nativeContext, sessionKey, sqliteChatStore } from "@chatstore/sqlite";

const store = sqliteChatStore<Anthropic.MessageParam>({ path: "chat.db" });
await store.open();
const client = new Anthropic(); // ANTHROPIC_API_KEY, ANTHROPIC_BASE_URL

const weather: Anthropic.Tool = {
  name: "weather",
  description: "The weather of a city",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

async function chat(user: string, message: string): Promise<string> {
  const key = sessionKey({ user });
  await store.addMessage(key, { role: "user", content: message });
  for (;;) {
    const { role, content } = await client.messages.create({
      model: process.env.ANTHROPIC_MODEL ?? "claude-opus-4-5",
      max_tokens: 4_096,
      system: "You know the weather.",
      messages: nativeContext(await store.getMessages(key, { last: 100 })),
      tools: [weather],
    });
    await store.addMessage(key, { role, content }); // the rest of a response is no message
    const results = content
      .filter((block) => block.type === "tool_use")
      .map(({ id, input }) => {
        const { city } = input as { city: string };
        return { type: "tool_result" as const, tool_use_id: id, content: `Sunny in ${city}` };
      });
    if (results.length === 0) {
      return content.map((block) => (block.type === "text" ? block.text : "")).join("");
    }
    await store.addMessage(key, { role: "user", content: results }); // all of them in one message
  }
}

const [user = "ada", message = "How is the weather in Rome?"] = process.argv.slice(2);
console.log(await chat(user, message));
await store.close();
