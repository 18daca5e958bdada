/** What a collation takes for one: keys and ids are compared by their bytes. */
import type { ChatStore } from "../chat-store.js";
import {
  rawSessionKey,
  type SessionKey,
  type SessionKeyParts,
  sessionKey,
} from "../session-key.js";
import { holds, refused, same } from "./claims.js";
import { listAll } from "./lists.js";
import { ids, say, texts } from "./messages.js";
import type { Subject } from "./subject.js";
import { describe, test } from "./tools.js";

/** By padding, case, accent, normal form, width, and the rules of a language. */
const lookAlikes: readonly string[] = [
  ..."a A á Á \u0061\u0301 à ª \uff41 \uff21".split(" "),
  ...["a ", " a", "a  ", "a\u00a0", "a\u200b"],
  ..."ß ss SS \u1e9e".split(" "),
  ..."i I İ ı i\u0307".split(" "),
  ..."Å \u212b A\u030a \ufb01 fi".split(" "),
  ..."\u30ab \uff76 \u304b \u304c \u304b\u3099".split(" "),
];

interface Place {
  readonly key: (text: string) => SessionKey;
  /** Whose sessions a key is one of. */
  readonly scope?: (text: string) => Pick<SessionKeyParts, "tenant" | "user"> & { user: string };
}

const places: Readonly<Record<string, Place>> = {
  users: {
    key: (user) => sessionKey({ user, conversation: "c" }),
    scope: (user) => ({ user }),
  },
  "users of a tenant": {
    key: (user) => sessionKey({ tenant: "t", user }),
    scope: (user) => ({ tenant: "t", user }),
  },
  tenants: {
    key: (tenant) => sessionKey({ tenant, user: "u", conversation: "c" }),
    scope: (tenant) => ({ tenant, user: "u" }),
  },
  conversations: { key: (conversation) => sessionKey({ tenant: "t", user: "u", conversation }) },
  "raw keys": { key: (text) => rawSessionKey(text) },
};

/** Texts that are alike to people, and to an engine that compares as people do, name different things. */
export function tellsApart(subject: Subject): void {
  for (const [name, { key: keyOf, scope: scopeOf }] of Object.entries(places)) {
    test(`${name} that look alike`, async () => {
      const store = subject.open(subject.namespace());
      const keys = lookAlikes.map(keyOf);
      const write = async (key: SessionKey) => {
        await store.addMessages(key, [say(key, { id: "m" })]);
        await store.setTitle(key, key);
      };
      for (const key of keys) await write(key);
      const left = new Set(keys);
      const check = async (loss: string) => {
        same((await listAll(store, {})).map(({ key }) => key).sort(), [...left].sort(), loss);
        await Promise.all(
          [...left].map(async (key) => {
            const { session, messages } = await store.readSession(key);
            same([texts(messages), session?.title], [[key], key], `${loss}: ${key}`);
          }),
        );
      };
      await check("Of sessions whose keys look alike one shows another's, or is not there");
      for (const [index, key] of keys.entries()) {
        const text = lookAlikes[index] as string;
        const scope = scopeOf?.(text);
        if (scope === undefined) await store.deleteMessages(key);
        else {
          const listed = await listAll(store, scope);
          same(
            listed.map((one) => one.key),
            [key],
            `The list of ${JSON.stringify(scope)} shows somebody else's sessions`,
          );
          same(
            await store.deleteSessions(scope),
            1,
            `Erasing ${JSON.stringify(scope)} took others`,
          );
        }
        left.delete(key);
        await check(`Erasing ${JSON.stringify(text)} took another one, or changed it`);
        // Those that are erased later have to leave it alone, too.
        await write(key);
        left.add(key);
      }
      if (name !== "tenants") return;
      for (const tenant of lookAlikes) {
        same(
          (await listAll(store, { tenant })).map(({ key }) => key),
          [keyOf(tenant)],
          `The list of the tenant ${JSON.stringify(tenant)} shows another one's sessions`,
        );
      }
    });
  }

  describe("message ids that look alike", () => {
    const namespace = subject.namespace();
    const begin = async (store: ChatStore): Promise<SessionKey> => {
      const key = subject.key();
      for (const id of lookAlikes) await store.addMessages(key, [say(`under ${id}`, { id })]);
      same(ids(await store.getMessages(key)), lookAlikes, "A message was taken for another one");
      return key;
    };

    test("are all stored, and each is known again", async () => {
      const store = subject.open(namespace);
      const key = await begin(store);
      const { version } = (await store.getSession(key)) ?? {};
      for (const id of lookAlikes) {
        const again = await store.addMessages(key, [say(`under ${id}`, { id })]);
        same(again.version, version, `${JSON.stringify(id)} sent again is no retry`);
        const other = store.addMessages(key, [say("other", { id })]);
        const error = await refused(other, "DUPLICATE_MESSAGE", "An id was stored twice");
        same((error as { ids?: unknown }).ids, [id], "The error names another id");
      }
      const batch = subject.key();
      await store.addMessages(batch, await store.getMessages(key));
      same(ids(await store.getMessages(batch)), lookAlikes, "A batch of them was cut short");
    });

    test("each have a page before them and one after", async () => {
      const store = subject.open(namespace);
      const key = await begin(store);
      for (const [index, id] of lookAlikes.entries()) {
        const loss = `The page next to ${JSON.stringify(id)} is another one's`;
        same(
          ids(await store.getMessages(key, { before: id, limit: 2 })),
          lookAlikes.slice(Math.max(index - 2, 0), index),
          loss,
        );
        same(
          ids(await store.getMessages(key, { after: id, limit: 2 })),
          lookAlikes.slice(index + 1, index + 3),
          loss,
        );
      }
      for (const id of ["Á ", "sS", "fI", "\u3000a"]) {
        for (const range of [{ before: id }, { after: id }]) {
          const loss = `${JSON.stringify(id)} is in no message, and was taken for one that is`;
          await refused(store.getMessages(key, range), "MESSAGE_NOT_FOUND", loss);
        }
        const loss = `${JSON.stringify(id)} is in no message, and one was edited`;
        await refused(store.updateMessage(key, id, say("x")), "MESSAGE_NOT_FOUND", loss);
      }
    });

    test("are edited, copied and cut each by itself", async () => {
      const store = subject.open(namespace);
      const key = await begin(store);
      const expected = lookAlikes.map((id) => `under ${id}`);
      for (const [index, id] of lookAlikes.entries()) {
        await store.updateMessage(key, id, say(`edited ${id}`));
        expected[index] = `edited ${id}`;
        same(texts(await store.getMessages(key)), expected, "Another message was edited");
      }
      const copy = subject.key();
      await store.forkSession(key, copy, { upTo: "i" });
      const copied = lookAlikes.indexOf("i") + 1;
      same(
        ids(await store.getMessages(copy)),
        lookAlikes.slice(0, copied),
        "A copy ends elsewhere",
      );
      const kept = [...lookAlikes];
      for (const id of lookAlikes.filter((_, index) => index % 3 === 1)) {
        await store.deleteMessage(key, kept.indexOf(id));
        kept.splice(kept.indexOf(id), 1);
        same(ids(await store.getMessages(key)), kept, "Another message was removed");
      }
      while (kept.length > 1) {
        const last = kept.pop() as string;
        const id = kept.at(-1) as string;
        if (kept.length % 2 === 0) await store.deleteMessagesAfter(key, id);
        else {
          await store.replaceMessagesAfter(key, id, [say("new", { id: last })]);
          same(ids(await store.getMessages(key)), [...kept, last], "Another end was replaced");
          await store.deleteLastMessage(key);
        }
        same(ids(await store.getMessages(key)), kept, "Another end was cut off");
      }
      holds(kept[0] === lookAlikes[0], "The first message is gone");
    });
  });
}
