import { describe, expect, test } from "vitest";
import { type CanonicalMessage, nativeOf, unfold, withNative } from "../../src/bridge/index.ts";
import { memoryChatStore, sessionKey, UnsupportedFormatError } from "../../src/index.ts";

const said: CanonicalMessage = { role: "assistant", content: "Hello" };
const call = { id: "c1", name: "weather", input: { city: "Rome" } };
const result = { id: "c1", result: "sunny", isError: false };

describe("the native layer", () => {
  test("comes back exactly, by way of the store, to the framework that gave it", async () => {
    await using store = memoryChatStore();
    const key = sessionKey({ user: "alice" });
    const given = {
      id: "m",
      parts: [{ type: "text", text: "Hello" }],
      metadata: { at: new Date(0) },
    };
    await store.addMessage(key, withNative(said, "ai-sdk/5", given));
    const [stored] = await store.getMessages(key);
    expect(stored).toMatchObject(said);
    expect(nativeOf(stored as CanonicalMessage, "ai-sdk/5")).toEqual(given);
  });

  test("is not there for another framework, nor for a message that no bridge stored", () => {
    expect(nativeOf(withNative(said, "ai-sdk/5", {}), "langchain/1")).toBeUndefined();
    expect(nativeOf(said, "langchain/1")).toBeUndefined();
  });

  test.each([
    [
      "a newer version",
      { format: "ai-sdk/6", value: {} },
      /ai-sdk\/6.*reads ai-sdk\/5: upgrade it/,
    ],
    ["an older version", { format: "ai-sdk/4", value: {} }, /ai-sdk\/4.*the bridge that wrote it/],
    ["no version", { format: "ai-sdk", value: {} }, /message m has no stamp/],
    ["no format", { value: {} }, /no stamp/],
    ["null", null, /no stamp/],
    ["a text", "ai-sdk/5", /no stamp/],
  ])("refuses a stamp with %s", (_, native, why) => {
    const read = () => nativeOf({ ...said, id: "m", native }, "ai-sdk/5");
    expect(read).toThrow(UnsupportedFormatError);
    expect(read).toThrow(why);
  });
});

describe("unfold", () => {
  test("gives each answer a message of its own, between the calls and what was said", () => {
    const options = { toolCall: [call], toolResult: [result] };
    expect(unfold({ ...said, id: "m", options })).toEqual([
      { role: "assistant", content: "", options: { toolCall: [call] } },
      { role: "user", content: "sunny", options: { toolResult: result } },
      { role: "assistant", content: "Hello", id: "m" },
    ]);
    expect(unfold({ ...said, id: "m", content: "", options })).toEqual([
      { role: "assistant", content: "", options: { toolCall: [call] } },
      { role: "user", content: "sunny", options: { toolResult: result }, id: "m" },
    ]);
  });

  test.each([
    said,
    { ...said, options: { toolCall: [call] } },
    { role: "user", content: "sunny", options: { toolResult: result } },
  ] as CanonicalMessage[])("leaves %j as it is", (message) => {
    expect(unfold(message)).toEqual([message]);
  });
});
