import type { MessageRecord } from "../backend.js";
import { sessionKey, toKey } from "../session-key.js";
import { backendOf } from "../store-backend.js";
import { same, within } from "./claims.js";
import { say } from "./messages.js";
import type { Subject } from "./subject.js";
import { test } from "./tools.js";

/** What a caller was told has timed out does not happen. */
export function lateCalls(subject: Subject): void {
  test("a call whose time is over begins nothing", async () => {
    const store = subject.open(subject.namespace(), { ttl: 50 });
    const lasting = subject.open(subject.namespace());
    const key = sessionKey({ tenant: "acme", user: subject.user() });
    await lasting.addMessages(key, [say("a", { id: "a" }), say("b", { id: "b" })]);
    await store.addMessages(key, [say("expires")]);
    const backend = backendOf(lasting);
    const found = await backend.read(toKey(key), { from: "start" }, new AbortController().signal);
    const { session, records } = found as Exclude<typeof found, "missing" | undefined>;
    const [first] = records as [MessageRecord];
    const fresh = [{ ...first, id: "late" }];
    const signal = AbortSignal.abort();
    const write = { next: "late" };
    const change = { next: "late", ifVersion: session.version };
    const { tenant, user } = toKey(key);
    const late: Readonly<Record<string, () => Promise<unknown>>> = {
      append: () => backend.append(toKey(key), fresh, { title: "late" }, write, signal),
      "append of what is fresh": () =>
        backend.append(
          toKey(key),
          [{ ...first, id: "late", fresh: true }],
          undefined,
          write,
          signal,
        ),
      "edit, update": () =>
        backend.edit(
          toKey(key),
          { op: "update", id: "b", digest: first.digest, data: first.data, createdAt: null },
          change,
          signal,
        ),
      "edit, remove": () => backend.edit(toKey(key), { op: "remove", ids: ["a"] }, change, signal),
      "edit, replaceAfter": () =>
        backend.edit(
          toKey(key),
          { op: "replaceAfter", id: "a", records: fresh, patch: undefined },
          change,
          signal,
        ),
      replace: () => backend.replace(toKey(key), fresh, undefined, change, signal),
      "erase of a session": () => backend.erase({ key: toKey(key) }, signal),
      "erase of a user": () => backend.erase({ scope: { tenant, user } }, signal),
    };
    const before = await lasting.readSession(key);
    for (const [name, call] of Object.entries(late)) {
      const loss = `${name} was called when its time was over, and changed the session`;
      await within(9_000, Promise.allSettled([call()]), `${name}, called when its time was over,`);
      same(await lasting.readSession(key), before, loss);
    }
  });
}
