import { createHash } from "node:crypto";
import {
  ChatStore,
  type ChatStoreBackend,
  type MessageRecord,
  type NewMessage,
} from "@chatstore/core";
import type { Defect } from "./defect.js";

/** A backend for which something else is content, too. */
function comparing(
  sound: ChatStoreBackend,
  text: (record: MessageRecord) => string,
): Partial<ChatStoreBackend> {
  const change = (record: MessageRecord) => ({
    ...record,
    digest: createHash("sha256").update(text(record)).digest("base64url").slice(0, 22),
  });
  return {
    append: (key, records, patch, write, signal) =>
      sound.append(key, records.map(change), patch, write, signal),
    replace: (key, records, patch, write, signal) =>
      sound.replace(key, records.map(change), patch, write, signal),
  };
}

/** What goes wrong with the values that callers give. */
export const values: Readonly<Record<string, Defect>> = {
  "takes a time for content": {
    breaks: "G5",
    backend: (sound) => comparing(sound, ({ digest, createdAt }) => `${digest} ${createdAt}`),
  },

  "takes what JSON leaves out for content": {
    breaks: "G5",
    backend: (sound) => comparing(sound, ({ data }) => data),
  },

  "gives bytes back for a Buffer": {
    breaks: "G7",
    store: class extends ChatStore {
      override addMessages(key: string, messages: readonly NewMessage[], options = {}) {
        return super.addMessages(key, structuredClone(messages) as NewMessage[], options);
      }
    },
  },

  "ignores options that it does not know": {
    breaks: "G9",
    store: class extends ChatStore {
      override getMessages(key: string, options: object = {}) {
        const known = ["last", "before", "after", "limit"];
        const given = Object.entries(options).filter(([name]) => known.includes(name));
        return super.getMessages(key, Object.fromEntries(given));
      }
    },
  },

  "throws at once at a title that is none": {
    breaks: "G9",
    store: class extends ChatStore {
      override setTitle(key: string, title: string | null, options = {}) {
        return super.setTitle(key, title === null ? null : title.trim(), options);
      }
    },
  },
};
