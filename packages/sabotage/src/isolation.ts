/** Defects that mix up what belongs to different keys: patterns and separators that meet the text of a user. */
import { ChatStore, type Key, type ListOptions } from "@chatstore/core";
import type { Defect } from "./defect.js";

/** `.` ends at what ends a line to JavaScript. */
function misfiled(key: Key): Key {
  const userAndRest = key.id.replace(/\/c:.*/, "");
  const rest = /[\u2028\u2029].*$/su.exec(userAndRest)?.[0] ?? "";
  return key.id.includes("/c:") && !key.user.includes(rest)
    ? { ...key, user: key.user + rest }
    : key;
}

const firstLine = (text: string) => text.replace(/[\u2028\u2029].*/su, "");

export const isolation: Readonly<Record<string, Defect>> = {
  "files a conversation with a line separator under another user": {
    breaks: "G8",
    backend: (sound) => ({
      append: (key, ...rest) => sound.append(misfiled(key), ...rest),
      replace: (key, ...rest) => sound.replace(misfiled(key), ...rest),
    }),
  },

  "trims the id of a message that is edited": {
    breaks: "G8",
    backend: (sound) => ({
      edit: (key, edit, ...rest) =>
        sound.edit(key, "id" in edit ? { ...edit, id: edit.id.trim() } : edit, ...rest),
    }),
  },

  "keeps the first line of a title": {
    breaks: "G8",
    backend: (sound) => ({
      append(key, records, patch, ...rest) {
        const title = patch?.title;
        const cut = typeof title === "string" ? { ...patch, title: firstLine(title) } : patch;
        return sound.append(key, records, cut, ...rest);
      },
    }),
  },

  "erases users by a pattern": {
    breaks: "G8",
    backend: (sound, engine) => ({
      async erase(target, signal) {
        if ("key" in target) return sound.erase(target, signal);
        const users = engine()
          .prepare("SELECT DISTINCT user FROM chatstore_sessions WHERE tenant = ? AND user LIKE ?")
          .pluck()
          .all(target.scope.tenant, target.scope.user) as string[];
        let erased = 0;
        for (const user of users) {
          erased += await sound.erase({ scope: { ...target.scope, user } }, signal);
        }
        return erased;
      },
    }),
  },

  "shows everybody's sessions to nobody": {
    breaks: "G8",
    store: class extends ChatStore {
      override listSessions(options: ListOptions) {
        const { user, ...rest } = options;
        return super.listSessions(user === undefined ? rest : options);
      }
    },
  },
};
