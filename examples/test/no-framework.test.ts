import { join } from "node:path";
import {
  anthropic,
  type FakeApi,
  forecast,
  gemini,
  openai,
  openaiResponses,
  refusal,
  serve,
  silent,
} from "@chatstore/providers-e2e";
import { nativeContext, sessionKey, sqliteChatStore } from "@chatstore/sqlite";
import { expect, onTestFinished, test } from "vitest";
import { newFolder, Program } from "./program.ts";

interface Case {
  readonly of: string;
  readonly api: () => Promise<FakeApi<unknown>>;
  readonly env: (url: string) => NodeJS.ProcessEnv;
  /** Why the API refuses messages; nothing when it does not. */
  readonly why: (messages: object[]) => string | undefined;
}

const cases: readonly Case[] = [
  {
    of: "openai-chat.ts",
    api: () => serve(openai) as Promise<FakeApi<unknown>>,
    env: (url) => ({ OPENAI_BASE_URL: `${url}/v1`, OPENAI_API_KEY: "none" }),
    why: (messages) => refusal(openai.rules, { messages } as never),
  },
  {
    of: "openai-responses.ts",
    api: () => serve(openaiResponses) as Promise<FakeApi<unknown>>,
    env: (url) => ({ OPENAI_BASE_URL: `${url}/v1`, OPENAI_API_KEY: "none" }),
    why: (input) => refusal(openaiResponses.rules, { input } as never),
  },
  {
    of: "anthropic.ts",
    api: () => serve(anthropic) as Promise<FakeApi<unknown>>,
    env: (url) => ({ ANTHROPIC_BASE_URL: url, ANTHROPIC_API_KEY: "none" }),
    why: (messages) => refusal(anthropic.rules, { messages } as never),
  },
  {
    of: "gemini.ts",
    api: () => serve(gemini) as Promise<FakeApi<unknown>>,
    env: (url) => ({ GOOGLE_GEMINI_BASE_URL: url, GEMINI_API_KEY: "none" }),
    why: (contents) => refusal(gemini.rules, { contents } as never),
  },
];

test.each(cases)(
  "$of, killed in the middle of a turn, goes on with all that its tools said, and its API accepts it from wherever it is read",
  async ({ of, api: start, env, why }) => {
    const api = await start();
    onTestFinished(() => api.close());
    const folder = newFolder();
    const talk = (message: string) => new Program(of, folder, ["ada", message], env(api.url));

    const question = `How is it? ${silent("after Lima")}`;
    const first = talk(question);
    await api.held(1); // it waits for an answer that never comes
    await first.kill();
    api.accepted.length = 0;
    const reply = await talk("And now?").ends();
    expect(reply).toContain(forecast("Lima"));
    const given = JSON.stringify(api.accepted[0]);
    for (const text of [question, forecast("Rome"), forecast("Lima"), "And now?"]) {
      expect(given).toContain(text);
    }
    expect(api.refused).toEqual([]);

    // Of every page, and as if it had been killed after every message.
    const store = sqliteChatStore({ path: join(folder, "chat.db") });
    onTestFinished(() => store.close());
    const next = { id: "x", createdAt: new Date() };
    const asked = of === "gemini.ts" ? { parts: [{ text: "So?" }] } : { content: "So?" };
    const stored = await store.getMessages(sessionKey({ user: "ada" }));
    for (let end = 1; end <= stored.length; end++) {
      for (let begin = 0; begin < end; begin++) {
        const page = [...stored.slice(begin, end), { ...next, role: "user", ...asked }];
        expect(why(nativeContext(page as typeof stored)), `${begin} to ${end}`).toBeUndefined();
      }
    }
    // Without it, some would be refused: what the store adds, and calls without results.
    expect(why(stored)).toBeDefined();
  },
);
