/**
 * The conformance suite: proves that a backend keeps all guarantees. Needs vitest and fast-check.
 *
 * @packageDocumentation
 */
import { configuration } from "./configuration.js";
import { durable } from "./g01-durable.js";
import { atomic } from "./g02-atomic.js";
import { ordered } from "./g03-ordered.js";
import { programOrdered } from "./g04-program-order.js";
import { idempotent } from "./g05-idempotent.js";
import { withoutLostUpdates } from "./g06-no-lost-update.js";
import { exact } from "./g07-exact.js";
import { isolated } from "./g08-isolated.js";
import { failsClearly } from "./g09-fails-clearly.js";
import { closes } from "./g10-closes.js";
import { expires } from "./g11-expires.js";
import { flatCost } from "./g12-flat-cost.js";
import { multiProcess } from "./g13-multi-process.js";
import { erases } from "./g14-erases.js";
import { lengths } from "./lengths.js";
import { lists } from "./lists.js";
import { modelled } from "./model.js";
import { replacing } from "./replacing.js";
import { sessions } from "./sessions.js";
import { loadSubject, type Subject, type SubjectOptions } from "./subject.js";

/** G1 to G14 as the design numbers them; `API`: the meaning of the methods; `model`: random operations. */
export type Guarantee = keyof typeof suites;

/** What {@link testChatStore} needs to know of a backend. */
export interface ConformanceOptions extends SubjectOptions {
  /** Only these. Default: all. */
  readonly guarantees?: readonly Guarantee[] | undefined;
  /** Only the tests of these names, of whatever guarantee. Default: all. */
  readonly tests?: readonly string[] | undefined;
  /** Skip what is left after the first failure: while you write a backend. Default: false. */
  readonly bail?: boolean | undefined;
  /** Why the engine cannot be had here, and what to install: everything becomes one visible skip. */
  readonly skip?: string | undefined;
}

const suites = {
  G1: ["durable", durable],
  G2: ["atomic", atomic],
  G3: ["totally ordered", ordered],
  G4: ["program order", programOrdered],
  G5: ["idempotent", idempotent],
  G6: ["no lost update", withoutLostUpdates],
  G7: ["exact", exact],
  G8: ["isolated", isolated],
  G9: ["fails clearly", failsClearly],
  G10: ["closes", closes],
  G11: ["expires", expires],
  G12: ["flat cost", flatCost],
  G13: ["multi-process", multiProcess],
  G14: ["erases", erases],
  API: ["semantics", semantics],
  model: ["against the reference", modelled],
} as const satisfies Record<string, readonly [title: string, register: (subject: Subject) => void]>;

function semantics(subject: Subject): void {
  describe("sessions", () => sessions(subject));
  describe("replacing the end", () => replacing(subject));
  describe("lists", () => lists(subject));
  describe("long conversations", () => lengths(subject));
  describe("configuration", () => configuration(subject));
}

/**
 * Register the suite's tests for a backend, in a vitest test file. The engine must be there by then: start it with a
 * top-level `await`.
 *
 * @example
 * testChatStore({
 *   name: "redis",
 *   module: new URL("../dist/index.js", import.meta.url),
 *   factory: "redisChatStore",
 *   options: (namespace) => ({ url, prefix: namespace }),
 * });
 */
export function testChatStore(options: ConformanceOptions): void {
  // What is slow here is the machine, not the store: no test of the suite measures time by vitest's own limit.
  describe(`conformance: ${options.name}`, { timeout: 90_000 }, async () => {
    if (options.skip !== undefined) {
      test.skip(options.skip);
      return;
    }
    const subject = await loadSubject(options).catch((error: unknown) => {
      test("can be opened", () => {
        throw error;
      });
    });
    if (subject === undefined) return;
    afterAll(() => subject.dispose(), 300_000);
    if (options.bail) stopAtFirstFailure();
    const { tests } = options;
    if (tests !== undefined) {
      beforeEach((context) => context.skip(!tests.includes(context.task.name), "not asked for"));
    }
    const wanted = options.guarantees ?? (Object.keys(suites) as Guarantee[]);
    for (const name of wanted) {
      const [title, register] = suites[name];
      describe(`${name} ${title}`, () => register(subject));
    }
  });
}

function stopAtFirstFailure(): void {
  let failed = false;
  beforeEach((context) => context.skip(failed, "after the first failure"));
  afterEach(({ task }) => {
    failed ||= task.result?.state === "fail";
  });
}

export {
  conformanceReport,
  formatReport,
  type ReportEntry,
  type VitestReport,
} from "./report.js";

import { afterAll, afterEach, beforeEach, describe, test } from "./tools.js";

export type { ConformanceHooks, SubjectOptions } from "./subject.js";
