import { ChatStore } from "@chatstore/core";
import type { Defect } from "./defect.js";

/** What goes wrong where stored data was damaged. */
export const damage: Readonly<Record<string, Defect>> = {
  "gives messages back with no digest to check them by": {
    breaks: "G7",
    backend: (sound) => ({
      async read(key, range, signal) {
        const found = await sound.read(key, range, signal);
        if (typeof found !== "object") return found;
        return { ...found, records: found.records.map((record) => ({ ...record, digest: "" })) };
      },
    }),
  },

  "says that every session is whole which it can read": {
    breaks: "G7",
    store: class extends ChatStore {
      override async verifySession(key: string) {
        await super.verifySession(key);
        return [];
      }
    },
  },
};
