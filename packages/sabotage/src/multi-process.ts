import type { Defect } from "./defect.js";

/** What goes wrong where several processes meet. */
export const multiProcess: Readonly<Record<string, Defect>> = {
  "waits for a lock without listening to its signal": {
    breaks: "G13",
    backend: (sound) => ({
      append: (key, records, patch, write) =>
        sound.append(key, records, patch, write, new AbortController().signal),
    }),
  },
};
