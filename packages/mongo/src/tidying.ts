/** Removal of sessions, and of buckets that no head counts. */
import { randomBytes } from "node:crypto";
import type { FailureOutcome, Key } from "@chatstore/core";
import { type Documents, inTurns } from "./documents.js";
import type { BucketId, Head } from "./schema.js";
import * as schema from "./schema.js";

/** One request deletes so many buckets; one call looks at so many for orphans. */
const bucketsPerRequest = 1_000;
const bucketsPerSearch = 50_000;

export async function eraseSession(
  documents: Documents,
  session: string,
  signal: AbortSignal,
): Promise<number> {
  const found = await documents.find({ id: session }, {}, signal);
  let erased = 0;
  if (found !== undefined) {
    // What has expired may begin anew meanwhile: that stays.
    const { isLive, version } = found;
    const filter = isLive ? { _id: session } : { _id: session, version };
    const { deletedCount } = await documents.write(signal, ({ sessions }, options) =>
      sessions.deleteOne(filter, options),
    );
    erased = isLive ? deletedCount : 0;
  }
  await tidy(documents, { id: session }, "unknown", signal);
  return erased;
}

/**
 * Remove a session's buckets that its head does not count.
 *
 * They are listed first. Then the head gets a new `edit`, or is absent: no write that is under way and has inserted one of
 * the listed can change the head any more, so that nobody will ever count them.
 */
export async function tidy(
  documents: Documents,
  key: Pick<Key, "id">,
  outcome: FailureOutcome,
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    const { ids, head } = await documents.listBuckets(key, outcome, signal);
    const dead = head === undefined ? ids : ids.filter((id) => !schema.counts(head, id));
    if (dead.length === 0) return;
    if (head !== undefined) {
      const { _id, generation, edit, sealed } = head;
      const { matchedCount } = await documents.write(
        signal,
        ({ sessions }, options) =>
          sessions.updateOne(
            { _id, generation, edit, sealed },
            { $set: { edit: randomBytes(9).toString("base64url") } },
            options,
          ),
        outcome,
      );
      if (matchedCount === 0) continue;
    }
    await removeBuckets(documents, dead, outcome, signal);
    return;
  }
}

export async function removeBuckets(
  documents: Documents,
  ids: readonly BucketId[],
  outcome: FailureOutcome,
  signal: AbortSignal,
): Promise<void> {
  for (let start = 0; start < ids.length; start += bucketsPerRequest) {
    const some = ids.slice(start, start + bucketsPerRequest);
    await documents.write(
      signal,
      ({ buckets }, options) => buckets.deleteMany({ _id: { $in: some } }, options),
      outcome,
    );
  }
}

/** Look through the next buckets for such that no head counts. Moves `search` on, also when it breaks off. */
export async function removeOrphans(
  documents: Documents,
  search: { after: BucketId | undefined },
  signal: AbortSignal,
): Promise<void> {
  for (let seen = 0; seen < bucketsPerSearch; seen += bucketsPerRequest) {
    const { after } = search;
    const page = await documents.run(signal, ({ buckets }) =>
      buckets
        .find(after === undefined ? {} : { _id: { $gt: after } }, { projection: { _id: 1 } })
        .sort({ _id: 1 })
        .limit(bucketsPerRequest)
        .toArray(),
    );
    const names = [...new Set(page.map(({ _id }) => _id.session))];
    const heads = await documents.run(signal, ({ sessions }) =>
      sessions
        .find({ _id: { $in: names } })
        .project<Omit<Head, "messages">>({ generation: 1, sealed: 1, runs: 1 })
        .toArray(),
    );
    const headOf = new Map(heads.map((head) => [head._id, head]));
    const untidy = page.filter(({ _id }) => {
      const head = headOf.get(_id.session);
      return head === undefined || !schema.counts(head, _id);
    });
    const sessions = [...new Set(untidy.map(({ _id }) => _id.session))];
    await inTurns(sessions, (id) => tidy(documents, { id }, "unknown", signal));
    search.after = page.length < bucketsPerRequest ? undefined : page.at(-1)?._id;
    if (search.after === undefined) return;
  }
}
