/**
 * A chat in the terminal, over a document, that goes on where it was: also after Ctrl-C, and after `kill -9`.
 *
 *     npx tsx chat-engine.ts
 */
import { createInterface } from "node:readline";
import { persistentMemory } from "@chatstore/llamaindex";
import { sessionKey, sqliteChatStore } from "@chatstore/sqlite";
import { ContextChatEngine, createMemory, Document, Settings, VectorStoreIndex } from "llamaindex";
import { embedModel, llm } from "./model.ts";

const store = sqliteChatStore({ path: "chat.db" });
await store.open(); // what is wrong with the store shows now, not at the first message

const memory = await persistentMemory(createMemory, {
  store,
  key: sessionKey({ user: "ada", conversation: "terminal" }),
  window: 100, // of a long conversation, only what a model reads
});

Settings.embedModel = embedModel;
const index = await VectorStoreIndex.fromDocuments([
  new Document({ text: "The shop is open from 9 to 17 o'clock. Returns are free for 30 days." }),
]);
const engine = new ContextChatEngine({
  chatModel: llm,
  retriever: index.asRetriever(),
  chatHistory: memory, // `chatHistory`: a ContextChatEngine ignores `memory`
});

const terminal = createInterface({ input: process.stdin, output: process.stdout });
terminal.prompt();
for await (const message of terminal) {
  const reply = await engine.chat({ message, stream: true });
  for await (const { delta } of memory.keepPartialReply(reply)) process.stdout.write(delta);
  await memory.flush(); // the reply is added without being awaited; now it is stored
  process.stdout.write("\n");
  terminal.prompt();
}
await store.close();
