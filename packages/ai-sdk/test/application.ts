/** The application whose memory is tested: a route for a chat, and a tab of a browser. */
import type { Server as HttpServer } from "node:http";
import { setTimeout as pause } from "node:timers/promises";
import { type ChatStore, ChatStoreError, sessionKey } from "@chatstore/core";
import { serve } from "@hono/node-server";
import type { ToolSet, UIMessage, UIMessageStreamWriter } from "ai";
import * as newest from "ai";
import * as six from "ai-6";
import * as oldest from "ai-oldest";
import { aiSdkChat, type ChatRequest } from "../src/index.ts";
import { scriptedModel } from "./model.ts";

export const sdks = { newest, six, oldest } as unknown as Record<string, typeof newest>;
export type Sdk = typeof newest;

export interface Settings {
  readonly store: ChatStore;
  readonly sdk: Sdk;
  /** A tool that the process does not survive. */
  readonly dieIn?: string | undefined;
  /** Without step callbacks in its own response, version 6 has them in this. */
  readonly writes?: boolean | undefined;
}

export const keyOf = (id: string) => sessionKey({ user: "alice", conversation: id });

export interface Application {
  readonly url: string;
  /** Errors that no client was told. */
  readonly errors: unknown[];
  close(): Promise<void>;
}

async function hasAnswer(store: ChatStore): Promise<boolean> {
  const { sessions } = await store.listSessions({ user: "alice", limit: 1 });
  return (sessions[0]?.messageCount ?? 0) > 1;
}

function toolsOf({ sdk, store, dieIn }: Settings): ToolSet {
  const die = (name: string) => {
    if (name === dieIn) process.kill(process.pid, "SIGKILL");
  };
  const schema = (properties: object) =>
    sdk.jsonSchema<Record<string, string>>({ type: "object", properties } as never);
  const tools = {
    get_weather: sdk.tool({
      inputSchema: schema({ city: { type: "string" } }),
      execute: async ({ city }) => {
        die("get_weather");
        return `rain in ${city}`;
      },
    }),
    get_news: sdk.tool({
      inputSchema: schema({}),
      execute: async () => {
        if (dieIn === "get_news") {
          // Steps are saved beside what comes next, and the first versions of 6 do not save them.
          while (sdk !== sdks["oldest"] && !(await hasAnswer(store))) await pause(10);
          die("get_news");
        }
        return "none";
      },
    }),
    delete_file: sdk.tool({
      inputSchema: schema({ name: { type: "string" } }),
      needsApproval: true,
      execute: async ({ name }) => {
        die("delete_file");
        return `${name} is gone`;
      },
    }),
    get_location: sdk.tool({ inputSchema: schema({}) }), // the tab answers it
  };
  return tools as unknown as ToolSet;
}

export async function startApplication(settings: Settings): Promise<Application> {
  const { store, sdk, writes } = settings;
  const tools = toolsOf(settings);
  const errors: unknown[] = [];
  const validate = (messages: UIMessage[]) =>
    sdk.validateUIMessages({ messages, tools: tools as never }) as Promise<UIMessage[]>;
  const post = async (request: Request): Promise<Response> => {
    const body = (await request.json()) as ChatRequest & {
      readonly id: string;
      readonly streamId?: string;
    };
    const chat = aiSdkChat({ store, key: keyOf(body.id), validate });
    const { messages } = await chat.receive(body, { streamId: body.streamId });
    const options = {
      model: scriptedModel(),
      tools,
      messages: await sdk.convertToModelMessages(messages, {
        tools,
        ignoreIncompleteToolCalls: true,
      }),
      stopWhen: sdk.stepCountIs(5),
      maxRetries: 0,
      onError: () => undefined,
      ...(request.headers.has("stoppable") && { abortSignal: request.signal }),
    };
    const streamOptions = {
      ...chat.streamOptions(messages),
      onError: (error: unknown) => {
        errors.push(error);
        return String(error);
      },
    };
    if (!writes) {
      return sdk.streamText(options).toUIMessageStreamResponse(streamOptions);
    }
    const stream = sdk.createUIMessageStream({
      ...streamOptions,
      execute: ({ writer }: { writer: UIMessageStreamWriter }) =>
        writer.merge(sdk.streamText(options).toUIMessageStream({ sendStart: true })),
    } as never);
    const { consumeSseStream } = streamOptions;
    return sdk.createUIMessageStreamResponse({ stream, consumeSseStream });
  };
  const respond = async (request: Request): Promise<Response> => {
    try {
      if (request.method === "POST") return await post(request);
      const id = new URL(request.url).searchParams.get("id") as string;
      return Response.json(await aiSdkChat({ store, key: keyOf(id), validate }).load());
    } catch (error) {
      if (!(error instanceof ChatStoreError)) errors.push(error);
      const code = error instanceof ChatStoreError ? error.code : "?";
      return new Response(code, { status: code === "VERSION_CONFLICT" ? 409 : 500 });
    }
  };
  const server = serve({ fetch: respond, port: 0, hostname: "127.0.0.1" });
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as { readonly port: number };
  return {
    url: `http://127.0.0.1:${port}/`,
    errors,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        (server as HttpServer).closeAllConnections();
      }),
  };
}

/** What a tab does, with the SDK's own client. */
export function openTab(
  sdk: Sdk,
  url: string,
  id: string,
  messages: UIMessage[] = [],
  headers: Record<string, string> = {},
) {
  let number = 0;
  const tab = Math.random().toString(36).slice(2);
  class Tab extends sdk.AbstractChat<UIMessage> {}
  const state = {
    status: "ready" as const,
    error: undefined,
    messages: [...messages],
    pushMessage(message: UIMessage) {
      state.messages = [...state.messages, message];
    },
    popMessage() {
      state.messages = state.messages.slice(0, -1);
    },
    replaceMessage(index: number, message: UIMessage) {
      state.messages = state.messages.with(index, message);
    },
    snapshot: <T>(thing: T): T => structuredClone(thing),
  };
  const chat: InstanceType<typeof Tab> = new Tab({
    id,
    state,
    generateId: () => `${tab}-${++number}`,
    transport: new sdk.DefaultChatTransport({ api: url, headers }),
    sendAutomaticallyWhen: (options) =>
      sdk.lastAssistantMessageIsCompleteWithToolCalls(options) ||
      sdk.lastAssistantMessageIsCompleteWithApprovalResponses(options),
    onToolCall: ({ toolCall: { toolName, toolCallId } }) => {
      if (toolName !== "get_location") return;
      void chat.addToolOutput({ tool: toolName as never, toolCallId, output: "Bonn" as never });
    },
  });
  return chat;
}

/** What a conversation says. */
export function textsOf(messages: readonly UIMessage[]): string[] {
  return messages.map(({ role, parts }) => {
    const texts = parts.map((part) => {
      if (part.type === "text") return part.text;
      return "toolCallId" in part ? `[${part.state}]` : "";
    });
    return `${role}: ${texts.join("")}`;
  });
}
