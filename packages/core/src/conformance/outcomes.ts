import type { ChatStore } from "../chat-store.js";
import type { BackendError } from "../errors.js";
import { sessionKey } from "../session-key.js";
import { refused, same } from "./claims.js";
import { type Fault, failWrites } from "./faults.js";
import { say, texts } from "./messages.js";
import { need, type Subject } from "./subject.js";
import { describe, test } from "./tools.js";

interface Place {
  readonly user: string;
  readonly key: string;
  /** A session of the messages a, b, c, which is the same one unless the write begins a session. */
  readonly abc: string;
  /** Of the session abc. */
  readonly version: string;
}

interface Repeated {
  readonly write: (
    store: ChatStore,
    at: Place,
  ) => Promise<{ version: string | null; messageCount: number } | number>;
  /** The texts and the title that it leaves, once. */
  readonly leaves: readonly string[];
  readonly title?: string;
  /** The session is not there before. */
  readonly begins?: boolean;
  /** It lands once whatever happens meanwhile, and may not plead that nobody knows. */
  readonly lands?: boolean;
}

const mine = [say("new", { id: "new" }), say("newer", { id: "newer" })];
const times = { createdAt: new Date(0), updatedAt: new Date(0) };

/** Every kind of write. */
const repeated: Readonly<Record<string, Repeated>> = {
  "addMessages with ids": {
    write: (store, { key }) => store.addMessages(key, mine),
    leaves: ["a", "b", "c", "new", "newer"],
    lands: true,
  },
  "addMessages without ids": {
    write: (store, { key }) => store.addMessages(key, [say("new"), say("newer")]),
    leaves: ["a", "b", "c", "new", "newer"],
    lands: true,
  },
  "addMessages of what is partly there": {
    write: (store, { key }) => store.addMessages(key, [say("b", { id: "b" }), ...mine]),
    leaves: ["a", "b", "c", "new", "newer"],
    lands: true,
  },
  "addMessages with ifVersion": {
    write: (store, { key, version: ifVersion }) => store.addMessages(key, mine, { ifVersion }),
    leaves: ["a", "b", "c", "new", "newer"],
    lands: true,
  },
  "addMessages that begin a session": {
    write: (store, { key }) => store.addMessages(key, mine, { ifVersion: null }),
    leaves: ["new", "newer"],
    begins: true,
    lands: true,
  },
  "addMessage at a position": {
    write: (store, { key }) => store.addMessage(key, say("new"), 1),
    leaves: ["a", "new", "b", "c"],
  },
  "addMessage at a position past the end": {
    write: (store, { key }) => store.addMessage(key, say("new"), 9),
    leaves: ["a", "b", "c", "new"],
    lands: true,
  },
  setMessages: {
    write: (store, { key }) => store.setMessages(key, mine),
    leaves: ["new", "newer"],
  },
  "setMessages with ifVersion": {
    write: (store, { key, version: ifVersion }) => store.setMessages(key, mine, { ifVersion }),
    leaves: ["new", "newer"],
  },
  updateMessage: {
    write: (store, { key }) => store.updateMessage(key, "b", say("edited")),
    leaves: ["a", "edited", "c"],
  },
  deleteMessage: {
    write: (store, { key }) => store.deleteMessage(key, 1),
    leaves: ["a", "c"],
  },
  deleteLastMessage: {
    write: (store, { key }) => store.deleteLastMessage(key),
    leaves: ["a", "b"],
  },
  "deleteLastMessage with ifVersion": {
    write: (store, { key, version: ifVersion }) => store.deleteLastMessage(key, { ifVersion }),
    leaves: ["a", "b"],
  },
  deleteMessagesAfter: {
    write: (store, { key }) => store.deleteMessagesAfter(key, "a"),
    leaves: ["a"],
  },
  replaceMessagesAfter: {
    write: (store, { key }) => store.replaceMessagesAfter(key, "a", mine),
    leaves: ["a", "new", "newer"],
  },
  setTitle: {
    write: (store, { key }) => store.setTitle(key, "mine"),
    leaves: ["a", "b", "c"],
    title: "mine",
    lands: true,
  },
  "setState with ifVersion": {
    write: (store, { key, version: ifVersion }) => store.setState(key, { mine: 1 }, { ifVersion }),
    leaves: ["a", "b", "c"],
    lands: true,
  },
  forkSession: {
    write: (store, { abc, key }) => store.forkSession(abc, key, { upTo: "b" }),
    leaves: ["a", "b"],
    begins: true,
  },
  importSession: {
    write: (store, { key }) =>
      store.importSession(key, { messages: mine, title: "mine", ...times }),
    leaves: ["new", "newer"],
    title: "mine",
    begins: true,
  },
  deleteMessages: {
    write: (store, { key }) => store.deleteMessages(key),
    leaves: [],
  },
  deleteSessions: {
    write: (store, { user }) => store.deleteSessions({ tenant: "acme", user }),
    leaves: [],
  },
};

/** Requests of which the answer is lost, one after the other: more than a write of these sizes takes. */
const mostRequests = 40;

/** Answers of the engine itself are lost, at every request that a call makes: what a backend makes of that. */
export function survivesLostAnswers(subject: Subject): void {
  const namespace = subject.namespace();

  for (const [name, { write, leaves, begins, lands = false }] of Object.entries(repeated)) {
    test(name, async (context) => {
      const loseAnswer = need(context, subject.hooks.loseAnswer, "loseAnswer");
      const [store, other] = [subject.open(namespace), subject.open(namespace)];
      for (let nth = 1; nth <= mostRequests; nth++) {
        const at = await placeOf(subject, store, begins);
        const before = begins ? undefined : at.version;
        let foreign: string | null | undefined;
        let result: PromiseSettledResult<Awaited<ReturnType<Repeated["write"]>>> | undefined;
        const isLost = await loseAnswer(
          namespace,
          nth,
          async () => {
            [result] = await Promise.allSettled([write(store, at)]);
          },
          async () => {
            // Before it has happened, it may hold a lock.
            const session = await other.getSession(at.key);
            if (session?.version === before) return;
            foreign = (await other.addMessages(at.key, [say("foreign")])).version;
          },
        );
        const found = await other.readSession(at.key);
        if (foreign === undefined) {
          same(
            [texts(found.messages), result?.status],
            [leaves, "fulfilled"],
            `The answer to request ${nth} was lost, nobody else wrote, and ${name} did not happen once`,
          );
        } else {
          same(
            { texts: texts(found.messages), version: found.session?.version },
            { texts: [...leaves, "foreign"], version: foreign },
            `The answer to request ${nth} was lost, and ${name} was done again: it, or what others wrote, is there twice or gone`,
          );
          await judge(store, at, lands, result);
        }
        if (!isLost) return;
      }
    });
  }

  test("every read", async (context) => {
    const loseAnswer = need(context, subject.hooks.loseAnswer, "loseAnswer");
    const store = subject.open(namespace);
    const at = await placeOf(subject, store);
    const { user } = at;
    const reads: Readonly<Record<string, () => Promise<unknown>>> = {
      getMessages: () => store.getMessages(at.key),
      "the newest": () => store.getMessages(at.key, { last: 2 }),
      "a page": () => store.getMessages(at.key, { before: "c", limit: 1 }),
      getSession: () => store.getSession(at.key),
      listSessions: () => store.listSessions({ tenant: "acme", user }),
      "listSessions of all": () => store.listSessions({ tenant: "acme", limit: 1 }),
    };
    for (const [name, read] of Object.entries(reads)) {
      const expected = await read();
      for (let nth = 1, isLost = true; isLost && nth <= mostRequests; nth++) {
        const run = async () =>
          same(await read(), expected, `${name}: a read that was repeated reads otherwise`);
        isLost = await loseAnswer(namespace, nth, run, async () => {});
      }
    }
  });
}

async function placeOf(subject: Subject, store: ChatStore, begins = false): Promise<Place> {
  const user = subject.user();
  const keyOf = (conversation: string) => sessionKey({ tenant: "acme", user, conversation });
  const key = keyOf("main");
  const abc = begins ? keyOf("abc") : key;
  const messages = ["a", "b", "c"].map((id) => say(id, { id }));
  const { version } = await store.addMessages(abc, messages);
  return { user, key, abc, version: String(version) };
}

/** What a write said that has happened, and after which somebody else wrote. */
async function judge(
  store: ChatStore,
  { key }: Place,
  lands: boolean,
  result: PromiseSettledResult<Awaited<ReturnType<Repeated["write"]>>> | undefined,
): Promise<void> {
  if (result?.status === "rejected") {
    const { code, outcome } = result.reason as BackendError;
    same(
      [code, outcome, lands],
      ["BACKEND", "unknown", false],
      `A write that has happened was said to have failed: ${result.reason}`,
    );
    return;
  }
  const written = result?.value;
  if (typeof written !== "object" || written.version === null) return;
  await refused(
    store.setMessages(key, [], { ifVersion: written.version }),
    "VERSION_CONFLICT",
    "A write returned a version that somebody else made: the next one on it overwrites what this writer never saw",
  );
}

/** A write whose answer was lost, and its repetition: as many attempts as it takes. */
export function knowsOutcomes(subject: Subject): void {
  const namespace = subject.namespace();

  async function prepare({ begins }: Repeated) {
    const [store, other] = [subject.open(namespace), subject.open(namespace)];
    await other.open();
    return { store, other, at: await placeOf(subject, store, begins) };
  }

  for (const [name, repetition] of Object.entries(repeated)) {
    const { write, leaves, title } = repetition;
    describe(name, () => {
      test.each<[string, readonly Fault["fate"][]]>([
        ["is lost", ["lost"]],
        ["is lost twice", ["lost", "lost"]],
        ["is lost and the next attempt refused", ["lost", "refused"]],
      ])("takes effect once when its answer %s", async (_, fates) => {
        const { store, other, at } = await prepare(repetition);
        failWrites(
          store,
          fates.map((fate) => ({ fate })),
        );
        const result = await write(store, at);
        const { session, messages } = await other.readSession(at.key);
        same(
          { texts: texts(messages), title: session?.title },
          { texts: leaves, title },
          "A repeated write took effect twice, or not at all",
        );
        if (typeof result === "number") return;
        same(
          result,
          { version: session?.version ?? null, messageCount: leaves.length },
          "A repeated write does not name the version and count that it left",
        );
      });

      test.each<[string, (foreign: Fault["then"]) => readonly Fault[]]>([
        ["before it is repeated", (then) => [{ fate: "lost", then }]],
        ["before a refused repetition", (then) => [{ fate: "lost", then }, { fate: "refused" }]],
        ["after a refused repetition", (then) => [{ fate: "lost" }, { fate: "refused", then }]],
      ])("does not pass off what others write %s as its own", async (_, faultsWith) => {
        const { store, other, at } = await prepare(repetition);
        let foreign: string | null = null;
        failWrites(
          store,
          faultsWith(async () => {
            foreign = (await other.addMessages(at.key, [say("foreign")])).version;
          }),
        );
        const [result] = await Promise.allSettled([write(store, at)]);
        const found = await other.readSession(at.key);
        same(
          { texts: texts(found.messages), version: found.session?.version },
          { texts: [...leaves, "foreign"], version: foreign },
          "A write was repeated although it had happened: it, or what others wrote, is there twice or gone",
        );
        await judge(store, at, repetition.lands ?? false, result);
      });
    });
  }
}
