/**
 * The conformance suite: proves that a backend keeps all guarantees. Needs vitest and fast-check.
 *
 * @packageDocumentation
 */
import { afterAll, describe, test } from "vitest";
import { durable } from "./g01-durable.js";
import { loadSubject, type Subject, type SubjectOptions } from "./subject.js";

/** G1 to G14 as the design numbers them; `API`: the meaning of the methods; `model`: random operations. */
export type Guarantee = keyof typeof suites;

/** What {@link testChatStore} needs to know of a backend. */
export interface ConformanceOptions extends SubjectOptions {
  /** Only these. Default: all. */
  readonly guarantees?: readonly Guarantee[] | undefined;
  /** Why the engine cannot be had here, and what to install: everything becomes one visible skip. */
  readonly skip?: string | undefined;
}

const suites = {
  G1: ["durable", durable],
} as const satisfies Record<string, readonly [title: string, register: (subject: Subject) => void]>;

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
    afterAll(() => subject.dispose());
    const wanted = options.guarantees ?? (Object.keys(suites) as Guarantee[]);
    for (const name of wanted) {
      const [title, register] = suites[name];
      describe(`${name} ${title}`, () => register(subject));
    }
  });
}

export type { ConformanceHooks, SubjectOptions } from "./subject.js";
