import {
  BackendError,
  ChatStore,
  type ChatStoreBackend,
  type ChatStoreOptions,
  MemoryBackend,
} from "@chatstore/core";

interface Outage {
  /** Whether the failure says that it may pass. Default: it does not, so that the store gives up at once. */
  retryable?: boolean;
  /** Operations that still succeed. */
  after?: number;
}

/** A store whose engine can be away for a while. */
export class FragileStore extends ChatStore {
  /** What the engine was asked: method and arguments as JSON. */
  readonly calls: string[];
  readonly #engine: { outage: Required<Outage> | undefined };

  constructor(options: ChatStoreOptions & { name?: string } = {}) {
    const calls: string[] = [];
    const engine: { outage: Required<Outage> | undefined } = { outage: undefined };
    const backend = new Proxy(new MemoryBackend(options.name), {
      get(target, name) {
        const member: unknown = Reflect.get(target, name, target);
        if (typeof member !== "function" || name === "close") return member;
        return async (...args: unknown[]) => {
          calls.push(`${String(name)} ${JSON.stringify(args)}`);
          const { outage } = engine;
          if (outage === undefined || outage.after-- > 0) return member.apply(target, args);
          const { retryable } = outage;
          throw new BackendError("the engine is away", { retryable, outcome: "not-applied" });
        };
      },
    }) as ChatStoreBackend;
    super(backend, options);
    this.calls = calls;
    this.#engine = engine;
  }

  fail(outage: Outage = {}): void {
    this.#engine.outage = { retryable: false, after: 0, ...outage };
  }

  recover(): void {
    this.#engine.outage = undefined;
    this.calls.length = 0;
  }
}
