/** A model that fails in the middle of a conversation. */
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Child, type ParticipantName, participantNames, refusal } from "@chatstore/bridge-e2e";
import { sessionKey } from "@chatstore/core";
import { unfinished } from "@chatstore/core/bridge";
import { afterAll, expect, onTestFinished, test } from "vitest";

const folder = mkdtempSync(join(tmpdir(), "chatstore-e2e-"));
afterAll(() => rmSync(folder, { recursive: true }));

function start(): Child {
  const child = new Child({ backend: "sqlite", path: join(folder, "chat.db") });
  onTestFinished(() => child.end());
  return child;
}

const key = (conversation: string) => sessionKey({ user: "alice", conversation });

/** What the model is shown when the conversation goes on in another process. */
async function goOn(child: Child, conversation: string, name: ParticipantName): Promise<unknown[]> {
  const { shown } = await child.ask.turn(key(conversation), name, "Again");
  expect(shown.map(refusal).filter(Boolean)).toEqual([]);
  const messages = shown[0]?.filter(({ role }) => role !== "system") ?? [];
  return messages.map(({ content }) => content);
}

test("the error reaches the caller of an engine, and the conversation goes on after a restart", async () => {
  const names = participantNames.filter((name) => name.includes("Engine"));
  const first = start();
  for (const name of names) {
    await first.ask.turn(key(name), name, "I am Alice");
    await expect(first.ask.fail(key(name), name, "Who am I?")).rejects.toThrow("overloaded");
    expect(await first.ask.flush(key(name))).toBeUndefined();
  }
  await first.kill();
  const second = start();
  for (const name of names) {
    const texts = await goOn(second, name, name);
    if (name.startsWith("Condense")) {
      // It adds a question once it is answered.
      expect(texts).toEqual([expect.stringMatching(/Human: I am Alice\nAssistant: .+Again/s)]);
    } else expect(texts).toEqual(["I am Alice", "You said: I am Alice.", "Who am I?", "Again"]);
  }
});

const agents = ["agent", "agent with the state of a run"] as const;
const answered = [
  "I am Alice",
  ...["", "Sunny in Rome", "", "Sunny in Oslo", "Sunny in Lima", "", "Sunny in Cairo"],
  "Sunny in Rome, Sunny in Oslo, Sunny in Lima, Sunny in Cairo.",
];
/** As far as the turn came whose model failed, and what closes it. */
const failed = ["Who am I?", "", "Sunny in Rome", unfinished];

test("an agent whose model fails ends the process; what was flushed is there, and it goes on", async () => {
  await Promise.all(
    agents.map(async (name) => {
      const first = start();
      await first.ask.turn(key(name), name, "I am Alice");
      const failing = first.ask.fail(key(name), name, "Who am I?");
      await expect(failing).rejects.toThrow(/exit code 1.+overloaded/s);
    }),
  );
  const second = start();
  for (const name of agents) {
    const texts = await goOn(second, name, name);
    const survived = texts.slice(answered.length, -1);
    expect(texts).toEqual([...answered, ...failed.slice(0, survived.length), "Again"]);
  }
});

test("an agent whose model fails hangs where the process goes on; its question can be flushed", async () => {
  const first = start();
  await first.ask.endure();
  for (const name of agents) {
    const conversation = `${name}, enduring`;
    await first.ask.turn(key(conversation), name, "I am Alice");
    const failing = once(first, "report");
    const hanging = first.ask.fail(key(conversation), name, "Who am I?");
    hanging.catch(() => {}); // when it is killed
    await failing;
    expect(await first.ask.flush(key(conversation))).toBeUndefined();
  }
  await first.kill();
  const second = start();
  for (const name of agents) {
    const kept = name === "agent" ? failed.slice(0, 1) : failed;
    expect(await goOn(second, `${name}, enduring`, name)).toEqual([...answered, ...kept, "Again"]);
  }
});
