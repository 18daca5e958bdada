/**
 * The least that could work on Redis: one Lua script, by its digest, that refuses known ids, pushes the messages, and
 * changes the session's hash and its user's list.
 *
 * - Order: the list's. Unique ids: a hash from an id to its place in the list, which a page next to a message needs too.
 *   Atomic: a script.
 * - Left out: digests, compare-and-set, expiry, state, title, several nodes, giving up in time.
 */
import { randomUUID } from "node:crypto";
import { Redis } from "ioredis";
import type {
  Contestant,
  Conversation,
  Durability,
  Filling,
  Message,
  Place,
} from "../contestant.js";
import { decode, encode, keyOf } from "./encoding.js";

/** `ARGV`: version, time, session key, then id and message by turns. */
const appending = `
for i = 4, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[2], ARGV[i]) == 1 then return redis.error_reply('DUPLICATE ' .. ARGV[i]) end
end
local count
for i = 4, #ARGV, 2 do
  count = redis.call('RPUSH', KEYS[1], ARGV[i + 1])
  redis.call('HSET', KEYS[2], ARGV[i], count - 1)
end
redis.call('HSET', KEYS[3], 'version', ARGV[1], 'updated', ARGV[2], 'count', count)
redis.call('ZADD', KEYS[4], ARGV[2], ARGV[3])
return count`;

/** The messages before one of them. */
const paging = `
local place = tonumber(redis.call('HGET', KEYS[2], ARGV[1]))
if place == 0 then return {} end
return redis.call('LRANGE', KEYS[1], math.max(0, place - tonumber(ARGV[2])), place - 1)`;

const perCall = 1_000;

export async function open({ at, namespace }: Place): Promise<Contestant> {
  const client = new Redis(at);
  const [append, page] = (await Promise.all([
    client.script("LOAD", appending),
    client.script("LOAD", paging),
  ])) as [string, string];

  const keysOf = (conversation: Conversation) => {
    const session = `${namespace}:${keyOf(conversation)}`;
    return {
      messages: `${session}:messages`,
      places: `${session}:places`,
      meta: `${session}:meta`,
      user: `${namespace}:${conversation.user}`,
    };
  };
  const write = (conversation: Conversation, messages: readonly Message[]) => {
    const now = Date.now();
    return client.evalsha(
      append,
      4,
      ...Object.values(keysOf(conversation)),
      ...[randomUUID(), now, conversation.name],
      ...messages.flatMap((message) => {
        const id = message.id ?? randomUUID();
        return [id, `${id} ${now} ${encode(message)}`];
      }),
    );
  };
  return {
    durability: await durabilityOf(at),
    async fill(fillings: Iterable<Filling>) {
      let sent: Promise<unknown>[] = [];
      for (const [conversation, messages] of fillings) {
        for (let first = 0; first < messages.length; first += perCall) {
          sent.push(write(conversation, messages.slice(first, first + perCall)));
          if (sent.length >= 100) {
            await Promise.all(sent);
            sent = [];
          }
        }
      }
      await Promise.all(sent);
    },
    append: write,
    all: async (conversation) =>
      (await client.lrange(keysOf(conversation).messages, 0, -1)).map(decodeItem),
    newest: async (conversation, count) =>
      (await client.lrange(keysOf(conversation).messages, -count, -1)).map(decodeItem),
    async page(conversation, { id }, count) {
      const { messages, places } = keysOf(conversation);
      return ((await client.evalsha(page, 2, messages, places, id, count)) as string[]).map(
        decodeItem,
      );
    },
    async list(user, count) {
      const names = await client.zrevrange(`${namespace}:${user}`, 0, count - 1);
      const rows = client.pipeline();
      for (const name of names) rows.hgetall(keysOf({ user, name }).meta);
      await rows.exec();
      return names;
    },
    close: async () => {
      await client.quit();
    },
  };
}

function decodeItem(item: string): Message {
  const id = item.slice(0, item.indexOf(" "));
  return decode({ id, data: item.slice(item.indexOf(" ", id.length + 1) + 1) });
}

/** What the server makes of a write. */
export async function durabilityOf(at: string): Promise<Durability> {
  const client = new Redis(at);
  const [, appendfsync] = (await client.config("GET", "appendfsync")) as [string, string];
  const [, appendonly] = (await client.config("GET", "appendonly")) as [string, string];
  await client.quit();
  return {
    survives: appendonly === "yes" && appendfsync === "always" ? "host" : "process",
    settings: `appendonly ${appendonly}, appendfsync ${appendfsync}`,
  };
}

/** Bytes of memory. */
export async function bytes({ at, namespace }: Place): Promise<number> {
  const client = new Redis(at);
  let sum = 0;
  for await (const keys of client.scanStream({ match: `${namespace}:*`, count: 1_000 })) {
    for (const key of keys as string[]) {
      sum += (await client.memory("USAGE", key, "SAMPLES", 0)) ?? 0;
    }
  }
  await client.quit();
  return sum;
}
