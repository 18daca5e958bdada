import { listChats } from "@chatstore/ai-sdk";
import { chatOf, store, user } from "../../../lib/chats";
import { Chat } from "./chat";

export const dynamic = "force-dynamic";

export default async function Page({ params }: { readonly params: Promise<{ id: string }> }) {
  const { id } = await params;
  const [{ messages }, { chats }] = await Promise.all([
    chatOf(id).load(),
    listChats(store, { user }),
  ]);
  return (
    <>
      <nav>
        <a href="/">New chat</a>
        {chats.map((chat) => (
          <div key={chat.key}>
            <a href={`/chat/${chat.id}`}>{chat.title}</a>
          </div>
        ))}
      </nav>
      <Chat id={id} stored={messages} />
    </>
  );
}
