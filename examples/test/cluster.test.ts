import { expect, test } from "vitest";
import { chatRequest } from "./client.ts";
import { newFolder, Program } from "./program.ts";

test("a conversation that wanders over four workers, one of which is killed, is whole at each of them", async () => {
  const cluster = new Program("cluster.ts", newFolder(), [], { PORT: "0" });
  const url = await cluster.prints(/http:\S+/);
  for (let worker = 2; worker <= 4; worker++) await cluster.prints(/http:\S+/);

  const said: string[] = [];
  const turn = async () => {
    said.push(`Turn ${said.length + 1}`);
    const response = await fetch(chatRequest(url, "ada", said.at(-1) as string));
    expect(await response.text()).toBe(`You said ${said.map((text) => `“${text}”`).join(", ")}.`);
    return Number(response.headers.get("X-Served-By"));
  };
  const workers = [await turn(), await turn(), await turn(), await turn()];
  expect(new Set(workers).size).toBe(4);

  process.kill(workers[0] as number, "SIGKILL");
  await cluster.prints(/http:\S+/); // its successor
  const successors = new Set([await turn(), await turn(), await turn(), await turn()]);
  expect(successors.size).toBe(4);
  expect(successors).not.toContain(workers[0]);
});
