import { parseSessionKey, sessionKey } from "../session-key.js";
import type { ListOptions } from "../store-types.js";
import { holds, same } from "./claims.js";
import { say } from "./messages.js";
import type { Subject } from "./subject.js";
import { test } from "./tools.js";

/** A cursor comes back from a client, who may have made it up. */
export function forgedCursors(subject: Subject): void {
  test("a cursor that was not given for the list shows nobody else's sessions", async () => {
    const store = subject.open(subject.namespace());
    const [mine, other] = ["mine", "other"];
    for (let n = 0; n < 6; n++) {
      for (const tenant of ["acme", "globex"]) {
        for (const user of [mine, other]) {
          await store.addMessages(sessionKey({ tenant, user, conversation: `${n}` }), [say("x")]);
        }
      }
    }
    const lists: readonly ListOptions[] = [
      { tenant: "acme", user: mine },
      { tenant: "acme", user: other },
      { tenant: "globex", user: mine },
      { tenant: "acme" },
      { tenant: "globex" },
      {},
    ];
    const cursors = [];
    for (const list of lists) {
      const { cursor } = await store.listSessions({ ...list, limit: 2 });
      holds(cursor !== undefined, "A list of several pages has one");
      cursors.push(cursor as string);
    }
    const numbers = [0, -1, 1e308, Number.MAX_SAFE_INTEGER, 1.5];
    const strings = [
      "",
      "\0",
      "u:x",
      "t:globex/u:mine/c:3",
      "%",
      "' OR 1=1 --",
      "x".repeat(10_000),
    ];
    const values = [...numbers, ...strings];
    const forged = [
      ...values.map((value) => [value]),
      ...numbers.flatMap((n) =>
        strings.flatMap((text) => [
          [n, text],
          [text, n],
          [n, n, text],
        ]),
      ),
      ...strings.map((text) => [text, text]),
    ].map((all) => Buffer.from(JSON.stringify(all)).toString("base64url"));
    const broken = ["", "!", "e30", "bnVsbA", "W10", "W251bGxd", "W3t9XQ", "W1tdXQ", "\u2028", "0"];
    for (const list of lists) {
      for (const cursor of [...cursors, ...forged, ...broken, ...cursors.map((one) => `${one}x`)]) {
        const shown = JSON.stringify(cursor.slice(0, 80));
        const page = await store.listSessions({ ...list, limit: 3, cursor }).catch((error) => {
          same(
            error.code,
            "INVALID_OPTIONS",
            `The cursor ${shown} failed otherwise: ${error.stack}`,
          );
        });
        for (const { key } of page?.sessions ?? []) {
          const owner = parseSessionKey(key);
          holds(
            "user" in owner &&
              (list.tenant === undefined || owner.tenant === list.tenant) &&
              (list.user === undefined || owner.user === list.user),
            `With the cursor ${shown} the list of ${JSON.stringify(list)} shows ${key}`,
          );
        }
      }
    }
  });
}
