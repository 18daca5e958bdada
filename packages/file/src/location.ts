/** Where the sessions are: what `dir` and `url` mean. */
import { parse, resolve } from "node:path";
import { InvalidOptionsError, parsePathUrl } from "@chatstore/core";
import type { FileChatStoreOptions } from "./index.js";

const example = "file:./chats (relative) or file:///var/lib/app/chats (absolute)";

/** @throws InvalidOptionsError for what names no folder, or hardly the one that is meant. */
export function directoryOf({ dir, url }: FileChatStoreOptions): string {
  if (dir !== undefined && url !== undefined) {
    throw new InvalidOptionsError("Give either `dir` or `url`, not both");
  }
  const path = url === undefined ? dir : parsePathUrl(url, "file", example);
  if (typeof path !== "string" || path === "" || path.includes("\0")) {
    throw new InvalidOptionsError(
      'Where to keep the sessions? Give a folder, as in { dir: "./chats" } or { url: "file:./chats" }',
    );
  }
  // A folder that would be made by this name, and found by nobody.
  if (/^file:/i.test(path)) {
    throw new InvalidOptionsError(
      `dir is ${JSON.stringify(path)}; that is a URL: give it as \`url\``,
    );
  }
  const folder = resolve(path);
  if (folder === parse(folder).root) {
    throw new InvalidOptionsError(
      `${JSON.stringify(path)} is the root directory: name a folder in it for the sessions`,
    );
  }
  return folder;
}
