import { randomBytes, randomUUID } from "node:crypto";
import {
  BackendError,
  type Capabilities,
  type ChatStoreBackend,
  ClosedError,
  CorruptSessionError,
  decodeCursor,
  type Edit,
  encodeCursor,
  type FailureOutcome,
  judgeAppend,
  judgeVersion,
  type Key,
  type ListQuery,
  type MessageRecord,
  type MigrateMode,
  type Outcome,
  type Patch,
  patchChanges,
  type Range,
  SchemaError,
  type Scope,
  type SessionRecord,
  sessionKey,
  UnsupportedFormatError,
  unchanged,
  type Write,
} from "@chatstore/core";
import type { Collection, Document, Filter } from "mongodb";
import { Connection, isDuplicateKey } from "./connection.js";
import type { MongoChatStoreOptions } from "./options.js";
import type { Bucket, BucketId, Fields, Head, Message, Meta, Times } from "./schema.js";
import * as schema from "./schema.js";

/** So many sessions are removed at once, and by one step of the sweep. */
const sessionsAtOnce = 10;
const sessionsPerStep = 100;
/** One request deletes or inserts so many buckets; one call of `purge` looks at so many for orphans. */
const bucketsPerRequest = 1_000;
const bucketsPerPurge = 50_000;
const earliest = new Date(-8.64e15);

/** Changes keep their place in the log on disk, and on a majority of the members, before they resolve. */
const durable = {
  readPreference: "primary",
  readConcern: { level: "majority" },
  writeConcern: { w: "majority", j: true },
  // Whatever an own client's are.
  promoteValues: true,
  promoteLongs: true,
  ignoreUndefined: false,
} as const;

interface Collections {
  readonly sessions: Collection<Head>;
  readonly buckets: Collection<Bucket>;
  readonly meta: Collection<Meta>;
}

/** A head as it was read. */
type Found = Head & {
  readonly isLive: boolean;
  /** As far as asked for. */
  readonly messages: readonly Message[];
  /** Counted ones that were asked for, in order. */
  readonly buckets: readonly Bucket[];
};

/** A read met buckets that its head does not count any more. */
const moved = Symbol("moved");

/** Stores sessions in MongoDB. See `schema.ts` for what is stored, and why it holds together. */
export class MongoBackend implements ChatStoreBackend {
  readonly name = "mongo";
  readonly #connection: Connection;
  readonly #collections: Collections;
  readonly #collection: string;
  #survives: Capabilities["survives"] = "process";
  #closed = false;
  /** Where the next search for orphans goes on. */
  #searched: BucketId | undefined;

  /** @throws InvalidOptionsError for options that are wrong, missing, or contradict each other. */
  constructor(options: MongoChatStoreOptions) {
    const { collection } = schema.checkNames(options);
    this.#connection = new Connection(options);
    this.#collection = collection;
    const { db } = this.#connection;
    this.#collections = {
      sessions: db.collection<Head>(`${collection}.sessions`, durable),
      buckets: db.collection<Bucket>(`${collection}.buckets`, durable),
      meta: db.collection<Meta>(`${collection}.meta`, durable),
    };
  }

  /** `survives` follows the deployment, and says the least before `open()` has seen it. */
  get capabilities(): Capabilities {
    return { multiProcess: true, survives: this.#survives, sweepsItself: false };
  }

  async open({ migrate, signal }: { readonly migrate: MigrateMode; readonly signal: AbortSignal }) {
    if (this.#closed) throw new ClosedError();
    await this.#connection.connect(signal);
    const hello = await this.#run(signal, (_, db) =>
      db.command({ hello: 1 }, { readPreference: "primary" }),
    );
    if (hello["isWritablePrimary"] !== true) {
      throw new BackendError(
        "The MongoDB server is not the primary: let the url name the replica set",
        { retryable: true, outcome: "not-applied" },
      );
    }
    const stored =
      migrate === "off" ? undefined : await this.#run(signal, ({ meta }) => meta.findOne({}));
    if (stored && stored.compatible > schema.currentVersion) {
      throw new UnsupportedFormatError(
        `The collections ${this.#collection}.* have format version ${stored.version}, ` +
          `this @chatstore/mongo knows up to ${schema.currentVersion}: upgrade it`,
      );
    }
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
      const found = await this.#find(key, this.#wantedFor(key, range, most), signal);
      if (!found?.isLive) return undefined;
      const messages = await this.#select(found, range, most, signal);
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
      const found = await this.#find(key, wanted, signal);
      const current = standing(found);
      const stored = current
        ? [...current.buckets, current].flatMap(({ messages }) => messages)
        : [];
      const present = new Map(stored.map(({ id, digest }) => [id, digest]));
      const verdict = judgeAppend(current, present, records, patch, write);
      if (verdict.status === "unchanged" && verdict.version === write.next) {
        // An earlier attempt began the session anew, and may have left what was there before.
        await this.#tidy(key, "unknown", signal);
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
      const found = await this.#find(key, { messages: "$messages", buckets }, signal);
      const current = standing(found);
      const verdict = judgeVersion(current, write);
      if (verdict?.status === "unchanged") await this.#tidy(key, "unknown", signal);
      if (verdict !== undefined) return verdict;
      if (found === undefined || current === undefined) {
        return edit.op === "remove" ? unchanged(undefined) : { status: "missing", ids: [edit.id] };
      }
      const edited = await this.#edited(found, edit, signal);
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
      const found = await this.#find(key, {}, signal);
      const verdict = judgeVersion(standing(found), write);
      if (verdict?.status === "unchanged") await this.#tidy(key, "unknown", signal);
      if (verdict !== undefined) return verdict;
      const done = await this.#rewrite(key, found, messages, patch, write, signal);
      if (done !== undefined) return done;
    }
  }

  async erase(
    target: { readonly key: Key } | { readonly scope: Scope },
    signal: AbortSignal,
  ): Promise<number> {
    if ("key" in target) return this.#erase(target.key.id, signal);
    const { tenant, user } = target.scope;
    const heads = await this.#run(signal, ({ sessions }) =>
      sessions.find({ tenant, user }, { projection: { _id: 1 } }).toArray(),
    );
    const erased = await inTurns(heads, ({ _id }) => this.#erase(_id, signal));
    const own = sessionKey({ tenant: tenant || undefined, user });
    const orphans = await this.#run(signal, ({ buckets }) =>
      buckets.distinct("_id.session", {
        $or: [{ "_id.session": own }, { "_id.session": { $gte: `${own}/c:`, $lt: `${own}/c;` } }],
      }),
    );
    await inTurns(orphans, (session) => this.#tidy({ id: session }, "unknown", signal));
    return erased.reduce((sum, count) => sum + count, 0);
  }

  async list(query: ListQuery, signal: AbortSignal) {
    const { limit, cursor } = query;
    const live = { $expr: schema.isLive };
    const page = (filter: Filter<Head>, sort: Document) =>
      this.#run(signal, ({ sessions }) =>
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
      const expired = await this.#run(signal, ({ sessions }) =>
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
        const { deletedCount } = await this.#write(signal, ({ sessions }) =>
          sessions.deleteOne({ _id, edit, version }),
        );
        await this.#tidy({ id: _id }, "unknown", signal);
        return version === null ? 0 : deletedCount;
      });
      purged += removed.reduce((sum, count) => sum + count, 0);
      if (expired.length < sessionsPerStep) break;
    }
    await this.#removeOrphans(signal);
    return purged;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#connection.close();
  }

  async #migrate(signal: AbortSignal): Promise<void> {
    // All of it may be done any number of times, by many processes at once: the server itself holds the lock.
    await this.#run(signal, ({ sessions }) => sessions.createIndexes([...schema.headIndexes]));
    await this.#run(signal, ({ buckets }) => buckets.createIndexes([...schema.bucketIndexes]));
    const { currentVersion: version, compatibleVersion: compatible } = schema;
    await this.#run(signal, ({ meta }) =>
      meta
        .updateOne({ _id: "schema" }, { $max: { version, compatible } }, { upsert: true })
        .catch(ignoreDuplicate),
    );
  }

  /**
   * The head, with those of its messages that the expression gives, and those of its buckets that the stages find.
   *
   * The head is read before the buckets: one that is sealed between is one too many, which it does not count, and never one
   * too few.
   */
  async #find(
    key: Pick<Key, "id">,
    { messages = [], buckets: stages }: schema.Wanted,
    signal: AbortSignal,
  ): Promise<Found | undefined> {
    const pipeline: Document[] = [
      { $match: { _id: key.id } },
      { $set: { isLive: schema.isLive, messages } },
    ];
    if (stages !== undefined) {
      const coll = this.#collections.buckets.collectionName;
      pipeline.push({ $unionWith: { coll, pipeline: stages } });
    }
    const [first, ...rest] = await this.#run(signal, ({ sessions }) =>
      sessions.aggregate<Document>(pipeline).toArray(),
    );
    // Without a head, the first may be a bucket that nobody counts.
    if (first?.["_id"] !== key.id) return undefined;
    const head = first as Omit<Found, "buckets">;
    const buckets = (rest as Bucket[])
      .filter(({ _id }) => schema.counts(head, _id))
      .sort((one, other) => one._id.number - other._id.number);
    return { ...head, buckets };
  }

  /** What a range needs of head and buckets: all of it, almost always. */
  #wantedFor(key: Key, range: Range, most: number): schema.Wanted {
    if ("from" in range) {
      if (range.from === "start") return { messages: most === 0 ? [] : "$messages" };
      return { messages: schema.newest(most), buckets: schema.bucketsOfNewest(key.id, most) };
    }
    const [id, messages, step] =
      "before" in range
        ? ([range.before, schema.around(range.before), -1] as const)
        : ([range.after, "$messages", 1] as const);
    const { collectionName } = this.#collections.buckets;
    const beside = schema.withNeighbour(collectionName, step);
    return { messages, buckets: [...schema.bucketsWith(key.id, [id]), ...beside] };
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
    const head = await this.#write(signal, ({ sessions }) =>
      sessions.findOneAndUpdate(
        { ...filter, _id: key.id, $expr: { $and: conditions } },
        schema.change(fields, write, patch),
        {
          returnDocument: "after",
          projection: { messageCount: 1, bytes: 1, length: { $size: "$messages" } },
          includeResultMetadata: false,
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
    const head = await this.#find(key, { messages: "$messages" }, signal);
    if (head === undefined) return;
    const { generation, edit, sealed } = head;
    const { buckets } = schema.cut(head.messages);
    if (buckets.length === 0) return;
    await this.#insert(head, edit, sealed, buckets, signal);
    const { matchedCount } = await this.#write(
      signal,
      ({ sessions }) =>
        sessions.updateOne({ _id: key.id, generation, edit, sealed }, [
          { $set: schema.sealed(head, buckets) },
        ]),
      "not-applied",
    );
    if (matchedCount === 1) return;
    const now = await this.#find(key, {}, signal);
    // Nobody will count these any more.
    if (now?.generation !== generation || now.edit !== edit) {
      await this.#tidy(key, "not-applied", signal);
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
      if (head !== undefined) await this.#tidy(key, "unknown", signal);
      return { status: "applied", version: write.next, messageCount };
    }
    await this.#delete(staged, "not-applied", signal);
    return undefined;
  }

  /** Put a head where there is none. */
  async #create(key: Key, pipeline: Document[], signal: AbortSignal): Promise<boolean> {
    const created = await this.#write(signal, ({ sessions }) =>
      sessions
        .updateOne({ _id: key.id, edit: { $exists: false } }, pipeline, { upsert: true })
        .catch(ignoreDuplicate),
    );
    return created?.upsertedCount === 1;
  }

  /** Change a head on condition that it is as it was read. */
  async #change(head: Found, pipeline: Document[], signal: AbortSignal): Promise<boolean> {
    const { _id, version, generation, edit, sealed, isLive } = head;
    const $expr = isLive ? schema.isLive : schema.isExpired;
    const { matchedCount } = await this.#write(signal, ({ sessions }) =>
      sessions.updateOne({ _id, version, generation, edit, sealed, $expr }, pipeline),
    );
    return matchedCount === 1;
  }

  /** Put a head that nobody sees where there is none, so that buckets are never written without one. */
  async #reserve(key: Key, signal: AbortSignal): Promise<Found | undefined> {
    const edit = randomBytes(9).toString("base64url");
    await this.#create(key, schema.reserved(key, randomUUID(), edit), signal);
    const head = await this.#find(key, {}, signal);
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
      await this.#write(
        signal,
        ({ buckets }) => buckets.insertMany(some, { ordered: false }).catch(ignoreDuplicate),
        "not-applied",
      );
    }
    return documents.map(({ _id }) => _id);
  }

  async #erase(session: string, signal: AbortSignal): Promise<number> {
    const found = await this.#find({ id: session }, {}, signal);
    let erased = 0;
    if (found !== undefined) {
      // What has expired may begin anew meanwhile: that stays.
      const { isLive, version } = found;
      const filter = isLive ? { _id: session } : { _id: session, version };
      const { deletedCount } = await this.#write(signal, ({ sessions }) =>
        sessions.deleteOne(filter),
      );
      erased = isLive ? deletedCount : 0;
    }
    await this.#tidy({ id: session }, "unknown", signal);
    return erased;
  }

  /**
   * Remove a session's buckets that its head does not count.
   *
   * They are listed first. Then the head gets a new `edit`, or is absent: no write that is under way and has inserted one of
   * the listed can change the head any more, so that nobody will ever count them.
   */
  async #tidy(key: Pick<Key, "id">, outcome: FailureOutcome, signal: AbortSignal): Promise<void> {
    for (;;) {
      const listed = await this.#run(
        signal,
        ({ buckets }) =>
          buckets
            .find({ _id: schema.bucketsOf(key.id) } as Filter<Bucket>, { projection: { _id: 1 } })
            .toArray(),
        outcome,
      );
      if (listed.length === 0) return;
      const head = await this.#find(key, {}, signal);
      const ids = listed.map(({ _id }) => _id);
      const dead = head === undefined ? ids : ids.filter((id) => !schema.counts(head, id));
      if (dead.length === 0) return;
      if (head !== undefined) {
        const { _id, generation, edit, sealed } = head;
        const { matchedCount } = await this.#write(
          signal,
          ({ sessions }) =>
            sessions.updateOne(
              { _id, generation, edit, sealed },
              { $set: { edit: randomBytes(9).toString("base64url") } },
            ),
          outcome,
        );
        if (matchedCount === 0) continue;
      }
      await this.#delete(dead, outcome, signal);
      return;
    }
  }

  async #delete(
    ids: readonly BucketId[],
    outcome: FailureOutcome,
    signal: AbortSignal,
  ): Promise<void> {
    for (let start = 0; start < ids.length; start += bucketsPerRequest) {
      const some = ids.slice(start, start + bucketsPerRequest);
      await this.#write(
        signal,
        ({ buckets }) => buckets.deleteMany({ _id: { $in: some } }),
        outcome,
      );
    }
  }

  /** Look through the next buckets for such that no head counts. */
  async #removeOrphans(signal: AbortSignal): Promise<void> {
    for (let seen = 0; seen < bucketsPerPurge; seen += bucketsPerRequest) {
      const after = this.#searched;
      const page = await this.#run(signal, ({ buckets }) =>
        buckets
          .find(after === undefined ? {} : { _id: { $gt: after } }, { projection: { _id: 1 } })
          .sort({ _id: 1 })
          .limit(bucketsPerRequest)
          .toArray(),
      );
      const names = [...new Set(page.map(({ _id }) => _id.session))];
      const heads = await this.#run(signal, ({ sessions }) =>
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
      await inTurns(sessions, (id) => this.#tidy({ id }, "unknown", signal));
      this.#searched = page.length < bucketsPerRequest ? undefined : page.at(-1)?._id;
      if (this.#searched === undefined) return;
    }
  }

  /** The messages of a range. */
  async #select(
    head: Found,
    range: Range,
    most: number,
    signal: AbortSignal,
  ): Promise<readonly Message[] | "missing" | typeof moved> {
    if ("from" in range) {
      return range.from === "start"
        ? this.#forward(head, { number: 0, index: 0 }, most, signal)
        : this.#backward(head, { number: head.sealed, index: head.messages.length }, most, signal);
    }
    const id = "before" in range ? range.before : range.after;
    const place = await this.#locate(head, id, signal);
    if (place === "missing" || place === moved) return place;
    const { number, index } = place;
    return "before" in range
      ? this.#backward(head, place, most, signal)
      : this.#forward(head, { ...place, number, index: index + 1 }, most, signal);
  }

  async #locate(
    head: Found,
    id: string,
    signal: AbortSignal,
  ): Promise<Place | "missing" | typeof moved> {
    const index = head.messages.findIndex((message) => message.id === id);
    if (index >= 0) return { number: head.sealed, index };
    for (const bucket of head.buckets) {
      const index = bucket.messages.findIndex((message) => message.id === id);
      if (index >= 0) return { number: bucket._id.number, index, bucket };
    }
    return head.sealed === 0 || (await this.#isCurrent(head, signal)) ? "missing" : moved;
  }

  /** Whether the head still counts the same buckets. */
  async #isCurrent(head: Found, signal: AbortSignal): Promise<boolean> {
    const now = await this.#find({ id: head._id }, {}, signal);
    return now !== undefined && isSameLayout(head, now);
  }

  async #forward(
    head: Found,
    { number, index, bucket }: Place,
    most: number,
    signal: AbortSignal,
  ): Promise<readonly Message[] | typeof moved> {
    if (number === head.sealed) return head.messages.slice(index, index + most);
    const found = bucket === undefined ? [] : bucket.messages.slice(index);
    const from = bucket === undefined ? number : number + 1;
    const rest = await this.#buckets(head, from, head.sealed, 1, most - found.length, signal);
    if (rest === moved) return moved;
    return [...found, ...rest.flatMap(({ messages }) => messages), ...head.messages].slice(0, most);
  }

  async #backward(
    head: Found,
    { number, index, bucket }: Place,
    most: number,
    signal: AbortSignal,
  ): Promise<readonly Message[] | typeof moved> {
    const found = (number === head.sealed ? head : (bucket as Bucket)).messages.slice(0, index);
    const rest = await this.#buckets(head, 0, number, -1, most - found.length, signal);
    if (rest === moved) return moved;
    const all = [...rest.reverse().flatMap(({ messages }) => messages), ...found];
    return all.slice(Math.max(all.length - most, 0));
  }

  /**
   * Counted buckets from `from` up to `end`, from either side, until they hold `most` messages; of each, at most so many on
   * that side.
   */
  async #buckets(
    head: Found,
    from: number,
    end: number,
    direction: 1 | -1,
    most: number,
    signal: AbortSignal,
  ): Promise<Bucket[] | typeof moved> {
    const found: Bucket[] = [];
    let count = 0;
    const isEnough = () => found.length >= end - from || count >= most;
    const next = () => (direction === 1 ? from + found.length : end - 1 - found.length);
    const take = (bucket: Bucket) => {
      found.push(bucket);
      count += bucket.messages.length;
    };
    // What came with the head.
    while (!isEnough()) {
      const known = head.buckets.find(({ _id }) => _id.number === next());
      if (known === undefined) break;
      take(known);
    }
    const { _id: session, generation } = head;
    let range: Document = {
      $gte: { session, generation, number: direction === 1 ? next() : from },
      $lt: { session, generation, number: direction === 1 ? end : next() + 1 },
    };
    while (!isEnough()) {
      const left = most - count;
      // No limit is 0.
      const limit = most === Infinity ? 0 : Math.ceil(left / schema.bucketMessages) + 1;
      const slice = { messages: { $slice: direction * left } };
      const page = await this.#run(signal, ({ buckets }) =>
        buckets
          .find({ _id: range } as Filter<Bucket>, left < 2 ** 31 ? { projection: slice } : {})
          .sort({ _id: direction })
          .limit(limit)
          .toArray(),
      );
      for (const bucket of page) {
        if (!schema.counts(head, bucket._id)) continue;
        if (bucket._id.number !== next()) return moved;
        take(bucket);
      }
      const last = page.at(-1);
      if (last === undefined || page.length < limit || limit === 0) break;
      range = { ...range, [direction === 1 ? "$gt" : "$lt"]: last._id };
      if (direction === 1) delete range["$gte"];
    }
    return isEnough() ? found : moved;
  }

  /** What an edit makes of a session. */
  async #edited(
    head: Found,
    edit: Edit,
    signal: AbortSignal,
  ): Promise<Layout | Outcome | "unchanged" | "missing" | typeof moved> {
    const { generation, runs, sealed, messageCount } = head;
    if (edit.op === "replaceAfter") {
      const place = await this.#locate(head, edit.id, signal);
      if (place === "missing" || place === moved) return place;
      const { number, index, bucket } = place;
      const kept = (bucket ?? head).messages.slice(0, index + 1);
      const before = head.buckets.filter(({ _id }) => _id.number < number);
      const keptIds = new Set(
        [...before.flatMap((one) => one.messages), ...kept].map(({ id }) => id),
      );
      const ids = edit.records.map(({ id }) => id).filter((id) => keptIds.has(id));
      if (ids.length > 0) return { status: "duplicate", ids };
      const sizes = await this.#sizes(head, number, signal);
      if (sizes === moved) return moved;
      const removed = sizes + head.messages.length - kept.length;
      const added = edit.records.map(schema.toMessage);
      if (removed + added.length === 0 && !patchChanges(toSession(head), edit.patch)) {
        return "unchanged";
      }
      return {
        generation,
        runs: runs.filter(({ from }) => from < number),
        sealed: number,
        messages: [...kept, ...added],
        messageCount: messageCount - removed + added.length,
        revised: [],
      };
    }
    const ids = new Set(edit.op === "remove" ? edit.ids : [edit.id]);
    const touched = [head, ...head.buckets].flatMap(({ messages }) =>
      messages.filter(({ id }) => ids.has(id)),
    );
    // An id that was not found may be in a bucket that another writer has just revised.
    if (touched.length < ids.size && sealed > 0 && !(await this.#isCurrent(head, signal))) {
      return moved;
    }
    if (edit.op === "update") {
      const [message] = touched;
      if (message === undefined) return "missing";
      if (message.digest === edit.digest) return "unchanged";
    } else if (touched.length === 0) return "unchanged";
    const change = (messages: readonly Message[]) =>
      edit.op === "remove"
        ? messages.filter(({ id }) => !ids.has(id))
        : messages.map((message) => (message.id === edit.id ? updated(message, edit) : message));
    const edited = {
      generation,
      messageCount: messageCount - (edit.op === "remove" ? touched.length : 0),
      messages: change(head.messages),
    };
    const revised = head.buckets.map(
      ({ _id, messages }) => [_id.number, change(messages)] as const,
    );
    const tooLarge = revised.find(
      ([, messages]) => schema.sizeOf(messages) > schema.largestBucketBytes,
    )?.[0];
    if (tooLarge === undefined) return { ...edited, runs, sealed, revised };
    // From this bucket on, all is cut anew.
    const rest = await this.#buckets(head, tooLarge, sealed, 1, Infinity, signal);
    if (rest === moved) return moved;
    const messages = [...rest.flatMap((bucket) => change(bucket.messages)), ...edited.messages];
    return {
      ...edited,
      messages,
      runs: runs.filter(({ from }) => from < tooLarge),
      sealed: tooLarge,
      revised: revised.filter(([number]) => number < tooLarge),
    };
  }

  /** How many messages the buckets from `from` on hold. */
  async #sizes(head: Found, from: number, signal: AbortSignal): Promise<number | typeof moved> {
    const { _id: session, generation, sealed } = head;
    if (from >= sealed) return 0;
    const found = await this.#run(signal, ({ buckets }) =>
      buckets
        .aggregate<{ _id: BucketId; size: number }>([
          {
            $match: {
              _id: {
                $gte: { session, generation, number: from },
                $lt: { session, generation, number: sealed },
              },
            },
          },
          { $project: { size: { $size: "$messages" } } },
        ])
        .toArray(),
    );
    const counted = found.filter(({ _id }) => schema.counts(head, _id));
    if (counted.length < sealed - from) return moved;
    return counted.reduce((sum, { size }) => sum + size, 0);
  }

  /** @param outcome Of the write that this belongs to, when it fails and the failure does not tell. */
  #run<T>(
    signal: AbortSignal,
    operation: (collections: Collections, db: Connection["db"]) => Promise<T>,
    outcome: FailureOutcome = "not-applied",
  ): Promise<T> {
    if (this.#closed) throw new ClosedError();
    return this.#connection.run(signal, outcome, (db) => operation(this.#collections, db));
  }

  #write<T>(
    signal: AbortSignal,
    operation: (collections: Collections) => Promise<T>,
    outcome: FailureOutcome = "unknown",
  ): Promise<T> {
    return this.#run(signal, operation, outcome);
  }
}

/** The messages of a session, before they are cut. */
interface Layout
  extends Pick<Head, "generation" | "runs" | "sealed" | "messages" | "messageCount"> {
  /** Counted buckets with other contents. */
  readonly revised: readonly (readonly [number: number, messages: readonly Message[]])[];
}

/** Where a message is: in the bucket of this number, or, at `sealed`, in the head. */
interface Place {
  readonly number: number;
  readonly index: number;
  readonly bucket?: Bucket;
}

/** The messages that an edit has to see. */
function idsOf(edit: Edit): readonly string[] {
  if (edit.op === "remove") return edit.ids;
  if (edit.op === "update") return [edit.id];
  return [edit.id, ...edit.records.filter(({ fresh }) => !fresh).map(({ id }) => id)];
}

/** Nothing but appending and sealing lies between them. */
function isSameLayout(one: Head, other: Head): boolean {
  return one.generation === other.generation && one.edit === other.edit;
}

/** The session as it stands; `undefined` when absent or expired. */
function standing(found: Found | undefined): (Found & { readonly version: string }) | undefined {
  return found?.isLive && found.version !== null ? { ...found, version: found.version } : undefined;
}

function updated(message: Message, edit: Edit & { readonly op: "update" }): Message {
  const createdAt = edit.createdAt === null ? message.createdAt : new Date(edit.createdAt);
  return { id: message.id, digest: edit.digest, data: edit.data, createdAt };
}

function toSession(head: Head): SessionRecord {
  return {
    key: head._id,
    version: head.version ?? "",
    messageCount: head.messageCount,
    createdAt: head.createdAt.getTime(),
    updatedAt: head.updatedAt.getTime(),
    expiresAt: head.expiresAt?.getTime() ?? null,
    title: head.title,
    state: head.state ?? {},
  };
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

function ignoreDuplicate(error: unknown): undefined {
  if (!isDuplicateKey(error)) throw error;
}

/** Some at once, in order. */
async function inTurns<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  for (let start = 0; start < items.length; start += sessionsAtOnce) {
    const some = items.slice(start, start + sessionsAtOnce);
    results.push(...(await Promise.all(some.map(work))));
  }
  return results;
}
