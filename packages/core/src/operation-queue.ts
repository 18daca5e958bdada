/** Names of lanes. An operation waits for both kinds, and later operations wait for the ones that it takes. */
export interface Lanes {
  readonly takes: readonly string[];
  readonly waits: readonly string[];
}

/** Orders the operations of one handle (G4): one starts when all that were queued before it on its lanes have settled. */
export class OperationQueue {
  /** Of each busy lane: settles, never rejects, when its last operation has. */
  readonly #tails = new Map<string, Promise<void>>();

  run<T>(lanes: Lanes, operation: () => Promise<T>): Promise<T> {
    const before: Promise<void>[] = [];
    this.#collect(lanes.takes, before);
    this.#collect(lanes.waits, before);
    const result = before.length === 0 ? operation() : Promise.all(before).then(operation);
    const release = () => {
      for (const lane of lanes.takes) {
        if (this.#tails.get(lane) === settled) this.#tails.delete(lane);
      }
    };
    const settled = result.then(release, release);
    for (const lane of lanes.takes) this.#tails.set(lane, settled);
    return result;
  }

  #collect(lanes: readonly string[], tails: Promise<void>[]): void {
    for (const lane of lanes) {
      const tail = this.#tails.get(lane);
      if (tail !== undefined) tails.push(tail);
    }
  }

  /** The busy lanes whose name passes. */
  busy(test: (lane: string) => boolean): string[] {
    return [...this.#tails.keys()].filter(test);
  }

  /** Settles when everything that is queued now has. */
  async drained(): Promise<void> {
    await Promise.all(this.#tails.values());
  }
}
