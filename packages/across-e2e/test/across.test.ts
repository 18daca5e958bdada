import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ChatStore, type ChatStoreConfig, openChatStore } from "@chatstore/core";
import { startPostgresServer } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import { anthropic, openai, openaiResponses, serve } from "@chatstore/providers-e2e";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { givenToAnthropic, givenToChat, givenToResponses } from "./given.ts";
import { keyOf, participants, type Turn, type Urls } from "./participants.ts";
import type { Work } from "./worker.ts";

const apis = {
  openai: await serve(openai),
  responses: await serve(openaiResponses),
  anthropic: await serve(anthropic),
};
const urls = Object.fromEntries(
  Object.entries(apis).map(([name, { url }]) => [name, url]),
) as object as Urls;
afterAll(() => Promise.all(Object.values(apis).map((api) => api.close())));
const folder = mkdtempSync(join(tmpdir(), "chatstore-across-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** What a model was given in the first request since. */
function given(): readonly string[] {
  const [chat] = apis.openai.accepted;
  const [responses] = apis.responses.accepted;
  const [messages] = apis.anthropic.accepted;
  if (chat !== undefined) return givenToChat(chat);
  if (responses !== undefined) return givenToResponses(responses);
  return messages === undefined ? [] : givenToAnthropic(messages);
}

const refused = () => Object.values(apis).flatMap((api): readonly unknown[] => api.refused);

const names = Object.keys(participants);
/** A conversation of somebody without a framework is read by all; he himself reads his own API's form alone. */
const goOn = names.filter((name) => name !== "none");

function killed(work: Work): Promise<void> {
  const args = ["--import", "tsx", join(import.meta.dirname, "worker.ts"), JSON.stringify(work)];
  return new Promise((resolve, reject) => {
    execFile(process.execPath, args, (error, _, stderr) => {
      if (error?.signal === "SIGKILL") resolve();
      else reject(new Error(`It was not killed: ${stderr}`, { cause: error }));
    });
  });
}

function pairs(config: ChatStoreConfig, partners: (first: string) => readonly string[]): void {
  let store: ChatStore;
  beforeAll(async () => {
    await Promise.all(
      names.map((first) => {
        const keys = partners(first).map((second) => keyOf(`${config.backend} ${first} ${second}`));
        return killed({ config, participant: first, keys, message: "How is it?", urls });
      }),
    );
    store = await openChatStore(config);
  });
  afterAll(() => store.close());

  describe.each(names)("begun with %s", (first) => {
    test.each(partners(first))("%s goes on: its model is given all of it", async (second) => {
      for (const api of Object.values(apis)) api.accepted.length = 0;
      const key = keyOf(`${config.backend} ${first} ${second}`);
      await (participants[second] as Turn)(store, key, "And now?", urls);
      expect(given()).toEqual([
        "user: How is it?",
        'weather({"city":"Rome"}): Sunny in Rome',
        'weather({"city":"Oslo"}): Sunny in Oslo',
        'weather({"city":"Lima"}): Sunny in Lima',
        "assistant: Sunny in Rome, Sunny in Oslo, Sunny in Lima.",
        "user: And now?",
      ]);
      expect(refused()).toEqual([]);

      // And back: what the second has added is there for the first.
      if (first === "none") return;
      for (const api of Object.values(apis)) api.accepted.length = 0;
      await (participants[first] as Turn)(store, key, "Once more?", urls);
      expect(given()).toHaveLength(11);
      expect(given().slice(5)).toEqual([
        "user: And now?",
        ...given().slice(1, 5),
        "user: Once more?",
      ]);
      expect(refused()).toEqual([]);
    });
  });
}

describe("sqlite", () => {
  pairs({ backend: "sqlite", path: join(folder, "chat.db") }, () => goOn);
});
await withEngine<Awaited<ReturnType<typeof startPostgresServer>>>(
  startPostgresServer,
  ({ url }) => {
    describe("postgres", () => {
      // Each begins once, and each goes on once.
      pairs({ backend: "postgres", url }, (first) => [
        goOn[(names.indexOf(first) + 1) % goOn.length] as string,
      ]);
    });
  },
);
