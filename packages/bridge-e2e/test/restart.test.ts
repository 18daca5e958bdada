/** Talk, kill, start again: what is the model shown? */
import { on } from "node:events";
import { join } from "node:path";
import {
  Child,
  type ParticipantName,
  participantNames,
  refusal,
  type Turn,
} from "@chatstore/bridge-e2e";
import { type NewMessage, sessionKey } from "@chatstore/core";
import { vectorBlock } from "llamaindex";
import { beforeAll, expect, test } from "vitest";
import { onEveryBackend } from "./backends.ts";

const key = (conversation: string) => sessionKey({ user: "alice", conversation });

/** One turn with everybody. */
async function talk(child: Child, message: string): Promise<Record<ParticipantName, Turn>> {
  const turns = participantNames.map(
    async (name) => [name, await child.ask.turn(key(name), name, message)] as const,
  );
  return Object.fromEntries(await Promise.all(turns)) as Record<ParticipantName, Turn>;
}

/** The cities that the agents ask for, in their order: the second and the third at once. */
const cities = ["Rome", "Oslo", "Lima", "Cairo"];
const forecast = (city: string) => `Sunny in ${city}`;
const toldBefore = (city: string) => cities.slice(0, cities.indexOf(city)).map(forecast);
/** Turns that a kill interrupts, each while a tool works. */
const interrupted = (["agent", "multiAgent"] as const).flatMap((who) =>
  cities.map((city) => [who, city] as const),
);

/** Resolves when all of them wait for their tool. */
async function hang(child: Child): Promise<void> {
  const waiting = new Set(interrupted.map(([who, city]) => key(`${who} ${city}`)));
  const reports = on(child, "report");
  for (const [who, city] of interrupted) {
    const told = toldBefore(city);
    child.ask.hang(key(`${who} ${city}`), who, "How is it?", city, told).catch(() => {}); // killed
  }
  for await (const [conversation] of reports) {
    waiting.delete(conversation);
    if (waiting.size === 0) return;
  }
}

/** Kill it while it talks without awaiting anything. Returns how many messages it knew to be stored. */
async function killAmidWrites(
  child: Child,
  conversation: string,
  clearAfter?: number,
): Promise<number> {
  const reports = on(child, "report");
  child.ask.chatter(key(conversation), clearAfter).catch(() => {}); // it ends with the process
  let remaining = Math.random() * 60;
  for await (const [stored] of reports) {
    if (remaining-- > 0) continue;
    await child.kill();
    return Number(stored);
  }
  throw new Error("It reports for ever");
}

const withoutPrompts = (messages: Turn["shown"][number] = []) =>
  messages.filter(({ role }) => role !== "system");

type Known = Awaited<ReturnType<Child["ask"]["remember"]>>;

const ui = {
  id: "ui-1",
  role: "user" as const,
  content: "My cat is called Tom",
  parts: [{ type: "text", text: "My cat is called Tom" }],
  createdAt: new Date("2026-01-02T03:04:05.678Z"),
  annotations: [{ rating: 5 }],
};
const hobbies = Array.from({ length: 24 }, (_, index) => `My hobby number ${index} is walking`);
const said: NewMessage[] = [ui, ...hobbies.map((content) => ({ role: "user" as const, content }))];

const [one, two, three, four] = [{ say: "one" }, { say: "two" }, { say: "three" }, { say: "four" }];
const clearAfter = 7;

await onEveryBackend(({ config, store, folder }) => {
  let before: Record<ParticipantName, Turn>;
  let after: Record<ParticipantName, Turn>;
  let known: Record<"limited" | "learnt", Known>;
  let remembered: typeof known;
  const continued: Record<string, Turn> = {};
  let abandoned: Turn;
  let acknowledged: { writing: number; clearing: number };

  const remember = async (child: Child, messages: NewMessage[]) => {
    const limit = (tokenLimit: number) => (messages.length > 0 ? { tokenLimit } : {});
    const learning = { ...limit(500), vectors: join(folder, "vectors") };
    return {
      limited: await child.ask.remember(key("limited"), messages, limit(100)),
      learnt: await child.ask.remember(key("learnt"), messages, learning),
    };
  };

  // Starting a process takes longer than what it does: two of them do everything.
  beforeAll(async () => {
    const first = new Child(config);
    before = await talk(first, "I am Alice");
    known = await remember(first, said);
    await first.ask.perform(key("reset"), [one]);
    expect(await first.ask.flush(key("reset"))).toBeUndefined();
    await first.ask.perform(key("reset"), ["clear", two, "reset", three, four]);
    expect(await first.ask.flush(key("reset"))).toBeUndefined();
    await first.ask.abandon(key("abandoned"), "Say it all", 2);
    await hang(first);
    const writing = await killAmidWrites(first, "writing");
    const second = new Child(config);
    after = await talk(second, "Who am I?");
    remembered = await remember(second, []);
    abandoned = await second.ask.turn(key("abandoned"), "SimpleChatEngine", "Again");
    for (const [who, city] of interrupted) {
      const conversation = `${who} ${city}`;
      continued[conversation] = await second.ask.turn(key(conversation), who, "And now?");
    }
    const clearing = await killAmidWrites(second, "clearing", clearAfter);
    acknowledged = { writing, clearing };
  });

  test.each(participantNames)("%s is shown what was said before the kill", (name) => {
    const { reply, shown } = before[name];
    const [context = []] = after[name].shown;
    if (name.startsWith("Condense")) {
      expect(context).toHaveLength(1);
      expect(context[0]?.content).toContain(
        `<Chat History>\nHuman: I am Alice\nAssistant: ${reply}\n\n<Follow Up Message>\nWho am I?`,
      );
      return;
    }
    expect(withoutPrompts(shown[0])).toEqual([{ role: "user", content: "I am Alice" }]);
    expect(withoutPrompts(context)).toEqual([
      ...withoutPrompts(shown.at(-1)),
      { role: "assistant", content: reply },
      { role: "user", content: "Who am I?" },
    ]);
  });

  test.each(participantNames.filter((name) => name.includes("gent")))(
    "the model's API accepts every request of %s",
    (name) => {
      const requests = [...before[name].shown, ...after[name].shown];
      expect(requests).toHaveLength(name.startsWith("agent") ? 8 : 10);
      expect(requests.map(refusal).filter(Boolean)).toEqual([]);
      // It calls the same tools again, and is shown both calls.
      const texts = requests.at(-1)?.map(({ content }) => content) ?? [];
      const twice = [...cities, ...cities].map(forecast);
      expect(texts.filter((text) => twice.includes(String(text)))).toEqual(twice);
    },
  );

  test.each(interrupted)(
    "%s, killed while it asks for %s, knows what it has done, and goes on",
    (who, city) => {
      const { shown, reply } = continued[`${who} ${city}`] as Turn;
      expect(shown.map(refusal).filter(Boolean)).toEqual([]);
      const texts = withoutPrompts(shown[0]).map(({ content }) => content);
      expect(texts.filter((text) => String(text).startsWith("Sunny in"))).toEqual(toldBefore(city));
      expect([texts[0], texts.at(-1)]).toEqual(["How is it?", "And now?"]);
      expect(texts.some((text) => String(text).includes("is now handling the request"))).toBe(
        who === "multiAgent",
      );
      expect(reply).toContain(cities.map(forecast).join(", "));
    },
  );

  test("of a reply that nobody read to its end, what was read is shown, and marked", async () => {
    const contents = abandoned.shown[0]?.map(({ content }) => content);
    expect(contents).toEqual(["Say it all", "You said: ", "Again"]);
    const [, partial] = await store().getMessages(key("abandoned"));
    expect(partial).toMatchObject({ role: "assistant", annotations: [{ partial: true }] });
  });

  const survivors = async (conversation: string) => {
    const messages = await store().getMessages(key(conversation));
    return messages.map(({ content }) => Number(/^message (\d+)$/.exec(String(content))?.[1]));
  };
  const countFrom = (first: number, length: number) =>
    Array.from({ length }, (_, index) => first + index);

  test("of what nobody awaited, a prefix is there, once and in order, with all that was flushed", async () => {
    const numbers = await survivors("writing");
    expect(numbers).toEqual(countFrom(1, numbers.length));
    expect(numbers.length).toBeGreaterThanOrEqual(acknowledged.writing);
  });

  test("what is cleared and reset, though nobody awaits it, takes effect in call order", async () => {
    expect(await store().getMessages(key("reset"))).toMatchObject([
      { content: three.say },
      { content: four.say },
    ]);
  });

  test("what was cleared stays forgotten, and nothing of it stands beside what was said later", async () => {
    const numbers = await survivors("clearing");
    const clears = Math.floor(((numbers[0] ?? acknowledged.clearing) - 1) / clearAfter);
    expect(numbers).toEqual(countFrom(clears * clearAfter + 1, numbers.length));
    expect(numbers.length).toBeLessThanOrEqual(clearAfter);
    expect(numbers.at(-1) ?? acknowledged.clearing).toBeGreaterThanOrEqual(acknowledged.clearing);
  });

  test("the token limit is what it was", () => {
    const { context } = remembered.limited;
    expect(context).toEqual(known.limited.context);
    expect(context.length).toBeLessThan(said.length);
    expect(context.at(-1)?.content).toBe(said.at(-1)?.content);
  });

  test("facts, vectors and what no block has processed yet are what they were", () => {
    const { context } = remembered.learnt;
    expect(context).toEqual(known.learnt.context);
    const found = {
      role: "user",
      content: expect.stringContaining("<message role='user'>My hobby"),
    };
    const blocks = [
      ...(vectorBlock === undefined ? [] : [found]), // LlamaIndex 0.11 has none
      { role: "user", content: expect.stringContaining(ui.content) },
    ];
    expect(context.slice(0, blocks.length)).toMatchObject(blocks);
    // What was not processed yet follows: the hobbies that the facts do not name.
    const facts = String(context[blocks.length - 1]?.content);
    expect(context.slice(blocks.length)).toMatchObject(
      said.filter(({ content }) => !facts.split("\n").includes(String(content))),
    );
    expect(context.at(-1)).toMatchObject(said.at(-1) as NewMessage);
    expect(known.learnt.extractions).toBe(3);
    expect(remembered.learnt.extractions).toBe(0);
  });

  test("ids, times and annotations reach a user interface as they were", () => {
    const { ui: shown } = remembered.limited;
    expect(shown).toEqual(known.limited.ui);
    expect(shown).toHaveLength(said.length);
    expect(shown[0]).toEqual(ui);
    for (const { id, createdAt } of shown) {
      expect(id).toEqual(expect.any(String));
      expect(createdAt).toBeInstanceOf(Date);
    }
  });
});
