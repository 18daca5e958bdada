/** Two tabs of a real browser, a server of Next.js that is built and killed. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { type Browser, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";

const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const example = join(import.meta.dirname, "..");
const next = join(example, "node_modules/next/dist/bin/next");
const folder = mkdtempSync(join(tmpdir(), "chatstore-nextjs-"));
const env = { ...process.env, CHAT_DB: join(folder, "chat.db"), NEXT_TELEMETRY_DISABLED: "1" };

const hasBrowser = existsSync(executablePath);
const title = hasBrowser
  ? ""
  : `, which needs Chromium at ${executablePath}, or where CHROMIUM says`;

describe.skipIf(!hasBrowser)(`a chat in a browser${title}`, () => {
  let port: number;
  let server: ChildProcess;
  let browser: Browser;
  let conversation = 0;
  let address: string;

  beforeAll(async () => {
    execFileSync(process.execPath, [next, "build"], { cwd: example, env, stdio: "pipe" });
    port = await freePort();
    await start();
    browser = await chromium.launch({
      executablePath,
      args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"].concat([
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
      ]),
    });
  }, 300_000);
  afterAll(async () => {
    await browser?.close();
    await kill();
    rmSync(folder, { recursive: true });
  });
  beforeEach(() => {
    address = `http://127.0.0.1:${port}/chat/c${++conversation}`;
  });

  async function start(): Promise<void> {
    const args = [next, "start", "-p", `${port}`, "-H", "127.0.0.1"];
    server = spawn(process.execPath, args, { cwd: example, env, stdio: "ignore" });
    for (;;) {
      try {
        await fetch(`http://127.0.0.1:${port}/chat/ready`);
        return;
      } catch {
        await pause(100);
      }
    }
  }

  async function kill(): Promise<void> {
    const ended = once(server, "exit");
    server.kill("SIGKILL");
    await ended;
  }

  async function open(): Promise<Page> {
    const page = await browser.newPage();
    await page.goto(address, { waitUntil: "networkidle" });
    return page;
  }

  test("answers, and shows the same after a reload", async () => {
    const page = await open();
    await say(page, "Hello");
    await shows(page, ["Hello", "You said Hello."]);
    await page.reload();
    await shows(page, ["Hello", "You said Hello."]);
    // In the sidebar, too.
    await page.getByRole("link", { name: "Hello" }).first().waitFor();
  });

  test("regenerates and edits", async () => {
    const page = await open();
    await say(page, "Hello");
    await shows(page, ["Hello", "You said Hello."]);
    await page.getByRole("button", { name: "Regenerate" }).click();
    await settled(page);
    await shows(page, ["Hello", "You said Hello."]);
    await page.getByRole("button", { name: "Edit" }).click();
    await say(page, "Hi");
    await shows(page, ["Hi", "You said Hi."]);
    await page.reload();
    await shows(page, ["Hi", "You said Hi."]);
  });

  test("waits for an approval, which another tab may give", async () => {
    const one = await open();
    await say(one, "delete a.txt");
    await one.getByRole("button", { name: "Approve" }).waitFor();
    const two = await open();
    await two.getByRole("button", { name: "Approve" }).click();
    const done = ["delete a.txt", "(output-available) The tool says a.txt is gone."];
    await shows(two, done);
    await one.getByRole("button", { name: "Deny" }).click();
    await one.getByRole("alert").filter({ hasText: "another tab" }).waitFor();
    await one.reload();
    await shows(one, done);
  });

  test("tells a tab that has not seen what another one said", async () => {
    const [one, two] = [await open(), await open()];
    await say(one, "from one");
    await shows(one, ["from one", "You said from one."]);
    await say(two, "from two");
    await two.getByRole("alert").filter({ hasText: "another tab" }).waitFor();
    await two.reload();
    await shows(two, ["from one", "You said from one."]);
  });

  const long = "slowly 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20";

  test("keeps what was said before a stop, and goes on", async () => {
    const page = await open();
    await say(page, long);
    await answerHas(page, "You said slowly 1 2 3");
    await page.getByRole("button", { name: "Stop" }).click();
    await settled(page);
    await say(page, "Go on");
    await answerHas(page, "Go on.");
    await page.reload();
    const texts = await said(page);
    expect(texts).toHaveLength(4);
    expect(texts[1]).toContain("You said slowly 1 2 3");
    expect(texts[1]).not.toContain("20");
  });

  test("goes on with an answer when the page is reloaded in the middle of it", async () => {
    const page = await open();
    await say(page, long);
    await answerHas(page, "slowly 1 2");
    await page.reload();
    await shows(page, [long, `You said ${long}.`]);
    await page.reload();
    await shows(page, [long, `You said ${long}.`]);
  });

  test("goes on after the server was killed in the middle of an answer", async () => {
    const page = await open();
    await say(page, "Hello");
    await shows(page, ["Hello", "You said Hello."]);
    await say(page, long);
    await answerHas(page, "slowly 1 2");
    await kill();
    await start();
    await page.reload();
    await shows(page, ["Hello", "You said Hello.", long]);
    await say(page, "Still there?");
    await shows(page, [
      "Hello",
      "You said Hello.",
      long,
      "Still there?",
      `You said Hello, ${long}, Still there?.`,
    ]);
  });
});

async function say(page: Page, text: string): Promise<void> {
  await page.getByLabel("Message").fill(text);
  await page.getByRole("button", { name: "Send" }).click();
}

const said = (page: Page): Promise<string[]> =>
  page
    .locator("[data-role]")
    .evaluateAll((messages) =>
      messages.map((message) =>
        [...message.querySelectorAll("span, i")].map((part) => part.textContent).join(""),
      ),
    );

function settled(page: Page): Promise<unknown> {
  return page.locator("[data-status=ready]").waitFor();
}

async function answerHas(page: Page, text: string): Promise<void> {
  await page.locator("[data-role=assistant]").filter({ hasText: text }).last().waitFor();
}

async function shows(page: Page, texts: string[]): Promise<void> {
  await expect.poll(() => said(page), { timeout: 20_000 }).toEqual(texts);
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address() as { port: number };
  probe.close();
  return port;
}
