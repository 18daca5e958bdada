/**
 * A chat endpoint that streams. A reader who leaves in the middle of a reply, or a killed server, loses nothing of what was
 * said until then.
 *
 *     npx tsx hono.ts
 *     curl -N localhost:3000/chat -H "Authorization: Bearer token-of-ada" -d '{"message": "Hello"}'
 */
import { persistentMemory } from "@chatstore/llamaindex";
import { sessionKey, sqliteChatStore } from "@chatstore/sqlite";
import { serve } from "@hono/node-server";
import { Hono } from "hono";
import { streamText } from "hono/streaming";
import { createMemory, SimpleChatEngine } from "llamaindex";
import { signedInUser } from "./login.ts";
import { llm } from "./model.ts";

const store = sqliteChatStore({ path: "chat.db" });
await store.open();

const app = new Hono();

app.post("/chat", async (c) => {
  const user = signedInUser(c.req.header("Authorization"));
  if (user === undefined) return c.text("Sign in first", 401);
  const { message } = await c.req.json<{ message: string }>();

  // Memory and engine belong to this request; the conversation is in the store, where every process finds it.
  const key = sessionKey({ user });
  const memory = await persistentMemory(createMemory, { store, key, window: 100 });
  const engine = new SimpleChatEngine({ llm, memory });
  const reply = await engine.chat({ message, stream: true });

  c.header("X-Served-By", String(process.pid)); // of the four in cluster.ts
  return streamText(c, async (stream) => {
    for await (const { delta } of memory.keepPartialReply(reply)) {
      if (stream.aborted) break; // the reader has left
      await stream.write(delta);
    }
    await memory.flush(); // the response ends when its conversation is stored
  });
});

serve({ fetch: app.fetch, port: Number(process.env.PORT ?? 3000) }, ({ port }) => {
  console.log(`http://localhost:${port}`);
});
