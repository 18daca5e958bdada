import type { Range } from "@chatstore/core";
import type { Defect } from "./defect.js";

const everything: Range = { from: "start" };

/** What goes wrong where the end of a conversation is replaced. */
export const replacing: Readonly<Record<string, Defect>> = {
  "replaces the end in two steps": {
    breaks: "API",
    backend: (sound) => ({
      async edit(key, edit, write, signal) {
        if (edit.op !== "replaceAfter" || edit.records.length === 0) {
          return sound.edit(key, edit, write, signal);
        }
        const between = `${write.next}-cut`;
        const found = await sound.read(key, { from: "end", limit: 1 }, signal);
        const isEnd = typeof found === "object" && found.records[0]?.id === edit.id;
        if (!isEnd) {
          const cut = { ...edit, records: [], patch: undefined };
          const outcome = await sound.edit(key, cut, { ...write, next: between }, signal);
          if (outcome.status !== "applied") return outcome;
        }
        const then = isEnd ? write : { ...write, ifVersion: between };
        return sound.append(key, edit.records, edit.patch, then, signal);
      },
    }),
  },

  "lets an id that stays name a second message": {
    breaks: "API",
    backend: (sound) => ({
      async edit(key, edit, write, signal) {
        if (edit.op !== "replaceAfter") return sound.edit(key, edit, write, signal);
        const found = await sound.read(key, everything, signal);
        const records = typeof found === "object" ? found.records : [];
        const kept = records.slice(0, records.findIndex(({ id }) => id === edit.id) + 1);
        const known = new Set(kept.map(({ id }) => id));
        const fresh = edit.records.filter(({ id }) => !known.has(id));
        return sound.edit(key, { ...edit, records: fresh }, write, signal);
      },
    }),
  },

  "looks for ids that stay among the newest thousand": {
    breaks: "API",
    backend: (sound) => ({
      async edit(key, edit, write, signal) {
        const outcome = await sound.edit(key, edit, write, signal);
        if (edit.op !== "replaceAfter" || outcome.status !== "duplicate") return outcome;
        const found = await sound.read(key, { before: edit.id, limit: 1_000 }, signal);
        const near = new Set(typeof found === "object" ? found.records.map(({ id }) => id) : []);
        if (outcome.ids.some((id) => id === edit.id || near.has(id))) return outcome;
        const records = edit.records.filter(({ id }) => !outcome.ids.includes(id));
        return sound.edit(key, { ...edit, records }, write, signal);
      },
    }),
  },

  "forgets title and state with a new end": {
    breaks: "API",
    backend: (sound) => ({
      edit: (key, edit, write, signal) =>
        sound.edit(
          key,
          edit.op === "replaceAfter" ? { ...edit, patch: undefined } : edit,
          write,
          signal,
        ),
    }),
  },

  "writes a history anew to change its end": {
    breaks: "G12",
    backend: (sound) => ({
      async edit(key, edit, write, signal) {
        if (edit.op !== "replaceAfter") return sound.edit(key, edit, write, signal);
        const found = await sound.read(key, everything, signal);
        const records = typeof found === "object" ? found.records : [];
        const at = records.findIndex(({ id }) => id === edit.id);
        if (at < 0) return { status: "missing", ids: [edit.id] };
        const next = [...records.slice(0, at + 1), ...edit.records];
        return sound.replace(key, next, edit.patch, write, signal);
      },
    }),
  },
};
