/** Each rule that providers have for a conversation; whether they accept the whole is tested in packages/providers-e2e. */
import { describe, expect, test } from "vitest";
import { type CanonicalMessage, modelContext, unfinished } from "../../src/bridge/index.ts";

const user = (content: string): CanonicalMessage => ({ role: "user", content });
const assistant = (content: string): CanonicalMessage => ({ role: "assistant", content });
const system = (content: string): CanonicalMessage => ({ role: "system", content });
const call = (...ids: string[]): CanonicalMessage => ({
  role: "assistant",
  content: "",
  options: { toolCall: ids.map((id) => ({ id, name: "weather", input: { city: "Oslo" } })) },
});
const result = (id: string): CanonicalMessage => ({
  role: "user",
  content: "Sunny",
  options: { toolResult: { id, result: "Sunny", isError: false } },
});
const closing = assistant(unfinished);
const [hello, again] = [user("Hello"), user("Again")];

describe("tools", () => {
  test("a result stands right behind its call, whatever two tabs wrote in between", () => {
    expect(modelContext([hello, call("a"), again, call("b"), result("b"), result("a")])).toEqual([
      ...[hello, call("a"), result("a"), closing],
      ...[again, call("b"), result("b")],
    ]);
  });

  test("results of several calls stay in the order in which they came", () => {
    const turn = [hello, call("a", "b"), result("b"), result("a")];
    expect(modelContext(turn)).toEqual(turn);
  });

  test("a call without a result and a result without a call are left out", () => {
    expect(modelContext([hello, call("a", "b"), result("b"), result("c"), again])).toEqual([
      ...[hello, call("b"), result("b"), closing],
      again,
    ]);
    expect(modelContext([hello, call("a"), again])).toEqual([hello, again]);
  });

  test("an answer that calls no tool has no list of calls, and no results in it", () => {
    const empty = { ...assistant("Hi"), options: { toolCall: [] } };
    expect(modelContext([hello, empty])).toEqual([hello, { ...assistant("Hi"), options: {} }]);
  });

  test("call and result in one message, as some frameworks have them, become two", () => {
    const { toolCall } = call("a").options as { toolCall: never };
    const { toolResult } = result("a").options as { toolResult: never };
    const folded = { ...assistant("It is sunny"), options: { toolCall, toolResult: [toolResult] } };
    expect(modelContext([hello, folded])).toEqual([
      ...[hello, call("a"), result("a")],
      assistant("It is sunny"),
    ]);
  });

  test("ids are accepted everywhere, and no two are the same", () => {
    const strange = ["functions.weather:0", "", "x".repeat(64), "call_0", "call_0"];
    const context = modelContext([hello, ...strange.flatMap((id) => [call(id), result(id)])]);
    const options = context.map((message) => message.options as CanonicalMessage["options"]);
    const ids = options.flatMap((some) => some?.toolCall?.map(({ id }) => id) ?? []);
    for (const id of ids) expect(id).toMatch(/^[\w-]{1,40}$/);
    expect(new Set(ids).size).toBe(strange.length);
    expect(ids[3]).toBe("call_0");
    const results = options.flatMap((some) => (some?.toolResult as { id: string })?.id ?? []);
    expect(results).toEqual(ids);
  });

  test("Mistral's ids have nine letters and digits, the same each time", () => {
    const turn = [hello, call("call_0", "abcdefgh1"), result("call_0"), result("abcdefgh1")];
    const context = modelContext(turn, { mistralIds: true });
    expect(JSON.stringify(context)).not.toContain("call_0");
    expect(context[3]).toBe(turn[3]);
    expect(context[2]?.options).toMatchObject({
      toolResult: { id: expect.stringMatching(/^\w{9}$/) },
    });
    expect(modelContext(turn, { mistralIds: true })).toEqual(context);
  });

  test.each([
    ['{"city":"Oslo"}', { city: "Oslo" }],
    ["", {}],
    ['{"city":', { rawInput: '{"city":' }],
    ["[1]", { rawInput: "[1]" }],
  ])("an input that is a text is shown as an object: %s", (input, shown) => {
    const toolCall = [{ id: "a", name: "weather", input }];
    const [, called] = modelContext([hello, { ...call("a"), options: { toolCall } }, result("a")]);
    expect(called?.options).toEqual({ toolCall: [{ id: "a", name: "weather", input: shown }] });
  });
});

describe("texts", () => {
  test("empty messages and parts are left out, but not what the user has just sent", () => {
    const part = (text: string) => ({ type: "text" as const, text });
    const parts = { ...assistant(""), content: [part(" "), part("Hi"), part("")] };
    expect(modelContext([hello, assistant(" \n"), user(""), parts, user("\t")])).toEqual([
      hello,
      { ...parts, content: [part("Hi")] },
      user("\t"),
    ]);
    expect(modelContext([hello, { ...assistant(""), content: [] }])).toEqual([hello]);
  });

  test("a picture is no empty message", () => {
    const picture = {
      ...hello,
      content: [{ type: "image_url" as const, image_url: { url: "…" } }],
    };
    expect(modelContext([picture, assistant("A cat")])[0]).toBe(picture);
  });
});

describe("the beginning", () => {
  test("is the user's, where the user said anything", () => {
    const turn = [call("a"), result("a"), assistant("Sunny"), hello, assistant("Hi")];
    for (const start of [0, 1, 2]) expect(modelContext(turn.slice(start))).toEqual(turn.slice(3));
    expect(modelContext([assistant("Welcome")])).toEqual([assistant("Welcome")]);
  });

  test("has the instructions, also those that were given behind an answer or at the end", () => {
    const kind = system("Be kind");
    const turn = [kind, hello, assistant("Hi"), system("Be brief"), again, system("Use tables")];
    expect(modelContext(turn)).toEqual([
      ...[kind, system("Be brief"), system("Use tables")],
      ...[hello, assistant("Hi"), again],
    ]);
    const behindUser = [kind, hello, system("Be brief"), assistant("Hi")];
    expect(modelContext(behindUser)).toEqual(behindUser);
  });

  test("names everybody as all providers do", () => {
    expect(
      modelContext([
        { role: "developer", content: "Be kind" },
        { role: "memory", content: "Her name is Alice" },
        assistant("Hi"),
      ]),
    ).toEqual([system("Be kind"), user("Her name is Alice"), assistant("Hi")]);
  });
});

describe("a cut", () => {
  const history = [system("Be kind"), hello, assistant("Hi"), again, call("a"), result("a")];

  test.each([
    [0, [0, 3]],
    [1, [0, 3]],
    [2, [0, 3, 4, 5]],
    [3, [0, 3, 4, 5]],
    [4, [0, 3, 4, 5]],
    [5, [0, 1, 2, 3, 4, 5]],
    [9, [0, 1, 2, 3, 4, 5]],
  ])("to the newest %i keeps instructions, question and whole turns", (last, kept) => {
    expect(modelContext(history, { last })).toEqual(kept.map((index) => history[index]));
  });
});
