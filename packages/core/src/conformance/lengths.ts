/** Long conversations: whatever is far back is there, and far more is read than any step of a store takes. */
import type { ChatStore } from "../chat-store.js";
import { refused, same } from "./claims.js";
import { ids, say, texts } from "./messages.js";
import type { Subject } from "./subject.js";
import { test } from "./tools.js";

const length = 5_200;
const idOf = (n: number) => `m${n}`;
const idsOf = (start: number, end: number) =>
  Array.from({ length: end - start }, (_, n) => idOf(start + n));

/** What holds of a short conversation holds of a long one. */
export function lengths(subject: Subject): void {
  const namespace = subject.namespace();

  async function begin(store: ChatStore): Promise<string> {
    const key = subject.key();
    for (let start = 0; start < length; start += 1_000) {
      const part = idsOf(start, Math.min(start + 1_000, length));
      await store.addMessages(
        key,
        part.map((id) => say(id, { id })),
      );
    }
    return key;
  }

  test(`${length} messages are read, copied and replaced whole`, async () => {
    const store = subject.open(namespace);
    const key = await begin(store);
    const all = idsOf(0, length);
    same(ids(await store.getMessages(key)), all, "A long conversation is read in part");
    const ranges: readonly [Parameters<ChatStore["getMessages"]>[1], string[]][] = [
      [{ last: length }, all],
      [{ last: 5_100 }, all.slice(-5_100)],
      [{ limit: 5_100 }, all.slice(0, 5_100)],
      [{ after: idOf(10) }, all.slice(11)],
      [{ before: idOf(5_150) }, all.slice(0, 5_150)],
    ];
    for (const [range, expected] of ranges) {
      const loss = `${JSON.stringify(range)} of a long conversation is read in part`;
      same(ids(await store.getMessages(key, range)), expected, loss);
    }
    const copy = subject.key();
    await store.forkSession(key, copy);
    same(ids(await store.getMessages(copy)), all, "A copy of a long conversation is not whole");
    const { messageCount } = await store.setMessages(copy, await store.getMessages(key));
    same(messageCount, length, "The count of a long conversation is wrong");
    same(ids(await store.getMessages(copy)), all, "A long conversation was replaced in part");
    same((await store.verifySession(copy)).length, 0, "A long conversation is said to be damaged");
    await store.deleteMessagesAfter(copy, idOf(0));
    same(ids(await store.getMessages(copy)), [idOf(0)], "A long end was cut off in part");
    await store.deleteMessages(key);
    same(await store.getMessages(key), [], "A long conversation was erased in part");
    await store.addMessages(key, [say("anew", { id: idOf(7) })]);
    same(texts(await store.getMessages(key)), ["anew"], "Of an erased conversation some is back");
  });

  test(`the first of ${length} messages are known, edited, and stood at`, async () => {
    const store = subject.open(namespace);
    const key = await begin(store);
    for (const n of [0, 3, 150]) {
      const session = await store.getSession(key);
      const again = await store.addMessages(key, [say(idOf(n), { id: idOf(n) })]);
      same(again.version, session?.version, "A retry of a message far back was stored again");
      for (const write of [
        () => store.addMessages(key, [say("other", { id: idOf(n) })]),
        () => store.addMessage(key, say("other", { id: idOf(n) }), 5),
        () => store.replaceMessagesAfter(key, idOf(5_000), [say("other", { id: idOf(n) })]),
      ]) {
        await refused(write(), "DUPLICATE_MESSAGE", "A second message under an id far back");
      }
      same(
        ids(await store.getMessages(key, { after: idOf(n), limit: 3 })),
        idsOf(n + 1, n + 4),
        "The page after a message far back is another one",
      );
      same(
        ids(await store.getMessages(key, { before: idOf(n), limit: 3 })),
        idsOf(Math.max(n - 3, 0), n),
        "The page before a message far back is another one",
      );
      await store.updateMessage(key, idOf(n), say("edited"));
      same(
        texts(await store.getMessages(key, { limit: n + 1 })).at(-1),
        "edited",
        "An edit of a message far back is not read",
      );
    }
    await store.deleteMessage(key, 1);
    await store.addMessage(key, say("new", { id: "new" }), 1);
    const { messageCount } = await store.replaceMessagesAfter(key, idOf(3), [
      say("end", { id: "end" }),
    ]);
    same(
      [messageCount, ids(await store.getMessages(key))],
      [5, [idOf(0), "new", idOf(2), idOf(3), "end"]],
      "A long end was replaced in part, or elsewhere",
    );
  });
}
