/**
 * Gemini's contents without a framework: what the SDK gives is stored as it is, and sent again after a restart.
 *
 *     npx tsx gemini.ts ada "How is the weather in Rome?"
 *     npx tsx gemini.ts ada "And now?"
 */
import { nativeContext, sessionKey, sqliteChatStore } from "@chatstore/sqlite";
import { type Content, GoogleGenAI, type Tool, Type } from "@google/genai";

const store = sqliteChatStore<Content>({ path: "chat.db" });
await store.open();
const client = new GoogleGenAI({}); // GEMINI_API_KEY, GOOGLE_GEMINI_BASE_URL

const weather: Tool = {
  functionDeclarations: [
    {
      name: "weather",
      description: "The weather of a city",
      parameters: {
        type: Type.OBJECT,
        properties: { city: { type: Type.STRING } },
        required: ["city"],
      },
    },
  ],
};

async function chat(user: string, message: string): Promise<string> {
  const key = sessionKey({ user });
  await store.addMessage(key, { role: "user", parts: [{ text: message }] });
  for (;;) {
    const response = await client.models.generateContent({
      model: "gemini-2.5-flash",
      contents: nativeContext(await store.getMessages(key, { last: 100 })),
      config: { systemInstruction: "You know the weather.", tools: [weather] },
    });
    const answer = response.candidates?.[0]?.content;
    if (answer === undefined) throw new Error("The model gave no answer");
    await store.addMessage(key, answer);
    const results = (answer.parts ?? []).flatMap(({ functionCall: call }) => {
      if (call === undefined) return [];
      const { id, name = "", args } = call;
      const response = { result: `Sunny in ${args?.city}` };
      // Gemini gives an id where it wants one back.
      return { functionResponse: { name, response, ...(id !== undefined && { id }) } };
    });
    if (results.length === 0) return response.text ?? "";
    await store.addMessage(key, { role: "user", parts: results }); // all of them in one message
  }
}

const [user = "ada", message = "How is the weather in Rome?"] = process.argv.slice(2);
console.log(await chat(user, message));
await store.close();
