/** Several requests on one session at once. */
import { Child, type ParticipantName, refusal } from "@chatstore/bridge-e2e";
import { sessionKey } from "@chatstore/core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { onEveryBackend } from "./backends.ts";

const key = (conversation: string) => sessionKey({ user: "alice", conversation });

await onEveryBackend(({ config }) => {
  let children: Child[];
  beforeAll(() => {
    children = Array.from({ length: 4 }, () => new Child(config));
  });
  afterAll(() => Promise.all(children.map((child) => child.kill())));

  /** What all processes find. */
  const history = async (conversation: string) => {
    const all = await Promise.all(children.map(({ ask }) => ask.read(key(conversation))));
    for (const one of all) expect(one).toEqual(all[0]);
    const contexts = await Promise.all(children.map(({ ask }) => ask.context(key(conversation))));
    for (const one of contexts) {
      expect(one).toEqual(contexts[0]);
      expect(refusal(one)).toBeUndefined();
    }
    return (all[0] ?? []).map(({ content }) => content);
  };

  test("eight requests in one process are all stored, each in its order", async () => {
    const [child] = children as [Child];
    const names: ParticipantName[] = [
      "SimpleChatEngine",
      "SimpleChatEngine, streaming",
      "ContextChatEngine",
      "agent with the state of a run",
    ];
    const turns = [...names, ...names].map((name, index) => ({
      name,
      question: `question ${index}`,
    }));
    const replies = await Promise.all(
      turns.map(({ name, question }) => child.ask.turn(key("eight"), name, question)),
    );
    const texts = await history("eight");
    // An agent's turn has seven messages more: three calls, four results.
    expect(texts).toHaveLength(8 * 2 + 2 * 7);
    for (const [index, { question }] of turns.entries()) {
      expect(texts.filter((text) => text === question)).toHaveLength(1);
      expect(texts.indexOf(question)).toBeLessThan(
        texts.lastIndexOf(replies[index]?.reply as string),
      );
    }
  });

  test("processes that talk at once end with one history that they all agree on", async () => {
    const lanes = children.flatMap((child, index) =>
      ["left", "right"].map((lane) => ({ ask: child.ask, label: `process ${index} ${lane}` })),
    );
    await Promise.all(
      lanes.map(async ({ ask, label }) => {
        for (const turn of ["one", "two", "three"]) {
          await ask.turn(key("lanes"), "SimpleChatEngine, streaming", `${label} ${turn}`);
        }
      }),
    );
    const texts = await history("lanes");
    expect(texts).toHaveLength(lanes.length * 3 * 2);
    for (const { label } of lanes) {
      const questions = texts.filter((text) => String(text).startsWith(label));
      expect(questions).toEqual([`${label} one`, `${label} two`, `${label} three`]);
    }
  });

  test("a memory that another process has overtaken is refused, refreshed or kept, as it was told", async () => {
    const [mine, other] = children as [Child, Child];
    for (const stale of ["refuse", "refresh", "keep"] as const) {
      await mine.ask.attend(key(stale), stale);
      await other.ask.turn(key(stale), "SimpleChatEngine", "From elsewhere");
    }
    await mine.ask.perform(key("refuse"), [{ say: "Too late" }]);
    expect(await mine.ask.flush(key("refuse"))).toBe("VERSION_CONFLICT");
    expect(await mine.ask.heard(key("refuse"))).toEqual(["VERSION_CONFLICT"]);
    expect(await history("refuse")).toEqual(["From elsewhere", "You said: From elsewhere."]);

    const { shown } = await mine.ask.continue(key("refresh"), "SimpleChatEngine", "And from me");
    const contents = ["From elsewhere", "You said: From elsewhere.", "And from me"];
    expect(shown[0]?.map(({ content }) => content)).toEqual(contents);
    expect(await mine.ask.flush(key("refresh"))).toBeUndefined();
    expect((await history("refresh")).slice(0, 3)).toEqual(contents);

    const kept = await mine.ask.continue(key("keep"), "SimpleChatEngine", "And from me");
    expect(kept.shown[0]?.map(({ content }) => content)).toEqual(["And from me"]);
    expect(await mine.ask.flush(key("keep"))).toBeUndefined();
    expect((await history("keep")).slice(0, 3)).toEqual(contents);
  });
});
