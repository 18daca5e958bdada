import { EventEmitter, once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { json } from "node:stream/consumers";
import { setTimeout } from "node:timers/promises";
import { type Answer, answerTo, type Model, type Seen } from "./model.js";
import { type Rule, refusal } from "./rules.js";

/** The API of a provider, as far as chats need it. */
export interface Api<Body> {
  readonly rules: readonly Rule<Body>[];
  /** What the model is shown. */
  see(body: Body): readonly Seen[];
  hasTools(body: Body): boolean;
  isStream(body: Body, path: string): boolean;
  /** The answer as it is sent: in one piece, or in several of a stream. */
  answer(
    answer: Answer,
    stream: boolean,
    request: { readonly body: Body; readonly path: string },
  ): readonly string[];
  readonly streamType: string;
  refuse(message: string): { readonly status: number; readonly body: unknown };
}

/** A server of an API, and what it was sent. */
export interface FakeApi<Body> {
  readonly url: string;
  readonly accepted: Body[];
  /** What it answered instead, each with the request. */
  readonly refused: { readonly message: string; readonly body: Body }[];
  /** Rejects as soon as it refuses a request: not all who send one hear of it. */
  refusing(): Promise<never>;
  /** Resolves when so many answers were asked for, and begun or not, that will never come to an end. */
  held(count: number): Promise<void>;
  close(): Promise<void>;
}

/** Serve an API on the loopback interface, with a model behind it. */
export async function serve<Body>(api: Api<Body>, model: Model = answerTo): Promise<FakeApi<Body>> {
  const accepted: Body[] = [];
  const refused: { message: string; body: Body }[] = [];
  const happenings = new EventEmitter();
  let held = 0;
  const server = createServer(async (request: IncomingMessage, response) => {
    const body = (await json(request)) as Body;
    const message = refusal(api.rules, body);
    if (message !== undefined) {
      refused.push({ message, body });
      happenings.emit("refused", message);
      const refusing = api.refuse(message);
      response.writeHead(refusing.status, { "content-type": "application/json" });
      response.end(JSON.stringify(refusing.body));
      return;
    }
    accepted.push(body);
    const { answer, hold } = model(api.see(body), api.hasTools(body));
    const path = request.url ?? "";
    const stream = api.isStream(body, path);
    const pieces = api.answer(answer, stream, { body, path });
    if (hold !== "whole") {
      response.writeHead(200, { "content-type": stream ? api.streamType : "application/json" });
      for (const piece of hold === "half" ? pieces.slice(0, -2) : pieces) {
        response.write(piece);
        await setTimeout(); // each in a chunk of its own
      }
      if (hold === undefined) return void response.end();
    }
    held++;
    happenings.emit("held");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    accepted,
    refused,
    async refusing() {
      const [message] = await once(happenings, "refused");
      throw new Error(String(message));
    },
    async held(count) {
      while (held < count) await once(happenings, "held");
    },
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

/** A text in words, as models stream it. */
export function inWords(text: string): string[] {
  return text.split(/(?<= )/);
}

/** Events of a server, with data alone. */
export function events(data: readonly unknown[]): string[] {
  return data.map((one) => `data: ${typeof one === "string" ? one : JSON.stringify(one)}\n\n`);
}
