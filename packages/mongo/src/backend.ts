import { randomBytes, randomUUID } from "node:crypto";
import {
  BackendError,
  type Capabilities,
  type ChatStoreBackend,
  CorruptSessionError,
  decodeCursor,
  type Edit,
  encodeCursor,
  judgeAppend,
  judgeVersion,
  type Key,
  type ListQuery,
  type MessageRecord,
  type MigrateMode,
  type Outcome,
  type Patch,
  type Range,
  SchemaError,
  type Scope,
  sessionKey,
  UnsupportedFormatError,
  unchanged,
  type Write,
} from "@chatstore/core";
import type { Document, Filter } from "mongodb";
import { Documents, type Found, ignoreDuplicate, inTurns, toSession } from "./documents.js";
import type { MongoChatStoreOptions } from "./options.js";
import { isSameLayout, type Layout, layoutAfter, moved, select, wantedFor } from "./reading.js";
import type { Bucket, BucketId, Fields, Head, Message, Times } from "./schema.js";
import * as schema from "./schema.js";
import { eraseSession, removeBuckets, removeOrphans, tidy } from "./tidying.js";

/** So many sessions are removed by one step of the sweep. */
const sessionsPerStep = 100;
/** One request inserts so many buckets. */
const bucketsPerRequest = 1_000;
const earliest = new Date(-8.64e15);

/** Stores sessions in MongoDB. See `schema.ts` for what is stored, and why it holds together. */
export class MongoBackend implements ChatStoreBackend {
  readonly name = "mongo";
  readonly #documents: Documents;
  readonly #collection: string;
  #survives: Capabilities["survives"] = "process";
  /** Where the next search for orphans goes on. */
  readonly #search: { after: BucketId | undefined } = { after: undefined };

  /** @throws InvalidOptionsError for options that are wrong, missing, or contradict each other. */
  constructor(options: MongoChatStoreOptions) {
    const { collection } = schema.checkNames(options);
    this.#documents = new Documents(options, collection);
    this.#collection = collection;
  }

  /** `survives` follows the deployment, and says the least before `open()` has seen it. */
  get capabilities(): Capabilities {
    return { multiProcess: true, survives: this.#survives, sweepsItself: false };
  }

  async open({ migrate, signal }: { readonly migrate: MigrateMode; readonly signal: AbortSignal }) {
    const hello = await this.#documents.connect(signal);
    if (hello["isWritablePrimary"] !== true) {
      throw new BackendError(
        "The MongoDB server is not the primary: let the url name the replica set",
        { retryable: true, outcome: "not-applied" },
      );
    }
    const stored =
      migrate === "off"
        ? undefined
        : await this.#documents.run(signal, ({ meta }) => meta.findOne({}));
    if (stored && stored.compatible > schema.currentVersion) {
      throw new UnsupportedFormatError(
        `The collections ${this.#collection}.* have format version ${stored.version}, ` +
          `this @chatstore/mongo knows up to ${schema.currentVersion}: upgrade it`,
      );
    }
    if (migrate !== "off") await this.#documents.refuseUnusable(signal);
    if (migrate !== "off" && (stored?.version ?? 0) < schema.currentVersion) {
      if (migrate === "check") {
        throw new SchemaError(
          `The collections ${this.#collection}.* have format version ${stored?.version ?? 0}, not ` +
            `${schema.currentVersion}: let somebody with the rights run the script of mongoSchema(), or open with migrate: "auto"`,
        );
      }
      await this.#migrate(signal);
    }
    const members = (hello["hosts"] as unknown[] | undefined)?.length ?? 1;
    this.#survives = members > 1 ? "failover" : "host";
    return { warnings: [] };
  }

  async read(key: Key, range: Range, signal: AbortSignal) {
    const most = range.limit ?? Number.POSITIVE_INFINITY;
    for (let before: Found | undefined; ; ) {
      const found = await this.#documents.find(
        key,
        wantedFor(this.#documents, key, range, most),
        signal,
      );
      if (!found?.isLive) return undefined;
      const messages = await select(this.#documents, found, range, most, signal);
      if (messages === "missing") return messages;
      if (messages !== moved) {
        return { session: toSession(found), records: messages.map(schema.toRecord) };
      }
      if (before && isSameLayout(before, found)) throw incomplete(key);
      before = found;
    }
  }

  async append(
    key: Key,
    records: readonly MessageRecord[],
    patch: Patch | undefined,
    write: Write,
    signal: AbortSignal,
  ): Promise<Outcome> {
    const ids = records.filter(({ fresh }) => !fresh).map(({ id }) => id);
    const isFresh = records.length > 0 && ids.length === 0;
    const wanted = ids.length === 0 ? {} : schema.digestsOf(key.id, ids);
    for (;;) {
      if (isFresh && write.ifVersion !== null) {
        const filter = { version: write.ifVersion ?? { $ne: write.next } };
        const done = await this.#append(key, filter, records, patch, write, signal);
        if (done !== undefined) return done;
      }
      const found = await this.#documents.find(key, wanted, signal);
      const current = standing(found);
      const stored = current
        ? [...current.buckets, current].flatMap(({ messages }) => messages)
        : [];
      const present = new Map(stored.map(({ id, digest }) => [id, digest]));
      const verdict = judgeAppend(current, present, records, patch, write);
      if (verdict.status === "unchanged" && verdict.version === write.next) {
        // An earlier attempt began the session anew, and may have left what was there before.
        await tidy(this.#documents, key, "unknown", signal);
      }
      if (verdict.status !== "insert") return verdict;
      const added = verdict.records;
      if (found === undefined || current === undefined) {
        const done = await this.#rewrite(
          key,
          found,
          added.map(schema.toMessage),
          patch,
          write,
          signal,
        );
        if (done !== undefined) return done;
        continue;
      }
      const { generation, edit, sealed } = found;
      const isConditional = write.ifVersion !== undefined || added.length === 0 || present.size > 0;
      const filter: Filter<Head> = {
        generation,
        edit,
        sealed,
        version: isConditional ? current.version : { $ne: write.next },
        ...(ids.length > 0 && { "messages.id": { $nin: added.map(({ id }) => id) } }),
      };
      const done = await this.#append(key, filter, added, patch, write, signal);
      if (done !== undefined) return done;
      // Either somebody has changed the head, or it has no room.
      await this.#seal(key, signal);
    }
  }

  async edit(key: Key, edit: Edit, write: Write, signal: AbortSignal): Promise<Outcome> {
    const buckets = schema.bucketsWith(key.id, idsOf(edit));
    for (let before: Found | undefined; ; ) {
      const found = await this.#documents.find(key, { messages: "$messages", buckets }, signal);
      const current = standing(found);
      const verdict = judgeVersion(current, write);
      if (verdict?.status === "unchanged") await tidy(this.#documents, key, "unknown", signal);
      if (verdict !== undefined) return verdict;
      if (found === undefined || current === undefined) {
        return edit.op === "remove" ? unchanged(undefined) : { status: "missing", ids: [edit.id] };
      }
      const edited = await layoutAfter(this.#documents, found, edit, signal);
      if (edited === "unchanged") return unchanged(current);
      if (edited === "missing") return { status: "missing", ids: [(edit as { id: string }).id] };
      if (edited !== moved && "status" in edited) return edited;
      if (edited === moved) {
        if (before && isSameLayout(before, found)) throw incomplete(key);
        before = found;
        continue;
      }
      const patch = edit.op === "replaceAfter" ? edit.patch : undefined;
      const done = await this.#switch(key, found, edited, {}, patch, write, signal);
      if (done !== undefined) return done;
    }
  }

  async replace(
    key: Key,
    records: readonly MessageRecord[],
    patch: Patch | undefined,
    write: Write & { readonly times?: Times },
    signal: AbortSignal,
  ): Promise<Outcome> {
    const messages = records.map(schema.toMessage);
    for (;;) {
      const found = await this.#documents.find(key, {}, signal);
      const verdict = judgeVersion(standing(found), write);
      if (verdict?.status === "unchanged") await tidy(this.#documents, key, "unknown", signal);
      if (verdict !== undefined) return verdict;
      const done = await this.#rewrite(key, found, messages, patch, write, signal);
      if (done !== undefined) return done;
    }
  }

  async erase(
    target: { readonly key: Key } | { readonly scope: Scope },
    signal: AbortSignal,
  ): Promise<number> {
    if ("key" in target) return eraseSession(this.#documents, target.key.id, signal);
    const { tenant, user } = target.scope;
    const heads = await this.#documents.run(signal, ({ sessions }) =>
      sessions.find({ tenant, user }, { projection: { _id: 1 } }).toArray(),
    );
    const erased = await inTurns(heads, ({ _id }) => eraseSession(this.#documents, _id, signal));
    const own = sessionKey({ tenant: tenant || undefined, user });
    const orphans = await this.#documents.run(signal, ({ buckets }) =>
      buckets.distinct("_id.session", {
        $or: [{ "_id.session": own }, { "_id.session": { $gte: `${own}/c:`, $lt: `${own}/c;` } }],
      }),
    );
    await inTurns(orphans, (session) => tidy(this.#documents, { id: session }, "unknown", signal));
    return erased.reduce((sum, count) => sum + count, 0);
  }

  async list(query: ListQuery, signal: AbortSignal) {
    const { limit, cursor } = query;
    const live = { $expr: schema.isLive };
    const page = (filter: Filter<Head>, sort: Document) =>
      this.#documents.run(signal, ({ sessions }) =>
        sessions
          .find({ $and: [filter, live] })
          .project<Head>({ messages: 0, state: 0, runs: 0 })
          .sort(sort as Record<string, 1>)
          .limit(limit)
          .toArray(),
      );
    if ("scope" in query) {
      const { tenant, user } = query.scope;
      const after: Filter<Head>[] = [];
      if (cursor !== undefined) {
        const [time, key] = decodeCursor(cursor, ["number", "string"]);
        const updatedAt = new Date(time);
        after.push({ updatedAt: { $lte: updatedAt } });
        after.push({ $or: [{ updatedAt: { $lt: updatedAt } }, { _id: { $gt: key } }] });
      }
      const filter = { $and: [{ tenant, user }, ...after] };
      const heads = await page(filter, { updatedAt: -1, _id: 1 });
      return toPage(heads, limit, (last) => [last.updatedAt.getTime(), last._id]);
    }
    const [after] = cursor === undefined ? [""] : decodeCursor(cursor, ["string"]);
    const { tenant } = query;
    const heads = await page(
      { _id: { $gt: after }, ...(tenant !== undefined && { tenant }) },
      { _id: 1 },
    );
    return toPage(heads, limit, (last) => [last._id]);
  }

  async purge(signal: AbortSignal): Promise<number> {
    let purged = 0;
    for (;;) {
      const expired = await this.#documents.run(signal, ({ sessions }) =>
        sessions
          .aggregate<Pick<Head, "_id" | "edit" | "version">>([
            { $match: { expiresAt: { $gte: earliest } } },
            { $sort: { expiresAt: 1 } },
            { $limit: sessionsPerStep },
            { $match: { $expr: schema.isExpired } },
            { $project: { edit: 1, version: 1 } },
          ])
          .toArray(),
      );
      const removed = await inTurns(expired, async ({ _id, edit, version }) => {
        // With this version it stays expired.
        const { deletedCount } = await this.#documents.write(signal, ({ sessions }, options) =>
          sessions.deleteOne({ _id, edit, version }, options),
        );
        await tidy(this.#documents, { id: _id }, "unknown", signal);
        return version === null ? 0 : deletedCount;
      });
      purged += removed.reduce((sum, count) => sum + count, 0);
      if (expired.length < sessionsPerStep) break;
    }
    await removeOrphans(this.#documents, this.#search, signal);
    return purged;
  }

  async close(): Promise<void> {
    await this.#documents.close();
  }

  async #migrate(signal: AbortSignal): Promise<void> {
    // All of it may be done any number of times, by many processes at once: the server itself holds the lock.
    await this.#documents.run(signal, ({ sessions }) =>
      sessions.createIndexes([...schema.headIndexes]),
    );
    await this.#documents.run(signal, ({ buckets }) =>
      buckets.createIndexes([...schema.bucketIndexes]),
    );
    const { currentVersion: version, compatibleVersion: compatible } = schema;
    await this.#documents.run(signal, ({ meta }) =>
      meta
        .updateOne({ _id: "schema" }, { $max: { version, compatible } }, { upsert: true })
        .catch(ignoreDuplicate),
    );
  }

  /** Append to a head that meets the filter, is live, and has room. `undefined`: it does not. */
  async #append(
    key: Key,
    filter: Filter<Head>,
    records: readonly MessageRecord[],
    patch: Patch | undefined,
    write: Write,
    signal: AbortSignal,
  ): Promise<Outcome | undefined> {
    const messages = records.map(schema.toMessage);
    const fields = messages.length > 0 ? schema.appended(messages) : {};
    const conditions = records.length > 0 ? [schema.isLive, schema.hasRoom] : [schema.isLive];
    const head = await this.#documents.write(signal, ({ sessions }, options) =>
      sessions.findOneAndUpdate(
        { ...filter, _id: key.id, $expr: { $and: conditions } },
        schema.change(fields, write, patch),
        {
          returnDocument: "after",
          projection: { messageCount: 1, bytes: 1, length: { $size: "$messages" } },
          includeResultMetadata: false,
          ...options,
        },
      ),
    );
    if (head === null) return undefined;
    const { messageCount, length, bytes } = head as Head & { readonly length: number };
    if (messages.length > 0 && schema.isFull(length, bytes)) {
      // The messages are stored, whatever becomes of this. When it fails, whoever finds no room does it.
      await this.#seal(key, signal).catch(() => undefined);
    }
    return { status: "applied", version: write.next, messageCount };
  }

  /** Move the oldest messages of a full head into buckets, unless somebody else does. */
  async #seal(key: Key, signal: AbortSignal): Promise<void> {
    const head = await this.#documents.find(key, { messages: "$messages" }, signal);
    if (head === undefined) return;
    const { generation, edit, sealed } = head;
    const { buckets } = schema.cut(head.messages);
    if (buckets.length === 0) return;
    await this.#insert(head, edit, sealed, buckets, signal);
    const { matchedCount } = await this.#documents.write(
      signal,
      ({ sessions }) =>
        sessions.updateOne({ _id: key.id, generation, edit, sealed }, [
          { $set: schema.sealed(head, buckets) },
        ]),
      "not-applied",
    );
    if (matchedCount === 1) return;
    const now = await this.#documents.find(key, {}, signal);
    // Nobody will count these any more.
    if (now?.generation !== generation || now.edit !== edit) {
      await tidy(this.#documents, key, "not-applied", signal);
    }
  }

  /** Other messages in place of all, in a generation of their own. `undefined`: the head is another one now. */
  async #rewrite(
    key: Key,
    found: Found | undefined,
    messages: readonly Message[],
    patch: Patch | undefined,
    write: Write & { readonly times?: Times },
    signal: AbortSignal,
  ): Promise<Outcome | undefined> {
    const laid = {
      generation: randomUUID(),
      runs: [],
      sealed: 0,
      messages,
      messageCount: messages.length,
    };
    const fields = standing(found) === undefined ? schema.begun(key) : {};
    const { buckets } = schema.cut(messages);
    const head =
      found === undefined && buckets.length > 0 ? await this.#reserve(key, signal) : found;
    if (found === undefined && buckets.length > 0 && head === undefined) return undefined;
    return this.#switch(key, head, { ...laid, revised: [] }, fields, patch, write, signal);
  }

  /**
   * Give a head other messages: write the buckets that it will count, change it, and remove what it counts no more.
   * `undefined`: it is another one now.
   */
  async #switch(
    key: Key,
    head: Found | undefined,
    next: Layout,
    fields: Fields,
    patch: Patch | undefined,
    write: Write & { readonly times?: Times },
    signal: AbortSignal,
  ): Promise<Outcome | undefined> {
    const { generation, messageCount } = next;
    const edit = randomBytes(9).toString("base64url");
    const { buckets, rest } = schema.cut(next.messages);
    let { runs } = next;
    for (const [number] of next.revised) {
      runs = schema.withRun({ runs, sealed: next.sealed }, number, number + 1, edit);
    }
    const sealed = next.sealed + buckets.length;
    if (buckets.length > 0) runs = schema.withRun({ runs, sealed }, next.sealed, sealed, edit);
    const owner = { _id: key.id, generation };
    const staged = [
      ...(await this.#insert(owner, edit, next.sealed, buckets, signal)),
      ...(await this.#insertBuckets(
        next.revised.map(([number, messages]) => ({
          _id: { session: key.id, generation, number, edit },
          messages,
        })),
        signal,
      )),
    ];
    const contents = schema.contents({
      messages: rest,
      messageCount,
      generation,
      edit,
      sealed,
      runs,
    });
    const pipeline = schema.change({ ...fields, ...contents }, write, patch);
    const isDone =
      head === undefined
        ? this.#create(key, pipeline, signal)
        : this.#change(head, pipeline, signal);
    if (await isDone) {
      if (head !== undefined) await tidy(this.#documents, key, "unknown", signal);
      return { status: "applied", version: write.next, messageCount };
    }
    await removeBuckets(this.#documents, staged, "not-applied", signal);
    return undefined;
  }

  /** Put a head where there is none. */
  async #create(key: Key, pipeline: Document[], signal: AbortSignal): Promise<boolean> {
    const created = await this.#documents.write(signal, ({ sessions }, options) =>
      sessions
        .updateOne({ _id: key.id, edit: { $exists: false } }, pipeline, {
          ...options,
          upsert: true,
        })
        .catch(ignoreDuplicate),
    );
    return created?.upsertedCount === 1;
  }

  /** Change a head on condition that it is as it was read. */
  async #change(head: Found, pipeline: Document[], signal: AbortSignal): Promise<boolean> {
    const { _id, version, generation, edit, sealed, isLive } = head;
    const $expr = isLive ? schema.isLive : schema.isExpired;
    const { matchedCount } = await this.#documents.write(signal, ({ sessions }, options) =>
      sessions.updateOne({ _id, version, generation, edit, sealed, $expr }, pipeline, options),
    );
    return matchedCount === 1;
  }

  /** Put a head that nobody sees where there is none, so that buckets are never written without one. */
  async #reserve(key: Key, signal: AbortSignal): Promise<Found | undefined> {
    const edit = randomBytes(9).toString("base64url");
    await this.#create(key, schema.reserved(key, randomUUID(), edit), signal);
    const head = await this.#documents.find(key, {}, signal);
    return head?.edit === edit ? head : undefined;
  }

  #insert(
    owner: Pick<Head, "_id" | "generation">,
    edit: string,
    from: number,
    buckets: readonly (readonly Message[])[],
    signal: AbortSignal,
  ): Promise<BucketId[]> {
    const documents = buckets.map((messages, index) => ({
      _id: { session: owner._id, generation: owner.generation, number: from + index, edit },
      messages,
    }));
    return this.#insertBuckets(documents, signal);
  }

  /** One that is there is the same: only sealing makes the same name twice, and that is deterministic. */
  async #insertBuckets(documents: readonly Bucket[], signal: AbortSignal): Promise<BucketId[]> {
    for (let start = 0; start < documents.length; start += bucketsPerRequest) {
      const some = documents.slice(start, start + bucketsPerRequest);
      await this.#documents.write(
        signal,
        ({ buckets }) => buckets.insertMany(some, { ordered: false }).catch(ignoreDuplicate),
        "not-applied",
      );
    }
    return documents.map(({ _id }) => _id);
  }
}

/** The messages that an edit has to see. */
function idsOf(edit: Edit): readonly string[] {
  if (edit.op === "remove") return edit.ids;
  if (edit.op === "update") return [edit.id];
  return [edit.id, ...edit.records.filter(({ fresh }) => !fresh).map(({ id }) => id)];
}

/** The session as it stands; `undefined` when absent or expired. */
function standing(found: Found | undefined): (Found & { readonly version: string }) | undefined {
  return found?.isLive && found.version !== null ? { ...found, version: found.version } : undefined;
}

function toPage(
  heads: readonly Head[],
  limit: number,
  cursorOf: (last: Head) => (string | number)[],
) {
  const sessions = heads.map(toSession);
  const last = heads.length < limit ? undefined : heads.at(-1);
  return last === undefined ? { sessions } : { sessions, cursor: encodeCursor(cursorOf(last)) };
}

function incomplete({ id }: Key): CorruptSessionError {
  return new CorruptSessionError(
    `Session ${id} lacks messages that it counts: somebody deleted buckets. Restore a backup, or erase the session ` +
      "with deleteMessages()",
  );
}
