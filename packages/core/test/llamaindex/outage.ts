import {
  BackendError,
  ChatStore,
  type ChatStoreBackend,
  type ChatStoreOptions,
  MemoryBackend,
} from "../../src/index.ts";

/** A store whose engine can be away for a while. */
export class FragileStore extends ChatStore {
  readonly #engine: { down: boolean; retryable: boolean };
  /** Names of the backend's methods, in the order in which they were called. */
  readonly calls: string[];

  constructor(options: ChatStoreOptions & { name?: string } = {}) {
    const engine = { down: false, retryable: true };
    const calls: string[] = [];
    const backend = new Proxy(new MemoryBackend(options.name), {
      get(target, name) {
        const member: unknown = Reflect.get(target, name, target);
        if (typeof member !== "function" || name === "close") return member;
        return async (...args: unknown[]) => {
          calls.push(String(name));
          if (!engine.down) return member.apply(target, args);
          const { retryable } = engine;
          throw new BackendError("the engine is away", { retryable, outcome: "not-applied" });
        };
      },
    }) as ChatStoreBackend;
    super(backend, { timeout: 40, ...options });
    this.#engine = engine;
    this.calls = calls;
  }

  fail(how: { retryable: boolean } = { retryable: false }): void {
    this.#engine.down = true;
    this.#engine.retryable = how.retryable;
  }

  recover(): void {
    this.#engine.down = false;
  }
}
