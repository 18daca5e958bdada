/**
 * The promise of a write. LlamaIndex drops these promises, so a failed write must not become an unhandled rejection,
 * and must not be lost either: it knows whether anybody listens.
 */
export class WritePromise<T> extends Promise<T> {
  /** Promises derived by `then` are ordinary ones: whoever derives one is responsible for it. */
  static override get [Symbol.species](): PromiseConstructor {
    return Promise;
  }

  #observed = false;

  /** @param onDropped Called when the write failed and nobody had attached a handler by then. */
  static of<T>(start: () => Promise<T>, onDropped: (error: unknown) => void): WritePromise<T> {
    const promise = new WritePromise<T>((resolve, reject) => {
      // An executor's throw rejects, and so does start()'s.
      start().then(resolve, reject);
    });
    Promise.prototype.then.call(promise, undefined, (error: unknown) => {
      // `await` calls `then` in a microtask, and that one comes after this when start() threw at once.
      queueMicrotask(() => {
        if (!promise.#observed) onDropped(error);
      });
    });
    return promise;
  }

  // biome-ignore lint/suspicious/noThenProperty: `await` on a subclass calls this, which is how we know
  override then<A = T, B = never>(
    onFulfilled?: ((value: T) => A | PromiseLike<A>) | null,
    onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.#observed = true;
    return super.then(onFulfilled, onRejected);
  }
}

/** What `flush()` throws of the failures that nobody saw: the one, or an `AggregateError` of several. */
export function throwFailures(failures: readonly Error[]): void {
  if (failures.length === 1) throw failures[0];
  if (failures.length > 1) {
    throw new AggregateError(
      failures,
      `${failures.length} writes failed; the first: ${failures[0]?.message}`,
    );
  }
}
