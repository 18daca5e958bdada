import { UI_MESSAGE_STREAM_HEADERS } from "ai";
import { chatOf } from "../../../../../lib/chats";
import { follow, stop } from "../../../../../lib/streams";

type Context = { readonly params: Promise<{ id: string }> };

/** A reloaded page goes on with the answer that is under way. */
export async function GET(_: Request, { params }: Context): Promise<Response> {
  const chat = chatOf((await params).id);
  const { activeStreamId } = await chat.load({ last: 0 });
  if (activeStreamId === undefined) return new Response(null, { status: 204 });
  const stream = follow(activeStreamId);
  if (stream !== undefined) {
    return new Response(stream.pipeThrough(new TextEncoderStream()), {
      headers: UI_MESSAGE_STREAM_HEADERS,
    });
  }
  await chat.endStream(activeStreamId); // its process died
  return new Response(null, { status: 204 });
}

/** The button that stops an answer. */
export async function DELETE(_: Request, { params }: Context): Promise<Response> {
  const { activeStreamId } = await chatOf((await params).id).load({ last: 0 });
  if (activeStreamId !== undefined) stop(activeStreamId);
  return new Response(null, { status: 204 });
}
