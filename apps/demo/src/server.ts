import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import {
  type ChatStore,
  ChatStoreError,
  type ErrorCode,
  parseSessionKey,
  type SessionKey,
  type SessionKeyParts,
  SessionNotFoundError,
  sessionKey,
} from "@chatstore/core";
import { persistentMemory } from "@chatstore/llamaindex";
import { serveStatic } from "@hono/node-server/serve-static";
import { type Context, Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { getCookie, setCookie } from "hono/cookie";
import { HTTPException } from "hono/http-exception";
import { secureHeaders } from "hono/secure-headers";
import { streamSSE } from "hono/streaming";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import {
  type ChatMessage,
  ContextChatEngine,
  createMemory,
  type LLM,
  type LLMChatParamsNonStreaming,
  SimilarityPostprocessor,
  type VectorStoreIndex,
} from "llamaindex";

/** What the routes work with. Nothing in it remembers a conversation but the store. */
export interface Demo {
  readonly store: ChatStore;
  readonly index: VectorStoreIndex;
  readonly model: LLM;
  /** Worker processes behind the port. */
  readonly workers: number;
}

type Env = { Variables: { user: string } };

const tenant = "demo";
const userCookie = "chatstore_demo_user";
const maxMessageLength = 8_000;
const maxTitleLength = 200;
/** The model gets so many of the newest messages; the page shows as many. */
const window = 100;
const systemPrompt =
  "You are the assistant of the Chatstore demo. Answer in a few sentences. Where the passages below help, use them and name " +
  "their source. What the user said earlier stands in the conversation.";

/** Libraries of the page, from `node_modules`. */
const vendor: Readonly<Record<string, string>> = {
  "dompurify.js": import.meta.resolve("dompurify"),
  "marked.js": import.meta.resolve("marked"),
};

/** The web application. */
export function createApp({ store, index, model, workers }: Demo): Hono<Env> {
  const app = new Hono<Env>();

  app.use(
    secureHeaders({
      contentSecurityPolicy: {
        defaultSrc: ["'none'"],
        scriptSrc: ["'self'"],
        styleSrc: ["'self'"],
        imgSrc: ["'self'", "data:"],
        connectSrc: ["'self'"],
        baseUri: ["'none'"],
        formAction: ["'none'"],
        frameAncestors: ["'none'"],
      },
      strictTransportSecurity: false, // the loopback interface speaks plain HTTP
    }),
    refuseForeignHosts,
    async (c, next) => {
      c.header("Cache-Control", "no-cache");
      await next();
      // A connection of its own for each request, so that any of the workers may get it.
      if (workers > 1) c.header("Connection", "close");
    },
    bodyLimit({ maxSize: 64 * 1024 }),
  );
  // With the page already, so that its first requests, which go out together, have one user.
  app.use("/", identifyUser);
  app.use("/api/*", identifyUser);

  app.get("/api/server", (c) =>
    c.json({
      backend: store.name,
      survives: store.capabilities.survives,
      multiProcess: store.capabilities.multiProcess,
      warnings: store.warnings,
      model: model.metadata.model,
      workers,
      process: process.pid,
    }),
  );

  app.get("/api/sessions", async (c) => {
    const page = await store.listSessions({
      tenant,
      user: c.get("user"),
      cursor: c.req.query("cursor"),
    });
    return c.json({
      ...page,
      sessions: page.sessions.map((session) => {
        const { conversation: id } = parseSessionKey(session.key) as SessionKeyParts;
        return { id, ...session };
      }),
    });
  });

  app.post("/api/sessions", async (c) => {
    const title = await readText(c, "title", maxTitleLength);
    const id = randomUUID();
    await store.setTitle(keyOf(c, id), title, { ifVersion: null });
    return c.json({ id, title }, 201);
  });

  app.patch("/api/sessions/:id", async (c) => {
    const title = await readText(c, "title", maxTitleLength);
    await store.setTitle(await findSession(c), title);
    return c.body(null, 204);
  });

  app.delete("/api/sessions/:id", async (c) => {
    await store.deleteMessages(keyOf(c));
    return c.body(null, 204);
  });

  app.delete("/api/me", async (c) => {
    const erased = await store.deleteSessions({ tenant, user: c.get("user") });
    return c.json({ erased });
  });

  app.get("/api/sessions/:id/messages", async (c) => {
    const key = keyOf(c);
    const before = c.req.query("before");
    const range = before === undefined ? { last: window } : { before, limit: window };
    const { session, messages } = await store.readSession(key, range);
    if (session === undefined) throw new SessionNotFoundError(key);
    return c.json({ session, messages });
  });

  app.post("/api/sessions/:id/messages", async (c) => {
    const message = await readText(c, "message", maxMessageLength);
    const key = await findSession(c);

    // All that LlamaIndex needs is made here, for this request, and thrown away after it.
    const memory = await persistentMemory(createMemory, { store, key, window });
    let given: ChatMessage[] = [];
    const engine = new ContextChatEngine({
      chatModel: observe(model, (messages) => {
        given = messages;
      }),
      chatHistory: memory,
      retriever: index.asRetriever({ similarityTopK: 2 }),
      nodePostprocessors: [new SimilarityPostprocessor({ similarityCutoff: 0.1 })],
      systemPrompt,
    });
    const response = await engine.chat({ message, stream: true });

    return streamSSE(c, async (stream) => {
      const send = (event: string, data: unknown) =>
        stream.writeSSE({ event, data: JSON.stringify(data) });
      try {
        await send("given", { process: process.pid, messages: given });
        for await (const { delta } of memory.keepPartialReply(response)) {
          if (stream.aborted) break;
          await send("text", delta);
        }
        // LlamaIndex adds the answer without waiting for it; after this it is stored.
        await memory.flush();
        await send("done", {});
      } catch (error) {
        await send("error", report(error));
      }
    });
  });

  app.get("/vendor/:name", async (c) => {
    const module = vendor[c.req.param("name")];
    if (module === undefined) return c.notFound();
    const source = await readFile(fileURLToPath(module), "utf8");
    return c.body(source, 200, { "Content-Type": "text/javascript; charset=utf-8" });
  });
  app.get("*", serveStatic({ root: fileURLToPath(new URL("../public/", import.meta.url)) }));

  app.notFound((c) => c.json({ code: "NOT_FOUND", message: "There is nothing here" }, 404));
  app.onError((error, c) => {
    const problem = report(error);
    return c.json(problem, problem.status);
  });
  return app;

  /** The key of a conversation that exists. */
  async function findSession(c: Context<Env>): Promise<SessionKey> {
    const key = keyOf(c);
    if ((await store.getSession(key)) === undefined) throw new SessionNotFoundError(key);
    return key;
  }
}

/** A request that cannot be answered as it is. */
class BadRequestError extends Error {
  readonly code = "BAD_REQUEST";
}

interface Problem {
  readonly status: ContentfulStatusCode;
  readonly code: string;
  readonly message: string;
}

const statusOf: Partial<Record<ErrorCode, ContentfulStatusCode>> = {
  INVALID_SESSION_KEY: 400,
  INVALID_MESSAGE: 400,
  INVALID_OPTIONS: 400,
  SERIALIZATION: 400,
  LIMIT_EXCEEDED: 413,
  SESSION_NOT_FOUND: 404,
  MESSAGE_NOT_FOUND: 404,
  VERSION_CONFLICT: 409,
  BACKEND: 503,
  TIMEOUT: 503,
  QUEUE_FULL: 503,
  CLOSED: 503,
};

function toProblem(error: unknown): Problem {
  if (error instanceof ChatStoreError) {
    return { status: statusOf[error.code] ?? 500, code: error.code, message: error.message };
  }
  if (error instanceof BadRequestError) {
    return { status: 400, code: error.code, message: error.message };
  }
  if (error instanceof HTTPException) {
    return { status: error.status, code: "HTTP", message: error.message };
  }
  // What is left comes from the model or is a bug; its details are for the server's output alone.
  return { status: 500, code: "INTERNAL", message: "The answer failed: see the server's output" };
}

function report(error: unknown): Problem {
  const problem = toProblem(error);
  if (problem.status >= 500) console.error(error);
  return problem;
}

/** The user is whoever has the cookie. A real application takes the user from its login. */
async function identifyUser(c: Context<Env>, next: () => Promise<void>): Promise<void> {
  const user = getCookie(c, userCookie) ?? randomUUID();
  c.set("user", user);
  setCookie(c, userCookie, user, {
    httpOnly: true,
    sameSite: "Strict",
    path: "/",
    maxAge: 400 * 24 * 3600,
  });
  await next();
}

/** A foreign name that resolves to this machine (DNS rebinding) must not reach the conversations. */
async function refuseForeignHosts(c: Context, next: () => Promise<void>): Promise<void> {
  const { hostname } = new URL(c.req.url);
  if (!["127.0.0.1", "localhost", "[::1]"].includes(hostname)) {
    throw new HTTPException(403, { message: "This server answers its own machine only" });
  }
  await next();
}

function keyOf(c: Context<Env>, conversation = c.req.param("id") ?? ""): SessionKey {
  return sessionKey({ tenant, user: c.get("user"), conversation });
}

/** The text that a JSON request carries under a name. */
async function readText(c: Context, name: string, maxLength: number): Promise<string> {
  // Other web pages can send forms without asking, but no JSON.
  if (!c.req.header("content-type")?.startsWith("application/json")) {
    throw new BadRequestError("Send JSON, with Content-Type: application/json");
  }
  const body: unknown = await c.req.json().catch(() => undefined);
  const value = (body as Record<string, unknown> | null | undefined)?.[name];
  if (typeof value !== "string" || value.trim() === "" || value.length > maxLength) {
    throw new BadRequestError(
      `The request needs ${JSON.stringify(name)}: a text of 1 to ${maxLength} characters`,
    );
  }
  return value.trim();
}

/** The same model, and a look at what it is given. */
function observe(model: LLM, onMessages: (messages: ChatMessage[]) => void): LLM {
  const chat = ((params: LLMChatParamsNonStreaming) => {
    onMessages(params.messages);
    return model.chat(params);
  }) as LLM["chat"];
  return { metadata: model.metadata, chat, complete: model.complete.bind(model) };
}
