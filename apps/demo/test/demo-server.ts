import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

const entry = fileURLToPath(new URL("../dist/index.js", import.meta.url));
const folder = fileURLToPath(new URL("..", import.meta.url));

export interface Message {
  readonly role: string;
  readonly content: string | readonly { readonly text: string }[];
  readonly annotations?: readonly unknown[];
}

/** An answer, as the page gets it. */
export interface Answer {
  readonly text: string;
  /** The process that gave it. */
  readonly process: number;
  /** What the model was given for it. */
  readonly given: readonly Message[];
}

/** The built server in a process of its own. */
export class DemoServer implements AsyncDisposable {
  readonly #process: ChildProcess;
  #output = "";

  private constructor(process: ChildProcess) {
    this.#process = process;
    for (const stream of [process.stdout, process.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => {
        this.#output += text;
      });
    }
  }

  /** Start it, on a free port, and wait until it serves. */
  static async start(env: NodeJS.ProcessEnv, cwd = folder): Promise<DemoServer> {
    const server = DemoServer.#spawn(env, cwd);
    const failed = once(server.#process, "close").then(() => {
      throw new Error(`The server did not start:\n${server.#output}`);
    });
    const serving = new Promise<void>((resolve) => {
      server.#process.stdout?.on("data", () => server.#address && resolve());
    });
    await Promise.race([serving, failed]);
    return server;
  }

  /** Start it where it must not start. Resolves to what it printed. */
  static async startInVain(env: NodeJS.ProcessEnv, cwd = folder): Promise<string> {
    await using server = DemoServer.#spawn(env, cwd);
    const [code] = await once(server.#process, "close");
    if (code !== 1) throw new Error(`The server ended with ${code}:\n${server.#output}`);
    return server.#output;
  }

  static async rebuildIndex(env: NodeJS.ProcessEnv): Promise<void> {
    await using server = DemoServer.#spawn(env, folder, "index");
    const [code] = await once(server.#process, "close");
    if (code !== 0) throw new Error(server.#output);
  }

  static #spawn(env: NodeJS.ProcessEnv, cwd: string, ...args: string[]): DemoServer {
    const { PATH, HOME } = process.env;
    const stdio = ["ignore", "pipe", "pipe"] as const;
    return new DemoServer(
      spawn(process.execPath, [entry, ...args], {
        cwd,
        env: { PATH, HOME, PORT: "0", ...env },
        stdio: [...stdio],
      }),
    );
  }

  get #address(): string | undefined {
    return /Open (http:\S+)/.exec(this.#output)?.[1];
  }

  get url(): string {
    return this.#address as string;
  }

  get output(): string {
    return this.#output;
  }

  get pid(): number {
    return this.#process.pid as number;
  }

  /** Resolves to the exit code; `null` when it was killed. */
  async stop(signal: "SIGTERM" | "SIGINT" | "SIGKILL"): Promise<number | null> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) {
      return this.#process.exitCode;
    }
    const ended = once(this.#process, "close");
    this.#process.kill(signal);
    const [code] = await ended;
    return code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop("SIGKILL");
  }
}

/** A browser: it keeps its cookie, whichever server it talks to. */
export class Visitor {
  #cookie: string | undefined;

  async request(
    server: DemoServer,
    method: string,
    path: string,
    body?: unknown,
    init: RequestInit = {},
  ): Promise<Response> {
    const response = await fetch(server.url + path, {
      method,
      ...(body !== undefined && { body: JSON.stringify(body) }),
      ...init,
      headers: {
        "Content-Type": "application/json",
        ...(this.#cookie !== undefined && { Cookie: this.#cookie }),
        ...init.headers,
      },
    });
    this.#cookie ??= response.headers.getSetCookie()[0]?.split(";")[0];
    return response;
  }

  async get<Result>(server: DemoServer, path: string): Promise<Result> {
    const response = await this.request(server, "GET", path);
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return (await response.json()) as Result;
  }

  /** Begin a conversation. Resolves to its id. */
  async begin(server: DemoServer, title = "A conversation"): Promise<string> {
    const response = await this.request(server, "POST", "/api/sessions", { title });
    return ((await response.json()) as { id: string }).id;
  }

  async messages(server: DemoServer, id: string): Promise<readonly Message[]> {
    const { messages } = await this.get<{ messages: Message[] }>(
      server,
      `/api/sessions/${id}/messages`,
    );
    return messages;
  }

  async say(server: DemoServer, id: string, message: string): Promise<Answer> {
    const response = await this.request(server, "POST", `/api/sessions/${id}/messages`, {
      message,
    });
    const events = [...(await response.text()).matchAll(/^event: (.+)\ndata: (.+)$/gm)].map(
      ([, name, data]) => ({ name, data: JSON.parse(data as string) }),
    );
    if (events.at(-1)?.name !== "done") {
      throw new Error(`${response.status} ${JSON.stringify(events.at(-1))}`);
    }
    const dataOf = (event: string) =>
      events.filter(({ name }) => name === event).map(({ data }) => data);
    const [{ process, messages }] = dataOf("given");
    return { text: dataOf("text").join(""), process, given: messages };
  }
}
