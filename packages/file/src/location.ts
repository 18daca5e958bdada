/** Where the sessions are: what `dir` and `url` mean. */
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { InvalidOptionsError } from "@chatstore/core";
import type { FileChatStoreOptions } from "./index.js";

/** @throws InvalidOptionsError for what names no folder, or not the one that is meant. */
export function directoryOf({ dir, url }: FileChatStoreOptions): string {
  if (dir !== undefined && url !== undefined) {
    throw new InvalidOptionsError("Give either `dir` or `url`, not both");
  }
  const path = url === undefined ? dir : pathOfUrl(url);
  if (typeof path !== "string" || path === "" || path.includes("\0")) {
    throw new InvalidOptionsError(
      'Where to keep the sessions? Give a folder, as in { dir: "./chats" } or { url: "file:./chats" }',
    );
  }
  return resolve(path);
}

function pathOfUrl(url: string): string {
  const relative = /^file:(?!\/\/)([^?#]*)$/i.exec(url)?.[1];
  try {
    if (relative !== undefined) return decodeURIComponent(relative);
    const { search, hash } = new URL(url);
    if (search === "" && hash === "") return fileURLToPath(url);
  } catch (cause) {
    throw new InvalidOptionsError(badUrl(url), { cause });
  }
  throw new InvalidOptionsError(badUrl(url));
}

function badUrl(url: string): string {
  return (
    `${JSON.stringify(url)} names no folder: write "file:./chats" or "file:///var/lib/app/chats", ` +
    'percent-encoded ("?" is %3F, "#" is %23)'
  );
}
