import { startPostgresServer } from "@chatstore/engines";
import { withEngine } from "@chatstore/engines/vitest";
import { postgresChatStore, sessionKey } from "@chatstore/postgres";
import { expect, test } from "vitest";
import { newFolder, Program } from "./program.ts";

await withEngine(startPostgresServer, ({ url }) => {
  const start = () => new Program("test/lambda-runtime.ts", newFolder(), [], { DATABASE_URL: url });

  async function invoke(instance: Program, user: string, message: string): Promise<unknown> {
    const headers = { authorization: `Bearer token-of-${user}` };
    instance.write(JSON.stringify({ headers, body: JSON.stringify({ message }) }));
    return JSON.parse(await instance.prints(/^\{.*\}$/m));
  }

  async function thaw(instance: Program): Promise<void> {
    // It may have answered and not be frozen yet, and then the first signals do nothing.
    const timer = setInterval(() => instance.process.kill("SIGCONT"), 20);
    await instance.prints(/thawed/).finally(() => clearInterval(timer));
  }

  const reply = (body: string) => ({ statusCode: 200, body });

  test("the reply is not lost with an instance that is frozen as soon as it has answered, and then ended", async () => {
    const first = start();
    const answer = "You said “Where is order 1001?”. I found “Order 1001: on its way”.";
    expect(await invoke(first, "ada", "Where is order 1001?")).toEqual(reply(answer));
    await first.kill();

    await using store = postgresChatStore({ url });
    const [last] = await store.getMessages(sessionKey({ user: "ada" }), { last: 1 });
    expect(last).toMatchObject({ role: "assistant", content: answer });
    expect(await invoke(start(), "ada", "Again, please")).toEqual(
      reply("You said “Where is order 1001?”, “Again, please”. I found “Order 1001: on its way”."),
    );
  });

  test("an instance that was frozen meanwhile knows what another one was told, and mixes no users up", async () => {
    const [first, second] = [start(), start()];
    await invoke(first, "bob", "I am Bob");
    await invoke(second, "bob", "I like kettles");
    await thaw(first);
    expect(await invoke(first, "bob", "What do you know?")).toEqual(
      reply("You said “I am Bob”, “I like kettles”, “What do you know?”."),
    );
    await thaw(first);
    expect(await invoke(first, "eve", "Hello")).toEqual({ statusCode: 401, body: "Sign in first" });
    await thaw(first);
    expect(await invoke(first, "ada", "Hello")).toMatchObject({
      body: expect.not.stringContaining("Bob"),
    });
  });
});
