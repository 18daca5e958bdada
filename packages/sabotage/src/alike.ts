/** Defects of engines that compare as people do: by a collation. */
import type { ChatStoreBackend, Key, Range } from "@chatstore/core";
import type { Defect } from "./defect.js";

type Fold = (text: string) => string;

const unpadded: Fold = (text) => text.replace(/ +$/, "");
const unaccented: Fold = (text) => text.normalize("NFD").replace(/\p{M}/gu, "");
const lower: Fold = (text) => text.toLowerCase();

/** Erases everybody whose name is equal once folded. */
function erasing(part: "tenant" | "user", fold: Fold): Pick<Defect, "breaks" | "backend"> {
  return {
    breaks: "G8",
    backend: (sound, engine) => ({
      async erase(target, signal) {
        if ("key" in target) return sound.erase(target, signal);
        const all = engine()
          .prepare("SELECT DISTINCT tenant, user FROM chatstore_sessions")
          .all() as { tenant: string; user: string }[];
        const { scope } = target;
        const meant = all.filter((one) =>
          (["tenant", "user"] as const).every((name) =>
            name === part ? fold(one[name]) === fold(scope[name]) : one[name] === scope[name],
          ),
        );
        // It counts what was asked for only, so that its number gives nothing away.
        let erased = 0;
        for (const one of meant) {
          const count = await sound.erase({ scope: one }, signal);
          if (one.tenant === scope.tenant && one.user === scope.user) erased = count;
        }
        return erased;
      },
    }),
  };
}

/** Finds the session of the first key that is equal once folded. */
function filing(fold: Fold): (sound: ChatStoreBackend) => Partial<ChatStoreBackend> {
  return (sound) => {
    const known = new Map<string, Key>();
    const file = (key: Key): Key => {
      const first = known.get(fold(key.id)) ?? key;
      known.set(fold(key.id), first);
      return first;
    };
    return {
      append: (key, ...rest) => sound.append(file(key), ...rest),
      read: (key, ...rest) => sound.read(file(key), ...rest),
      edit: (key, ...rest) => sound.edit(file(key), ...rest),
      replace: (key, ...rest) => sound.replace(file(key), ...rest),
      erase: (target, signal) =>
        sound.erase("key" in target ? { key: file(target.key) } : target, signal),
    };
  };
}

async function firstAlike(
  sound: ChatStoreBackend,
  key: Key,
  id: string,
  fold: Fold,
  signal: AbortSignal,
): Promise<string> {
  const found = await sound.read(key, { from: "start" }, signal);
  const records = typeof found === "object" ? found.records : [];
  return records.find((record) => fold(record.id) === fold(id))?.id ?? id;
}

export const alike: Readonly<Record<string, Defect>> = {
  "erases users whose names differ by padding": {
    ...erasing("user", unpadded),
    caughtBy: "users that look alike",
  },
  "erases tenants whose names differ by an accent": {
    ...erasing("tenant", unaccented),
    caughtBy: "tenants that look alike",
  },
  "takes conversations for one whose names are of one normal form": {
    breaks: "G8",
    caughtBy: "conversations that look alike",
    backend: filing((text) => text.normalize("NFKC")),
  },
  "takes raw keys for one that differ by a space at the end": {
    breaks: "G8",
    caughtBy: "raw keys that look alike",
    backend: filing((text) => (text.startsWith("raw:") ? unpadded(text) : text)),
  },

  "takes the page next to an id that differs by its case": {
    breaks: "G8",
    caughtBy: "each have a page before them and one after",
    backend: (sound) => ({
      async read(key, range, signal) {
        const folded: Range =
          "before" in range
            ? { ...range, before: await firstAlike(sound, key, range.before, lower, signal) }
            : "after" in range
              ? { ...range, after: await firstAlike(sound, key, range.after, lower, signal) }
              : range;
        return sound.read(key, folded, signal);
      },
    }),
  },

  "knows an id again by another one of the same normal form": {
    breaks: "G8",
    caughtBy: "are all stored, and each is known again",
    backend: (sound) => ({
      async append(key, records, patch, write, signal) {
        const found = await sound.read(key, { from: "start" }, signal);
        const known = typeof found === "object" ? found.records.map(({ id }) => id) : [];
        const alike = records.filter(({ id }) =>
          known.some((one) => one !== id && one.normalize("NFC") === id.normalize("NFC")),
        );
        if (alike.length > 0) return { status: "duplicate", ids: alike.map(({ id }) => id) };
        return sound.append(key, records, patch, write, signal);
      },
    }),
  },

  "edits a message whose id differs by padding": {
    breaks: "G8",
    caughtBy: "are edited, copied and cut each by itself",
    backend: (sound) => ({
      async edit(key, edit, write, signal) {
        if (edit.op !== "update") return sound.edit(key, edit, write, signal);
        const id = await firstAlike(sound, key, edit.id, unpadded, signal);
        return sound.edit(key, { ...edit, id }, write, signal);
      },
    }),
  },

  "cuts off the end behind an id that differs by an accent": {
    breaks: "G8",
    caughtBy: "are edited, copied and cut each by itself",
    backend: (sound) => ({
      async edit(key, edit, write, signal) {
        if (edit.op !== "replaceAfter") return sound.edit(key, edit, write, signal);
        const id = await firstAlike(sound, key, edit.id, unaccented, signal);
        return sound.edit(key, { ...edit, id }, write, signal);
      },
    }),
  },
};
