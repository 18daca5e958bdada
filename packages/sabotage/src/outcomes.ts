/** Defects of writes whose answer is lost, and of their repetition. */
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { BackendError, ChatStore, type ChatStoreBackend } from "@chatstore/core";
import type { Defect } from "./defect.js";

/** What a method does when it is called for a write that it was called for before. */
function repeated(
  sound: ChatStoreBackend,
  method: "append" | "edit" | "replace" | "erase",
  repeat: (...args: never[]) => unknown,
): Partial<ChatStoreBackend> {
  const seen = new Set<string>();
  return {
    [method]: (...args: unknown[]) => {
      const { next } = args.at(-2) as { next: string };
      const call = seen.has(next) ? repeat : sound[method];
      seen.add(next);
      return (call as (...args: unknown[]) => unknown)(...args);
    },
  };
}

/** The errors of a backend, changed on their way out. */
function withErrors(
  sound: ChatStoreBackend,
  methods: readonly ("read" | "list" | "append" | "edit" | "replace")[],
  change: (error: BackendError) => unknown,
): Partial<ChatStoreBackend> {
  const entries = methods.map((name) => [
    name,
    (...args: unknown[]) =>
      (sound[name] as (...args: unknown[]) => Promise<unknown>)(...args).catch((error: unknown) => {
        throw error instanceof BackendError ? change(error) : error;
      }),
  ]);
  return Object.fromEntries(entries) as Partial<ChatStoreBackend>;
}

const notApplied = ({ message, retryable }: BackendError) =>
  new BackendError(message, { retryable, outcome: "not-applied" });

export const outcomes: Readonly<Record<string, Defect>> = {
  "names the version of whoever wrote last for an append": {
    breaks: "G6",
    store: class extends ChatStore {
      override async addMessages(...args: Parameters<ChatStore["addMessages"]>) {
        const { messageCount } = await super.addMessages(...args);
        const session = await super.getSession(args[0]);
        return { version: session?.version ?? null, messageCount };
      }
    },
  },

  "does not look at the token of a repeated edit": {
    breaks: "G6",
    backend: (sound) =>
      repeated(sound, "edit", (key, edit, write: object, signal) =>
        sound.edit(key, edit, { ...write, next: randomUUID() }, signal),
      ),
  },

  "does not look at the token of a repeated replacement": {
    breaks: "G6",
    backend: (sound) =>
      repeated(sound, "replace", (key, records, patch, write: object, signal) =>
        sound.replace(key, records, patch, { ...write, next: randomUUID() }, signal),
      ),
  },

  "overwrites with a repeated replacement what others wrote since": {
    breaks: "G6",
    backend: (sound) =>
      repeated(sound, "replace", (key, records, patch, { next }: { next: string }, signal) =>
        sound.replace(key, records, patch, { next }, signal),
      ),
  },

  "appends again what was appended by an attempt whose answer was lost": {
    breaks: "G6",
    backend: (sound) =>
      repeated(sound, "append", (key, records: readonly { id: string }[], patch, write, signal) =>
        sound.append(
          key,
          (records as never[]).map((record: object) => ({ ...record, id: randomUUID() })) as never,
          patch,
          write,
          signal,
        ),
      ),
  },

  "says of an edit whose answer was lost that it did not happen": {
    breaks: "G9",
    backend: (sound) => withErrors(sound, ["edit"], notApplied),
  },

  "says of a replacement whose commit failed after it happened that it did not happen": {
    breaks: "G9",
    backend: (sound) => withErrors(sound, ["replace"], notApplied),
  },

  "says of an append whose answer was lost that it did not happen": {
    breaks: "G9",
    backend: (sound) => withErrors(sound, ["append"], notApplied),
  },

  "does not repeat a read that was cut": {
    breaks: "G9",
    backend: (sound) =>
      withErrors(
        sound,
        ["read", "list"],
        ({ message, outcome }) => new BackendError(message, { retryable: false, outcome }),
      ),
  },

  "throws the driver's own error for a cut connection": {
    breaks: "G9",
    backend: (sound) => withErrors(sound, ["append"], () => new Error("read ECONNRESET")),
  },

  "writes later what its caller was told had timed out": {
    breaks: "G9",
    backend: (sound) => ({
      async append(key, records, patch, write, signal) {
        const again = async () => {
          await delay(5);
          await sound.append(key, records, patch, write, AbortSignal.timeout(5)).catch(again);
        };
        try {
          return await sound.append(key, records, patch, write, signal);
        } catch (error) {
          void again();
          throw error;
        }
      },
    }),
  },

  "erases again what was begun after an erasure whose answer was lost": {
    breaks: "G6",
    store: class extends ChatStore {
      override async deleteMessages(key: string) {
        try {
          return await super.deleteMessages(key);
        } catch (error) {
          if ((error as { outcome?: unknown }).outcome !== "unknown") throw error;
          return super.deleteMessages(key);
        }
      }
    },
  },
};
