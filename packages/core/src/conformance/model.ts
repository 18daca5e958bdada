import type { Arbitrary, AsyncCommand } from "fast-check";
import { memoryChatStore } from "../memory-backend.js";
import type { NewMessage } from "../messages.js";
import { type SessionKey, sessionKey } from "../session-key.js";
import type { SessionInfo } from "../store-types.js";
import { anyMessage, anyString, anyValue, forAll } from "./arbitraries.js";
import { same } from "./claims.js";
import { say } from "./messages.js";
import type { Handle } from "./remote.js";
import { type Subject, toNear } from "./subject.js";
import { fc, test } from "./tools.js";

/** Which version a write names. */
type Condition = "none" | "absent" | "current" | "stale";

/** A call, the same for the store under test and for the reference. */
type Call = { readonly key: number; readonly condition: Condition } & (
  | { readonly method: "addMessages" | "setMessages"; readonly messages: NewMessage[] }
  | { readonly method: "insert"; readonly message: NewMessage; readonly index: number }
  | { readonly method: "updateMessage"; readonly at: number; readonly message: NewMessage }
  | { readonly method: "deleteMessagesAfter"; readonly at: number }
  | {
      readonly method: "replaceMessagesAfter";
      readonly at: number;
      readonly messages: NewMessage[];
      readonly title: string | undefined;
    }
  | { readonly method: "deleteMessage"; readonly index: number }
  | { readonly method: "deleteLastMessage" | "deleteMessages" | "readSession" }
  | { readonly method: "page"; readonly at: number; readonly back: boolean; readonly limit: number }
  | { readonly method: "last"; readonly limit: number }
  | { readonly method: "setTitle"; readonly title: string | null }
  | { readonly method: "setState"; readonly entries: Record<string, unknown> }
  | { readonly method: "forkSession"; readonly to: number; readonly at: number | undefined }
  | { readonly method: "deleteSessions" | "listSessions" | "listTenant" | "purgeExpired" }
);

/** One side of the comparison, and what a run did to it. */
class Side {
  readonly stores: Handle[];
  readonly keys: readonly SessionKey[];
  readonly users: readonly { tenant?: string; user: string }[];
  /** The first version of each session, for stale writes. */
  readonly #first = new Map<number, string>();

  constructor(stores: Handle[], tenant: string) {
    this.stores = stores;
    this.users = [
      { tenant, user: "user1" },
      { tenant, user: "user10" },
    ];
    this.keys = this.users.flatMap((parts) => [
      sessionKey(parts),
      sessionKey({ ...parts, conversation: "0" }),
    ]);
  }

  async perform(store: Handle, call: Call): Promise<unknown> {
    try {
      return { resolved: await this.#call(store, call) };
    } catch (error) {
      const { code, ids, currentVersion, message } = error as Record<string, unknown>;
      if (code === undefined) throw error;
      return { rejected: code, ids, version: currentVersion, message: String(message) };
    }
  }

  async #call(store: Handle, call: Call): Promise<unknown> {
    const key = this.keys[call.key] as SessionKey;
    const options = await this.#options(store, call);
    switch (call.method) {
      case "addMessages":
      case "setMessages":
        return store[call.method](key, call.messages, options);
      case "insert":
        return store.addMessage(key, call.message, call.index);
      case "updateMessage":
        return store.updateMessage(key, await idAt(store, key, call.at), call.message, options);
      case "deleteMessagesAfter":
        return store.deleteMessagesAfter(key, await idAt(store, key, call.at), options);
      case "replaceMessagesAfter": {
        const id = await idAt(store, key, call.at);
        const { messages, title } = call;
        return store.replaceMessagesAfter(key, id, messages, { ...options, title });
      }
      case "deleteMessage":
        return store.deleteMessage(key, call.index);
      case "deleteLastMessage":
        return store.deleteLastMessage(key, options);
      case "deleteMessages":
      case "readSession":
        return store[call.method](key);
      case "page": {
        const anchor = await idAt(store, key, call.at);
        const page = call.back ? { before: anchor } : { after: anchor };
        return store.readSession(key, { ...page, limit: call.limit });
      }
      case "last":
        return store.readSession(key, { last: call.limit });
      case "setTitle":
        return store.setTitle(key, call.title, options);
      case "setState":
        return store.setState(key, call.entries, options);
      case "forkSession": {
        const to = this.keys[call.to] as SessionKey;
        const upTo = call.at === undefined ? undefined : await idAt(store, key, call.at);
        return store.forkSession(key, to, { upTo });
      }
      case "deleteSessions":
        return store.deleteSessions(this.#userOf(call));
      case "listSessions":
        return sorted(await store.listSessions(this.#userOf(call)), true);
      case "listTenant":
        return sorted(await store.listSessions({ tenant: this.users[0]?.tenant }), false);
      case "purgeExpired":
        return store.purgeExpired();
    }
  }

  #userOf(call: Call): { tenant?: string; user: string } {
    return this.users[call.key % 2] as { user: string };
  }

  async #options(store: Handle, { key, condition }: Call) {
    if (condition === "none") return {};
    if (condition === "absent") return { ifVersion: null };
    const version = (await store.getSession(this.keys[key] as string))?.version;
    if (version !== undefined && !this.#first.has(key)) this.#first.set(key, version);
    return { ifVersion: condition === "stale" ? this.#first.get(key) : version };
  }
}

interface Sides {
  readonly model: Side;
  readonly real: Side;
  readonly reopen: (index: number) => Promise<void>;
  /** Which version of the one is which of the other. */
  readonly versions: Map<string, string>;
}

/** Calls made in one go on one handle. One call is the usual case. */
class Step implements AsyncCommand<object, Sides> {
  readonly #calls: readonly Call[];
  readonly #handle: number;

  constructor(calls: readonly Call[], handle: number) {
    this.#calls = calls;
    this.#handle = handle;
  }

  check(): boolean {
    return true;
  }

  async run(_: object, sides: Sides): Promise<void> {
    const { model, real } = sides;
    const index = this.#handle % real.stores.length;
    const store = real.stores[index] as Handle;
    const expected: unknown[] = [];
    for (const call of this.#calls) {
      expected.push(await model.perform(model.stores[0] as Handle, call));
    }
    const actual =
      this.#calls.length === 1
        ? [await real.perform(store, this.#calls[0] as Call)]
        : await Promise.all(this.#calls.map((call) => real.perform(store, call)));
    compare(sides, actual, expected, `${this} had another result`);

    // Whoever reads next, through whichever handle, must agree.
    const reader = real.stores[(index + 1) % real.stores.length] as Handle;
    for (const key of new Set(this.#calls.flatMap(touched))) {
      compare(
        sides,
        await reader.readSession(real.keys[key] as string),
        await (model.stores[0] as Handle).readSession(model.keys[key] as string),
        `After ${this} the session is another one`,
      );
    }
  }

  toString(): string {
    const calls = this.#calls.map(({ method, ...args }) => `${method}(${fc.stringify(args)})`);
    return `handle ${this.#handle}: ${calls.join(" + ")}`;
  }
}

class Reopen implements AsyncCommand<object, Sides> {
  readonly #handle: number;

  constructor(handle: number) {
    this.#handle = handle;
  }

  check(): boolean {
    return true;
  }

  async run(_: object, { reopen, model, real, versions }: Sides): Promise<void> {
    await reopen(this.#handle % real.stores.length);
    for (const [key] of real.keys.entries()) {
      const call: Call = { method: "readSession", key, condition: "none" };
      const reader = real.stores[this.#handle % real.stores.length] as Handle;
      compare(
        { versions },
        await real.perform(reader, call),
        await model.perform(model.stores[0] as Handle, call),
        "After it was opened anew, the store holds something else",
      );
    }
  }

  toString(): string {
    return `reopen handle ${this.#handle}`;
  }
}

/** Random operations have the same results on the backend as on the in-memory reference. */
export function modelled(subject: Subject): void {
  test("random operations agree with the reference", async () => {
    const namespace = subject.namespace();
    const handles = await subject.handles(namespace, 3);
    const reopen = async (index: number) => {
      await handles[index]?.close();
      handles[index] = index === 0 ? subject.near(namespace) : await subject.far(namespace);
    };
    const commands = fc.commands([step, step, step, burst, reopening], {
      maxCommands: 40,
      size: "max",
    });
    await forAll(commands, 60, async (sequence) => {
      const tenant = subject.user();
      const real = new Side(handles, tenant);
      const model = new Side([toNear(memoryChatStore())], tenant);
      await fc.asyncModelRun(
        () => ({ model: {}, real: { model, real, reopen, versions: new Map() } }),
        sequence,
      );
    });
  });
}

// --- what random operations are made of

const id = fc.option(fc.constantFrom("a", "b", "c", "d", "~", "a.b", "__proto__"), {
  nil: undefined,
});
const content: Arbitrary<NewMessage> = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(say("yes"), say("no")) },
  { weight: 1, arbitrary: anyMessage },
);
const message = fc
  .record({ id, content })
  .map(({ id, content }) => (id === undefined ? content : { ...content, id }));
const messages = fc.array(message, { maxLength: 5 });
/** So many that a store may keep them in several places; their ids are far back soon. */
const many = fc
  .record({ count: fc.integer({ min: 20, max: 120 }), first: fc.nat({ max: 3 }) })
  .map(({ count, first }) =>
    Array.from({ length: count }, (_, n) =>
      say(`number ${n}`, n % 2 === 0 ? { id: `${first}-${n}` } : {}),
    ),
  );
const position = fc.integer({ min: -4, max: 12 });
const at = fc.oneof(
  { weight: 4, arbitrary: fc.nat({ max: 5 }) },
  { weight: 1, arbitrary: fc.nat({ max: 150 }) },
);
const limit = fc.nat({ max: 6 });
const condition = fc.oneof(
  { weight: 5, arbitrary: fc.constant<Condition>("none") },
  { weight: 3, arbitrary: fc.constant<Condition>("current") },
  { weight: 1, arbitrary: fc.constantFrom<Condition>("absent", "stale") },
);
// Most of it to one session, so that its history grows.
const key = fc.constantFrom(0, 0, 0, 0, 1, 2, 3);

type Shape<C> = { [P in keyof C]: Arbitrary<C[P]> };
function call<M extends Call["method"]>(
  method: M,
  shape: Omit<Shape<Call & { method: M }>, "method" | "key" | "condition">,
): Arbitrary<Call> {
  return fc.record({ method: fc.constant(method), key, condition, ...shape }) as never;
}

/** Calls that need not read first, so that several can be made in one go. */
const direct: Arbitrary<Call> = fc.oneof(
  { weight: 6, arbitrary: call("addMessages", { messages }) },
  { weight: 1, arbitrary: call("addMessages", { messages: many }) },
  { weight: 1, arbitrary: call("setMessages", { messages }) },
  { weight: 1, arbitrary: call("insert", { message, index: position }) },
  { weight: 1, arbitrary: call("deleteMessage", { index: position }) },
  { weight: 1, arbitrary: call("deleteLastMessage", {}) },
  { weight: 1, arbitrary: call("deleteMessages", {}) },
  { weight: 1, arbitrary: call("readSession", {}) },
  { weight: 1, arbitrary: call("last", { limit }) },
  { weight: 1, arbitrary: call("setTitle", { title: fc.option(anyString) }) },
  {
    weight: 1,
    arbitrary: call("setState", {
      entries: fc.dictionary(fc.constantFrom("a", "b", "constructor", "x-1"), anyValue, {
        maxKeys: 3,
        noNullPrototype: true,
      }),
    }),
  },
  { weight: 1, arbitrary: call("deleteSessions", {}) },
);

const single: Arbitrary<Call> = fc.oneof(
  { weight: 8, arbitrary: direct },
  { weight: 2, arbitrary: call("updateMessage", { at, message: fc.oneof(content, message) }) },
  { weight: 1, arbitrary: call("deleteMessagesAfter", { at }) },
  {
    weight: 2,
    arbitrary: call("replaceMessagesAfter", {
      at,
      messages: fc.oneof(messages, many),
      title: fc.option(anyString, { nil: undefined }),
    }),
  },
  { weight: 2, arbitrary: call("page", { at, back: fc.boolean(), limit }) },
  { weight: 1, arbitrary: call("forkSession", { to: key, at: fc.option(at, { nil: undefined }) }) },
  { weight: 1, arbitrary: call("listSessions", {}) },
  { weight: 1, arbitrary: call("listTenant", {}) },
  { weight: 1, arbitrary: call("purgeExpired", {}) },
);
const handle = fc.nat({ max: 5 });
const step = fc.tuple(single, handle).map(([one, index]) => new Step([one], index));
const burst = fc
  .tuple(fc.array(direct, { minLength: 2, maxLength: 5 }), handle)
  .map(([list, index]) => new Step(list.map(unconditional), index));
const reopening = handle.map((index) => new Reopen(index));

function unconditional(one: Call): Call {
  return { ...one, condition: "none" };
}

/** The sessions that a call may have changed. */
function touched(one: Call): number[] {
  if (one.method === "deleteSessions") return [0, 1, 2, 3];
  return one.method === "forkSession" ? [one.key, one.to] : [one.key];
}

/** The id of a message by its place, for messages whose ids differ between the two sides. */
async function idAt(store: Handle, session: string, at: number): Promise<string> {
  const found = await store.getMessages(session);
  return found[at]?.id ?? "nowhere";
}

/** A list in an order that does not depend on the clock, after a look at the one that does. */
function sorted(list: { readonly sessions: readonly SessionInfo[] }, newestFirst: boolean) {
  const times = list.sessions.map(({ updatedAt }) => Number(updatedAt));
  if (newestFirst) {
    same(
      times,
      times.toSorted((a, b) => b - a),
      "A user's sessions are not listed newest first",
    );
  }
  return list.sessions.toSorted((a, b) => (a.key < b.key ? -1 : 1));
}

/** Compare what both sides returned, but for what must differ: versions, ids and times that they made themselves. */
function compare(
  { versions }: Pick<Sides, "versions">,
  actual: unknown,
  expected: unknown,
  loss: string,
): void {
  const [real, model] = [new Comparable(), new Comparable()];
  same(real.of(actual), model.of(expected), loss);
  for (const [index, version] of real.versions.entries()) {
    const counterpart = model.versions[index] as string;
    const known = versions.get(version) ?? counterpart;
    same(known, counterpart, `${loss}: the version changed, or did not, unlike the reference's`);
    versions.set(version, counterpart);
  }
  same(
    new Set(versions.values()).size,
    versions.size,
    `${loss}: the version did not stay, unlike the reference's`,
  );
}

/** A result without what one side made by itself. */
class Comparable {
  /** The versions that stood in it. */
  readonly versions: string[] = [];

  of(value: unknown): unknown {
    if (Array.isArray(value)) return value.map((item) => this.of(item));
    if (typeof value !== "object" || value === null) return value;
    const known = Object.entries(value).map(([name, item]): [string, unknown] => {
      switch (name) {
        case "version":
          if (typeof item === "string") this.versions.push(item);
          return [name, typeof item];
        case "id":
          return [name, uuid.test(String(item)) ? "made" : item];
        case "ids":
          return [name, (item as string[] | undefined)?.map((one) => uuid.test(one) || one)];
        case "createdAt":
        case "updatedAt":
          return [name, Math.abs(Number(item) - Date.now()) < 600_000 ? "now" : item];
        case "resolved":
        case "session":
        case "messages":
          return [name, this.of(item)];
        default:
          return [name, item];
      }
    });
    return Object.fromEntries(known.filter(([name]) => name !== "message"));
  }
}

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
