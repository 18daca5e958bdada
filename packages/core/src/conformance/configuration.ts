import type { ChatStore } from "../chat-store.js";
import { type SessionKey, sessionKey } from "../session-key.js";
import { holds, refused, same } from "./claims.js";
import { throwing } from "./hostile.js";
import { ids, say, texts } from "./messages.js";
import { need, type Subject } from "./subject.js";
import { describe, test } from "./tools.js";

/** What a store declares, and what its options do. */
export function configuration(subject: Subject): void {
  const namespace = subject.namespace();

  test("the store declares a name and capabilities", () => {
    const { name, capabilities } = subject.open(namespace);
    holds(/^[a-z][a-z0-9-]*$/.test(name), `The name ${name} is not lower-case, as in a package`);
    holds(typeof capabilities.multiProcess === "boolean", "capabilities.multiProcess is missing");
    holds(typeof capabilities.sweepsItself === "boolean", "capabilities.sweepsItself is missing");
    holds(
      ["nothing", "process", "engine", "host", "failover"].includes(capabilities.survives),
      `capabilities.survives is ${capabilities.survives}`,
    );
  });

  describe("limits", () => {
    const limits = { messageBytes: 1_000, batchMessages: 3, batchBytes: 2_000, stateBytes: 500 };

    test("are adjustable, and refuse before anything is written", async () => {
      const key = subject.key();
      const store = subject.open(namespace, { limits });
      await store.addMessages(key, [say("a", { id: "a" })]);
      const before = await store.readSession(key);
      const cases: Readonly<Record<string, readonly (() => Promise<unknown>)[]>> = {
        messageBytes: [
          () => store.addMessage(key, say("x".repeat(1_000))),
          () => store.addMessages(key, [say("ok"), say("é".repeat(500))]),
          () => store.setMessages(key, [say("x".repeat(1_000))]),
          () => store.updateMessage(key, "a", say("x".repeat(1_000))),
          () => store.addMessage(key, say("x".repeat(1_000)), 0),
        ],
        batchMessages: [
          () =>
            store.addMessages(
              key,
              Array.from({ length: 4 }, () => say("x")),
            ),
        ],
        batchBytes: [
          () =>
            store.addMessages(
              key,
              Array.from({ length: 3 }, () => say("x".repeat(800))),
            ),
        ],
        stateBytes: [
          () => store.setState(key, { x: "x".repeat(500) }),
          () => store.setState(key, { x: "x".repeat(300), y: "x".repeat(300) }),
        ],
        titleBytes: [() => store.setTitle(key, "x".repeat(1_025))],
      };
      for (const [limit, calls] of Object.entries(cases)) {
        for (const call of calls) {
          const error = await refused(call(), "LIMIT_EXCEEDED", `${call} exceeded ${limit}`);
          same((error as { limit?: unknown }).limit, limit, "The error names another limit");
        }
      }
      same(await store.readSession(key), before, "A refused write changed the session");
      await store.setMessages(
        key,
        Array.from({ length: 10 }, () => say("x".repeat(800))),
      );
      same((await store.getMessages(key)).length, 10, "setMessages has no limit of number");
    });

    test("at their defaults hold what they promise", async () => {
      const [large, many, replaced, copy] = [1, 2, 3, 4].map(() => subject.key()) as [
        SessionKey,
        SessionKey,
        SessionKey,
        SessionKey,
      ];
      const store = subject.open(namespace);
      const photograph = "A".repeat(8 * 1024 * 1024 - 1_000);
      await store.addMessage(large, say(photograph));
      const halves = ["B", "C"].map((text) => say(text.repeat(6 * 1024 * 1024 - 1_000)));
      await store.addMessages(large, halves);
      await store.addMessages(large, halves);
      const [found, ...rest] = await store.getMessages(large);
      holds(found?.content === photograph, "A message of 8 MiB came back changed");
      holds(
        rest.length === 4 && rest.every(({ content }, n) => content === halves[n % 2]?.content),
        "Batches of 12 MiB came back changed",
      );
      await refused(
        store.addMessage(large, say("A".repeat(8 * 1024 * 1024))),
        "LIMIT_EXCEEDED",
        "A message beyond 8 MiB was accepted",
      );
      const thousand = Array.from({ length: 1_000 }, (_, n) => say(`${n}`, { id: `${n}` }));
      await store.addMessages(many, thousand);
      await store.addMessages(
        many,
        thousand.map((message) => ({ ...message, id: `+${message.id}` })),
      );
      same((await store.getMessages(many)).length, 2_000, "Batches of 1,000 were cut short");
      await store.setMessages(replaced, await store.getMessages(many));
      await store.forkSession(replaced, copy);
      same(
        ids(await store.getMessages(copy)),
        ids(await store.getMessages(many)),
        "A history of 2,000 messages was cut short when it was replaced or copied",
      );
      const state = "x".repeat(256 * 1024 - 100);
      await store.setState(many, { state });
      holds((await store.getSession(many))?.state["state"] === state, "State was cut short");
      await store.setTitle(many, "é".repeat(512));
      same((await store.getSession(many))?.title, "é".repeat(512), "A title was cut short");
    });
  });

  describe("values at the limits", () => {
    // One byte in a text, and two or more wherever a text is put within another one's quotes.
    const kinds = {
      quotes: '"',
      backslashes: "\\",
      "four-byte characters": "👋",
      "line ends": "\n",
    };
    for (const [name, character] of Object.entries(kinds)) {
      test(`may be made of ${name}`, async () => {
        const key = subject.key();
        const store = subject.open(namespace);
        /** So much of it as takes so many bytes when it is stored. */
        const fill = (bytes: number) =>
          character.repeat(Math.floor(bytes / (Buffer.byteLength(JSON.stringify(character)) - 2)));
        const [message, state] = [fill(8 * 1024 * 1024 - 500), fill(256 * 1024 - 100)];
        const title = character.repeat(Math.floor(1_024 / Buffer.byteLength(character)));
        await store.addMessages(key, [say(message, { id: "full" }), say("next", { id: "next" })]);
        await store.setState(key, { entry: state });
        await store.setTitle(key, title);
        await store.updateMessage(key, "full", say(`${message}.`));
        const long = character.repeat(Math.floor(512 / Buffer.byteLength(character)));
        await store.addMessages(key, [say("under a long id", { id: long })]);
        await store.addMessages(key, [say("under a long id", { id: long })]);
        const reader = subject.open(namespace);
        const { session, messages } = await reader.readSession(key);
        same(session?.title, title, `A title of ${name} came back changed`);
        holds(session?.state["entry"] === state, `State of ${name} came back changed`);
        holds(messages[0]?.content === `${message}.`, `A message of ${name} came back changed`);
        same(ids(messages), ["full", "next", long], `An id of ${name} came back changed`);
        same(
          texts(await reader.getMessages(key, { after: "next" })),
          ["under a long id"],
          "What follows a large message is not there",
        );
        await refused(
          store.addMessage(key, say(`${message}${fill(1_000)}`)),
          "LIMIT_EXCEEDED",
          `A message beyond 8 MiB, made of ${name}, was accepted`,
        );
        await store.deleteMessages(key);
        if (character === "\n") return;
        // A key is encoded where it must be, and 512 bytes long as it is stored.
        const longest = sessionKey({
          user: character.repeat(Math.floor(510 / Buffer.byteLength(character))),
        });
        await store.addMessages(longest, [say(name)]);
        same(texts(await reader.getMessages(longest)), [name], `A key of ${name} is not found`);
      });
    }
  });

  describe("opening", () => {
    test("with migrate check and off works on a schema that is there", async () => {
      const own = subject.namespace();
      const key = subject.key();
      await subject.open(own, { migrate: "auto" }).addMessages(key, [say("a")]);
      for (const migrate of ["check", "off"] as const) {
        const store = subject.open(own, { migrate });
        await store.open();
        await store.addMessages(key, [say(migrate)]);
      }
      same(
        texts(await subject.open(own).getMessages(key)),
        ["a", "check", "off"],
        "A store that may not migrate does not work",
      );
    });

    test("with migrate check either works on an empty store, or says that it has no schema", async () => {
      const own = subject.namespace();
      const key = subject.key();
      const store = subject.open(own, { migrate: "check" });
      const opened = await store.open().then(
        () => "opened",
        (error: { code: string }) => error.code,
      );
      holds(opened === "opened" || opened === "SCHEMA", `open() failed with ${opened}`);
      const ready = subject.open(own);
      await ready.open();
      await store.addMessages(key, [say("a")]);
      same(texts(await ready.getMessages(key)), ["a"], "A failed open() left the store unusable");
    });

    test("with migrate check makes nothing", async (context) => {
      const schema = need(context, subject.hooks.schema, "schema");
      const own = subject.namespace();
      const before = await schema(own);
      const store = subject.open(own, { migrate: "check", onError: () => {} });
      await store.open().catch(() => undefined);
      await store.addMessages(subject.key(), [say("a")]).catch(() => undefined);
      same(await schema(own), before, "A store that may only check has made a schema");
      await subject.open(own, { migrate: "auto" }).open();
      holds((await schema(own)) !== before, "The schema hook does not see what open() makes");
    });

    test("leaves a newer schema alone", async (context) => {
      const [schema, newerSchema] = [
        need(context, subject.hooks.schema, "schema"),
        need(context, subject.hooks.newerSchema, "newerSchema"),
      ];
      const own = subject.namespace();
      const key = subject.key();
      const first = subject.open(own);
      await first.addMessages(key, [say("a")]);
      await first.close();
      await newerSchema(own);
      const before = [await schema(own), await subject.hooks.dump?.(own)];
      for (const migrate of ["auto", "check"] as const) {
        const loss = `A newer schema was used as if it were this one, with migrate ${migrate}`;
        const store = subject.open(own, { migrate, onError: () => {} });
        await refused(store.open(), "UNSUPPORTED_FORMAT", loss);
        await refused(store.addMessages(key, [say("b")]), "UNSUPPORTED_FORMAT", loss);
        await refused(store.deleteMessages(key), "UNSUPPORTED_FORMAT", loss);
        await refused(store.getMessages(key), "UNSUPPORTED_FORMAT", loss);
      }
      same(
        [await schema(own), await subject.hooks.dump?.(own)],
        before,
        "A newer schema, or what is in it, was changed",
      );
    });

    test("refuses wrong options, whoever made the factory", () => {
      const own = subject.namespace();
      const wrong: readonly object[] = [
        { ttl: 0 },
        { ttl: -1 },
        { ttl: "1d" },
        { timeout: 0 },
        { timeout: Number.NaN },
        { migrate: "always" },
        { limits: { messageBytes: 0 } },
        { limits: { messageBytes: 1e9 } },
        { limits: { messages: 5 } },
      ];
      for (const options of wrong) {
        let code = "nothing";
        try {
          subject.openWith({ ...subject.optionsOf(own), ...options });
        } catch (error) {
          code = (error as { code: string }).code;
        }
        same(code, "INVALID_OPTIONS", `The factory accepts ${JSON.stringify(options)}`);
      }
    });

    test("refuses values of any type that are not what an option takes, and shows none", async () => {
      const own = subject.optionsOf(subject.namespace()) as Record<string, unknown>;
      const values = [null, 7, 2n ** 70n, Symbol("s"), () => "x", new Proxy({}, throwing), "\0"];
      for (const name of Object.keys(own)) {
        for (const value of values) {
          const error = await opening(() => subject.openWith({ ...own, [name]: value }));
          const { code, message } = (error ?? { code: "nothing" }) as {
            code?: string;
            message?: string;
          };
          holds(
            error === undefined ||
              (code !== undefined && !/Cannot|is not a function/.test(`${message}`)),
            `The option ${name} of a wrong type ends in ${error}`,
          );
        }
      }
    });

    test("twice, and with shared: true, gives one handle", async () => {
      const own = subject.namespace();
      const options = subject.optionsOf(own, { shared: true });
      const [first, second] = [subject.openWith(options), subject.openWith(options)];
      holds(first === second, "A development server opens a new pool at each hot reload");
      await Promise.all([first.open(), first.open(), second.open()]);
      await first.close();
      const third = subject.openWith(options);
      holds(third !== first, "A closed handle was shared");
      await third.open();
    });
  });
}

/** What goes wrong when a store is made and opened. */
async function opening(make: () => ChatStore): Promise<unknown> {
  try {
    const store = make();
    await store.open();
    await store.close();
  } catch (error) {
    return error;
  }
  return undefined;
}
