/** What is sent again to the API that it came from. */
import { expect, test } from "vitest";
import { memoryChatStore, nativeContext, sessionKey } from "../src/index.ts";

const key = sessionKey({ user: "alice" });
const user = (content: string) => ({ role: "user", content });
const call = (...ids: string[]) => ({
  role: "assistant",
  content: null,
  tool_calls: ids.map((id) => ({
    id,
    type: "function",
    function: { name: "weather", arguments: "{}" },
  })),
});
const result = (id: string) => ({ role: "tool", tool_call_id: id, content: `of ${id}` });
const said = { role: "assistant", content: "Sunny.", refusal: null };
const item = (id: string) => ({
  type: "function_call",
  id: `fc_${id}`,
  call_id: id,
  name: "weather",
  arguments: "{}",
});
const output = (id: string) => ({ type: "function_call_output", call_id: id, output: `of ${id}` });
const reasoning = { type: "reasoning", id: "rs_1", summary: [], encrypted_content: "x" };

async function sent(...messages: object[]): Promise<object[]> {
  const store = memoryChatStore<object>();
  await store.addMessages(key, messages as never);
  return nativeContext(await store.getMessages(key));
}

const whole = [user("a"), call("1", "2"), result("1"), result("2"), said, user("b")];

test("a whole conversation is sent as the SDK gave it, without what the store has added", async () => {
  expect(await sent(...whole)).toEqual(whole);
  const items = [user("a"), reasoning, item("1"), item("2"), output("1"), output("2"), user("b")];
  expect(await sent(...items)).toEqual(items);
});

test.each([
  ["a page that begins between a call and its result", [result("1"), said, user("b")]],
  ["a call that was never answered", [call("1"), user("b")]],
  ["a call of which one tool never answered", [call("1", "2"), result("1"), user("b")]],
  ["reasoning whose call was never answered", [reasoning, item("1"), user("b")]],
  ["reasoning after which the process died", [reasoning, user("b")]],
])("%s is left out", async (_, messages) => {
  const context = await sent(user("a"), ...messages);
  expect(context).toEqual([user("a"), ...messages.filter((one) => one === said), user("b")]);
});

test("of two tabs, each result stands behind its call", async () => {
  expect(await sent(user("a"), call("1"), user("b"), call("2"), result("1"), result("2"))).toEqual([
    user("a"),
    call("1"),
    result("1"),
    user("b"),
    call("2"),
    result("2"),
  ]);
});

test("an id that a server gives to the calls of each answer anew belongs to the call before", async () => {
  const twice = [user("a"), call("1"), result("1"), said, user("b"), call("1"), result("1")];
  expect(await sent(...twice)).toEqual(twice);
});
