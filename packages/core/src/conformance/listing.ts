import type { ChatStore, ListOptions, SessionInfo } from "../chat-store.js";
import { holds } from "./claims.js";

/** All sessions of a list, page by page. */
export async function listAll(
  store: Pick<ChatStore, "listSessions">,
  options: ListOptions,
): Promise<SessionInfo[]> {
  const found: SessionInfo[] = [];
  let { cursor } = options;
  do {
    const page = await store.listSessions({ ...options, cursor });
    holds(page.sessions.length <= (options.limit ?? 50), "A page is longer than its limit");
    found.push(...page.sessions);
    cursor = page.cursor;
  } while (cursor !== undefined);
  return found;
}
