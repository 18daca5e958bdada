/** Defects of writes whose answer is lost, and of their repetition. */
import { randomUUID } from "node:crypto";
import { ChatStore, type ChatStoreBackend } from "@chatstore/core";
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
