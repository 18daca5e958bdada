import { inspect } from "node:util";
import type { ChatStore } from "../chat-store.js";
import { holds, rejection } from "./claims.js";
import { say } from "./messages.js";
import { need, type Subject } from "./subject.js";
import { test } from "./tools.js";

/** Errors go to logs, which more people read than may read the conversations. */
export function discreet(subject: Subject): void {
  test("what people say is in no error", async (context) => {
    const own = subject.namespace();
    const canary = "c4n4ry is what somebody said";
    const key = subject.key();
    const store = subject.open(own, { onError: () => {}, limits: { messageBytes: 2_000 } });
    await store.addMessages(key, [say(canary, { id: "a" }), say(canary, { id: "b" })]);
    const discreet = async (promise: Promise<unknown>, what: string) => {
      const error = await rejection(promise, what);
      const shown = inspect(error, { depth: 10, showHidden: true }) + JSON.stringify(error);
      holds(!shown.includes("c4n4ry"), `${what}: what somebody said is in the error: ${shown}`);
    };
    const writes = (to: ChatStore): Readonly<Record<string, () => Promise<unknown>>> => ({
      "a message under a known id": () => to.addMessages(key, [say(`${canary}!`, { id: "a" })]),
      "a stale write": () => to.addMessages(key, [say(canary)], { ifVersion: "stale" }),
      "a stale replacement": () => to.setMessages(key, [say(canary)], { ifVersion: "stale" }),
      "an edit of nothing": () => to.updateMessage(key, "gone", say(canary)),
      "a message too long": () => to.addMessage(key, say(canary.repeat(100))),
      "what cannot be kept": () =>
        to.addMessage(key, say(canary, { options: { f: () => canary } })),
      "a stale title": () => to.setTitle(key, canary, { ifVersion: "stale" }),
      "a stale state": () => to.setState(key, { entry: canary }, { ifVersion: "stale" }),
    });
    for (const [name, write] of Object.entries(writes(store))) await discreet(write(), name);
    if (subject.unreachable !== undefined) {
      const away = subject.openWith({ ...subject.unreachable, timeout: 300, onError: () => {} });
      for (const [name, write] of Object.entries({
        "an append": () => away.addMessages(key, [say(canary)]),
        "a replacement": () => away.setMessages(key, [say(canary)]),
        "a title": () => away.setTitle(key, canary),
        "a state": () => away.setState(key, { entry: canary }),
      })) {
        await discreet(write(), `${name} on an engine that cannot be reached`);
      }
    }
    const tamper = need(context, subject.hooks.tamper, "tamper");
    await tamper(own, `"${canary}"`, canary);
    const reader = subject.open(own);
    await discreet(reader.getMessages(key), "Damaged data");
    await discreet(reader.getMessages(key, { last: 1 }), "Damaged data");
  });
}
