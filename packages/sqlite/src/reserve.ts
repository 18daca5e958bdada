import { randomBytes } from "node:crypto";
import { rmSync, statSync, writeFileSync } from "node:fs";

/** More than what the write-ahead log holds and the database file has no room for yet, see `logPages`. */
const reserveBytes = 1_536 * 1024;
/** Pages of the write-ahead log after which SQLite brings it into the file: 1 MiB. */
export const logPages = 250;

/**
 * Room that is set aside beside the database, and given up when the disk is full: to erase, SQLite has to write first.
 * What fails here fails in silence: the store works without it.
 */
export class Reserve {
  readonly #path: string;

  /** @param file The database file. */
  constructor(file: string) {
    this.#path = `${file}-reserve`;
  }

  /** Set it aside, where it is not. */
  fill(): void {
    try {
      if (statSync(this.#path, { throwIfNoEntry: false })?.size === reserveBytes) return;
      // What could be compressed would be no room.
      writeFileSync(this.#path, randomBytes(reserveBytes));
    } catch {
      this.release();
    }
  }

  /** @returns whether there was any. */
  release(): boolean {
    try {
      const isThere = statSync(this.#path, { throwIfNoEntry: false }) !== undefined;
      rmSync(this.#path, { force: true });
      return isThere;
    } catch {
      return false;
    }
  }
}
