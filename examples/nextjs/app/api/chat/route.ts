/** A Next.js route handler (App Router): put it into your `app/api/chat/`, and your login and model beside it. */
import { persistentMemory } from "@chatstore/llamaindex";
import { sessionKey, sqliteChatStore } from "@chatstore/sqlite";
import { createMemory, SimpleChatEngine } from "llamaindex";
import { signedInUser } from "../../../../login.ts";
import { llm } from "../../../../model.ts";

/** `shared`: each hot reload evaluates this file again, and gets the handle that is open already. */
const store = sqliteChatStore({ path: "chat.db", shared: true });

export async function POST(request: Request): Promise<Response> {
  const user = signedInUser(request.headers.get("Authorization"));
  if (user === undefined) return new Response("Sign in first", { status: 401 });
  const { message } = (await request.json()) as { message: string };

  const key = sessionKey({ user });
  const memory = await persistentMemory(createMemory, { store, key, window: 100 });
  const engine = new SimpleChatEngine({ llm, memory });
  const reply = await engine.chat({ message, stream: true });

  const encoder = new TextEncoder();
  const chunks = memory.keepPartialReply(reply);
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await chunks.next();
      if (!done) return controller.enqueue(encoder.encode(value.delta));
      await memory.flush(); // the response ends when its conversation is stored
      controller.close();
    },
    async cancel() {
      await chunks.return(); // the reader has left: keep what was said until then
      await memory.flush();
    },
  });
  return new Response(body, { headers: { "Content-Type": "text/plain; charset=utf-8" } });
}
