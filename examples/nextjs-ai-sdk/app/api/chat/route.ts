import { VersionConflictError } from "@chatstore/sqlite";
import { convertToModelMessages, generateId, stepCountIs, streamText } from "ai";
import { chatOf } from "../../../lib/chats";
import { model } from "../../../lib/model";
import { begin, keep } from "../../../lib/streams";
import { tools } from "../../../lib/tools";

export async function POST(request: Request): Promise<Response> {
  const body = await request.json();
  const chat = chatOf(body.id);
  const streamId = generateId();
  try {
    const { messages } = await chat.receive(body, { streamId });
    const result = streamText({
      model,
      tools,
      messages: await convertToModelMessages(messages, { tools }),
      stopWhen: stepCountIs(5),
      abortSignal: begin(streamId), // not the request's: a page that reloads goes on with the answer
    });
    return result.toUIMessageStreamResponse({
      ...chat.streamOptions(messages),
      consumeSseStream: ({ stream }) => keep(streamId, stream),
    });
  } catch (error) {
    if (!(error instanceof VersionConflictError)) throw error;
    return new Response("This conversation went on in another tab. Reload to see it.", {
      status: 409,
    });
  }
}
