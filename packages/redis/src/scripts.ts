/**
 * The stored format, version 1: key names, and the Lua scripts that alone write them.
 *
 * `<p>` is the option `prefix`. A user's keys share the hash tag `{t:<tenant>/u:<user>}` (without a tenant `{u:<user>}`; a raw
 * key is its own tag), and so a slot of Redis Cluster, where one script changes them all in one step. No part of a session key
 * holds a brace, and no prefix does.
 *
 * | key | type | content |
 * |---|---|---|
 * | `<p>users` | sorted set | the tags of all users that have sessions; every score is 0 |
 * | `<p>{<tag>}:sessions` | sorted set | the user's session keys; score: minus the time of the last change, so newest first |
 * | `<p>{<tag>}[/c:<conversation>]:meta` | hash | see below; a session exists as long as this key does |
 * | `….:order` | sorted set | message ids; score: place in the history, never used twice |
 * | `….:messages` | hash | by message id: `<digest> <createdAt> <message as JSON>` |
 * | `….:staged-order`, `….:staged-messages` | | a long replacement on its way in; expires after a minute |
 *
 * Fields of `meta`: `format` (1), `version`, `count` (of messages), `sequence` (the last place given), `created`, `updated` and
 * `expires` (ms since 1970, the engine's clock; `expires` only with a ttl), `edited` (the write that last changed messages other
 * than by appending), `recent` (the latest writes that must not happen twice), `title`, and a `state:<entry>` for each entry.
 *
 * All keys of a session expire at the same instant, so an expired session is gone at once and whole.
 */
import { createHash } from "node:crypto";
import { type Key, type Scope, sessionKey } from "@chatstore/core";

/** The key that lists all users. */
export function usersKey(prefix: string): string {
  return `${prefix}users`;
}

/** The hash tag of a user's keys, without its braces. */
export function tagOf(key: Key | Scope): string {
  if (key.user === "") return (key as Key).id;
  return sessionKey({ tenant: key.tenant === "" ? undefined : key.tenant, user: key.user });
}

/** With what the tags of a tenant's users begin (`""`: of users without a tenant), in the order of the list of users. */
export function tagsOfTenant(tenant: string | undefined): string[] {
  if (tenant === undefined) return [""];
  if (tenant === "") return ["raw:", "u:"];
  return [sessionKey({ tenant, user: "-" }).slice(0, -"u:-".length)];
}

/** Where the tags that begin so end, as `ZRANGEBYLEX` takes it. */
export function endOfTags(start: string): string {
  if (start === "") return "+";
  const last = start.length - 1;
  return `(${start.slice(0, last)}${String.fromCharCode(start.charCodeAt(last) + 1)}`;
}

/** The key that lists a user's sessions. */
export function sessionsKey(prefix: string, tag: string): string {
  return `${prefix}{${tag}}:sessions`;
}

/** The keys of one session, in the order in which the scripts take them. */
export function sessionKeys(prefix: string, tag: string, id: string) {
  const session = `${prefix}{${tag}}${id.slice(tag.length)}`;
  return {
    meta: `${session}:meta`,
    order: `${session}:order`,
    messages: `${session}:messages`,
    stagedOrder: `${session}:staged-order`,
    stagedMessages: `${session}:staged-messages`,
  };
}

/** Names in `meta` that a patch sets. */
export const titleField = "title";
export const stateField = (entry: string): string => `state:${entry}`;
/** The entry that {@link stateField} named. */
export const entryOf = (field: string): string | undefined => /^state:(.*)/.exec(field)?.[1];

/** A Lua script, and the digest by which the server knows it. */
export interface Script {
  readonly source: string;
  readonly sha: string;
  readonly writes: boolean;
}

function script(writes: boolean, ...parts: string[]): Script {
  const source = parts.join("\n");
  return { source, sha: createHash("sha1").update(source).digest("hex"), writes };
}

/**
 * For all scripts. Errors of the data end a script before it writes anything, since what a script has written stays.
 * Numbers come and go as strings: Lua's own conversion keeps 14 digits.
 */
const common = `
local function text(number) return string.format('%.0f', number) end
local function digest(message) return string.match(message, '^%S+') end

-- The session, or nil; second: why it cannot be used.
local function load(meta, order, messages)
  local f = redis.call('HMGET', meta, 'format', 'version', 'count', 'sequence', 'created', 'updated',
    'expires', 'edited', 'recent')
  local ordered, stored = redis.call('ZCARD', order), redis.call('HLEN', messages)
  if not f[2] then
    if ordered + stored > 0 then return nil, {'corrupt', 'its metadata is gone'} end
    return nil
  end
  if f[1] ~= '1' then return nil, {'format', f[1] or ''} end
  local count = tonumber(f[3])
  if count ~= ordered or count ~= stored then
    return nil, {'corrupt', 'of ' .. tostring(f[3]) .. ' messages ' .. text(stored) .. ' are there, and '
      .. text(ordered) .. ' have a place'}
  end
  return {version = f[2], count = count, sequence = tonumber(f[4]), created = f[5], updated = f[6],
    expires = f[7], edited = f[8], recent = f[9] or ''}
end
`;

/** For the scripts that write a session. `ARGV[1..5]`: next, ifVersion, ttl, session key, flags. */
const writing = `
local meta, order, messages, sessions = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local next, required, ttl, key = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local registered = redis.call('ZCARD', sessions) > 0 or string.find(ARGV[5], 'registered', 1, true)
local replicated = string.find(ARGV[5], 'replicated', 1, true)

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

local function unchanged(session)
  if not session then return {'unchanged', '', '0'} end
  -- A write, so that WAIT waits for what an earlier attempt has written.
  if replicated then redis.call('HSET', meta, 'version', session.version) end
  return {'unchanged', session.version, text(session.count)}
end

-- Whether this very write has happened already, perhaps with others after it.
local function happened(session)
  return session and (session.version == next
    or string.find(' ' .. session.recent .. ' ', ' ' .. next .. ' ', 1, true))
end

local function conflict(session)
  if required == '' then return nil end
  local version = session and session.version or ''
  if required ~= '=' .. version then return {'conflict', version} end
end

-- A user without sessions has to be registered first.
local function unregistered(session)
  return not session and not registered
end

-- Stores what all writes change. change: count, sequence, edited; once: whether doing it twice would do harm;
-- times: created, updated, expires.
local function save(session, change, once, times)
  local created, updated, expires = text(now), text(now), session and session.expires or false
  if session then
    created = session.created
    if tonumber(session.updated) > now then updated = session.updated end
  end
  if ttl ~= '' then expires = text(now + tonumber(ttl)) end
  if times then created, updated, expires = times[1], times[2], times[3] ~= '' and times[3] end
  redis.call('HSET', meta, 'format', '1', 'version', next, 'count', text(change.count),
    'sequence', text(change.sequence), 'created', created, 'updated', updated,
    'edited', change.edited or session and session.edited or next)
  if expires then redis.call('HSET', meta, 'expires', expires) else redis.call('HDEL', meta, 'expires') end
  if once then
    local recent = next .. ' ' .. (session and session.recent or '')
    redis.call('HSET', meta, 'recent', string.sub(recent, 1, 16 * (#next + 1)))
  end
  for _, name in ipairs({meta, order, messages}) do
    if expires then redis.call('PEXPIREAT', name, expires)
    elseif session and session.expires or times then redis.call('PERSIST', name) end
  end
  -- The list of sessions lives as long as the longest-lived of them.
  local left = redis.call('PTTL', sessions)
  redis.call('ZADD', sessions, text(-tonumber(updated)), key)
  if not expires then
    redis.call('PERSIST', sessions)
  elseif left ~= -1 then
    redis.call('PEXPIREAT', sessions, text(math.max(tonumber(expires), left == -2 and 0 or now + left)))
  end
  return {'applied', next, text(change.count), left == -2 and 'first' or ''}
end
`;

/** For the scripts that apply a patch. `ARGV[at]`: how many fields to set, then to remove, then those; returns what follows. */
const patching = `
local function patch(at)
  local sets, removals, changes = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), false
  local first = at + 2
  for i = first, first + 2 * sets - 1, 2 do
    changes = changes or redis.call('HGET', meta, ARGV[i]) ~= ARGV[i + 1]
  end
  local removed = first + 2 * sets
  for i = removed, removed + removals - 1 do
    changes = changes or redis.call('HEXISTS', meta, ARGV[i]) == 1
  end
  local function apply()
    for i = first, first + 2 * sets - 1, 2 do redis.call('HSET', meta, ARGV[i], ARGV[i + 1]) end
    for i = removed, removed + removals - 1 do redis.call('HDEL', meta, ARGV[i]) end
  end
  return removed + removals, changes, apply
end
`;

/** Add a user, `ARGV[1]`, to the key that lists all users. */
export const register = script(true, "return {redis.call('ZADD', KEYS[1], 0, ARGV[1])}");

/** `ARGV[6..]`: patch, then id and value of each record. */
export const append = script(
  true,
  common,
  writing,
  patching,
  `
local session, trouble = load(meta, order, messages)
if trouble then return trouble end
if happened(session) then return unchanged(session) end
local first, changes, apply = patch(6)
local missing, duplicates = {}, {'duplicate'}
for i = first, #ARGV, 2 do
  local stored = redis.call('HGET', messages, ARGV[i])
  if not stored then missing[#missing + 1] = i
  elseif digest(stored) ~= digest(ARGV[i + 1]) then
    duplicates[#duplicates + 1] = ARGV[i]
  end
end
if #duplicates > 1 then return duplicates end
if #missing == 0 and not changes then return unchanged(session) end
local refused = conflict(session)
if refused then return refused end
if unregistered(session) then return {'unregistered'} end
local count, sequence = 0, 0
if session then count, sequence = session.count, session.sequence end
for _, i in ipairs(missing) do
  sequence = sequence + 1
  redis.call('ZADD', order, text(sequence), ARGV[i])
  redis.call('HSET', messages, ARGV[i], ARGV[i + 1])
end
apply()
return save(session, {count = count + #missing, sequence = sequence}, changes)
`,
);

/** `ARGV[6]`: the operation, then what it needs. */
export const edit = script(
  true,
  common,
  writing,
  `
local session, trouble = load(meta, order, messages)
if trouble then return trouble end
if happened(session) then return unchanged(session) end
local refused = conflict(session)
if refused then return refused end
local operation, id, count = ARGV[6], ARGV[7], session and session.count
if operation == 'remove' then
  local removed = 0
  for i = 7, #ARGV do
    if redis.call('HDEL', messages, ARGV[i]) == 1 then
      redis.call('ZREM', order, ARGV[i])
      removed = removed + 1
    end
  end
  if removed == 0 then return unchanged(session) end
  count = count - removed
else
  local place = session and redis.call('ZSCORE', order, id)
  if not place then return {'missing', id} end
  if operation == 'update' then
    local stored, created = redis.call('HGET', messages, id), ARGV[9]
    if digest(stored) == ARGV[8] then return unchanged(session) end
    if created == '' then created = string.match(stored, ' (%S+)') end
    redis.call('HSET', messages, id, ARGV[8] .. ' ' .. created .. ' ' .. ARGV[10])
  else
    local later = redis.call('ZRANGEBYSCORE', order, '(' .. place, '+inf')
    if #later == 0 then return unchanged(session) end
    for i = 1, #later, 1000 do
      redis.call('HDEL', messages, unpack(later, i, math.min(i + 999, #later)))
    end
    redis.call('ZREMRANGEBYSCORE', order, '(' .. place, '+inf')
    count = count - #later
  end
end
return save(session, {count = count, sequence = session.sequence, edited = next}, true)
`,
);

/** How long a replacement may pause before its staged keys vanish, and before another one may take them over. */
const stagingLife = 60_000;
const stagingLease = 10_000;

/**
 * One part of a replacement; the last one puts all of them in place. `ARGV[6..]`: place before the part's first record; how many
 * records in all when it is the last part, otherwise nothing; created, updated and expires when given; patch; records.
 * The field without a name in the staged messages says whose they are.
 */
export const replace = script(
  true,
  common,
  writing,
  patching,
  `
local stagedOrder, stagedMessages = KEYS[5], KEYS[6]
local session, trouble = load(meta, order, messages)
if trouble then return trouble end
local place, total = tonumber(ARGV[6]), ARGV[7]
local owner = redis.call('HGET', stagedMessages, '')
local refused = happened(session) and unchanged(session) or conflict(session)
if refused then
  if owner == next then redis.call('UNLINK', stagedOrder, stagedMessages) end
  return refused
end
if unregistered(session) then return {'unregistered'} end
if place == 0 then
  local taken = owner and owner ~= next and total == ''
  if taken and redis.call('PTTL', stagedMessages) > ${stagingLife - stagingLease} then return {'busy'} end
  redis.call('UNLINK', stagedOrder, stagedMessages)
elseif owner ~= next then
  return {'lost'}
end
local first, _, apply = patch(11)
for i = first, #ARGV, 2 do
  place = place + 1
  redis.call('ZADD', stagedOrder, text(place), ARGV[i])
  redis.call('HSET', stagedMessages, ARGV[i], ARGV[i + 1])
end
if total == '' then
  redis.call('HSET', stagedMessages, '', next)
  redis.call('PEXPIRE', stagedOrder, ${stagingLife})
  redis.call('PEXPIRE', stagedMessages, ${stagingLife})
  return {'staged'}
end
redis.call('HDEL', stagedMessages, '')
total = tonumber(total)
if redis.call('HLEN', stagedMessages) ~= total or redis.call('ZCARD', stagedOrder) ~= total then
  redis.call('UNLINK', stagedOrder, stagedMessages)
  return {'lost'}
end
redis.call('UNLINK', order, messages)
if total > 0 then
  redis.call('RENAME', stagedOrder, order)
  redis.call('RENAME', stagedMessages, messages)
  redis.call('PERSIST', order)
  redis.call('PERSIST', messages)
end
apply()
local times = ARGV[8] ~= '' and {ARGV[8], ARGV[9], ARGV[10]} or nil
return save(session, {count = total, sequence = total, edited = next}, true, times)
`,
);

/**
 * A part of a session. `ARGV`: the `edited` that it must have, or nothing; `up` or `down`; the message to start next to, or
 * nothing; the place to start at, or nothing; the last place when going up, or nothing; how many messages; how many bytes.
 * Returns: fields of `meta` (of the first part only), the last place, whether there is more, ids and values.
 */
export const read = script(
  false,
  common,
  `
local meta, order, messages = KEYS[1], KEYS[2], KEYS[3]
local edited, direction, anchor, from, last, limit, bytes =
  ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local session, trouble = load(meta, order, messages)
if trouble then return trouble end
if edited ~= '' and (not session or session.edited ~= edited) then return {'changed'} end
if not session then return {'absent'} end
if anchor ~= '' then
  local place = redis.call('ZSCORE', order, anchor)
  if not place then return {'missing'} end
  from = '(' .. place
end
local found
if direction == 'up' then
  found = redis.call('ZRANGEBYSCORE', order, from ~= '' and from or '-inf', last ~= '' and last or '+inf',
    'WITHSCORES', 'LIMIT', 0, limit)
else
  found = redis.call('ZREVRANGEBYSCORE', order, from ~= '' and from or '+inf', '-inf',
    'WITHSCORES', 'LIMIT', 0, limit)
end
local records, size, more, place = {}, 0, #found == 2 * limit and '1' or '', ''
for i = 1, #found, 2 do
  if size >= bytes then more = '1' break end
  local value = redis.call('HGET', messages, found[i])
  if not value then return {'corrupt', 'the message ' .. found[i] .. ' is gone'} end
  records[#records + 1] = found[i]
  records[#records + 1] = value
  size = size + #value
  place = found[i + 1]
end
local fields = edited == '' and redis.call('HGETALL', meta) or {}
return {'session', fields, place, more, records}
`,
);

/**
 * A page of a user's session keys, next to a cursor that need not exist any more. `ARGV`: `newest` or `oldest` first; score and
 * session key of the cursor, or nothing; how many. Returns keys and scores.
 */
export const page = script(
  false,
  `
local sessions, newest, score, key, limit = KEYS[1], ARGV[1] == 'newest', ARGV[2], ARGV[3], tonumber(ARGV[4])

-- By bytes, as sorted sets do: Lua's own comparison follows the server's locale.
local function compare(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x - y end
  end
  return #a - #b
end

-- How many come before the place where to go on.
local low, high = 0, 0
if score ~= '' then
  low = redis.call('ZCOUNT', sessions, '-inf', '(' .. score)
  high = redis.call('ZCOUNT', sessions, '-inf', score)
elseif not newest then
  low = redis.call('ZCARD', sessions)
end
while low < high do
  local middle = math.floor((low + high) / 2)
  local order = compare(redis.call('ZRANGE', sessions, middle, middle)[1], key)
  if order < 0 or (order == 0 and newest) then low = middle + 1 else high = middle end
end
if newest then return redis.call('ZRANGE', sessions, low, low + limit - 1, 'WITHSCORES') end
if low == 0 then return {} end
local found = redis.call('ZRANGE', sessions, math.max(low - limit, 0), low - 1, 'WITHSCORES')
local reversed = {}
for i = #found - 1, 1, -2 do
  reversed[#reversed + 1] = found[i]
  reversed[#reversed + 1] = found[i + 1]
end
return reversed
`,
);

/**
 * The fields of several sessions of one user, `0` for one that is not there. `KEYS`: the user's list of sessions, then meta,
 * order and messages of each; `ARGV`: their session keys. Takes those that have expired off the list.
 */
export const describe = script(
  false,
  `
local names = {'format', 'version', 'count', 'created', 'updated', 'expires', 'title'}
local found = {}
for i, key in ipairs(ARGV) do
  local meta, order, messages = KEYS[3 * i - 1], KEYS[3 * i], KEYS[3 * i + 1]
  local values = redis.call('HMGET', meta, unpack(names))
  if values[2] then
    local fields = {}
    for j, name in ipairs(names) do
      if values[j] then
        fields[#fields + 1] = name
        fields[#fields + 1] = values[j]
      end
    end
    found[i] = fields
  else
    found[i] = 0
    -- pcall: a server that takes no writes just now can still be read.
    if redis.call('EXISTS', order, messages) == 0 then redis.pcall('ZREM', KEYS[1], key) end
  end
end
return found
`,
);

/**
 * Erase sessions of one user, with everything that belongs to them. `KEYS`: the user's list of sessions, then all keys of each;
 * `ARGV`: their session keys. Returns how many there were, and whether the user still has some.
 */
export const erase = script(
  true,
  `
local erased = 0
for i, key in ipairs(ARGV) do
  local first = 5 * i - 3
  erased = erased + redis.call('EXISTS', KEYS[first])
  redis.call('UNLINK', KEYS[first], KEYS[first + 1], KEYS[first + 2], KEYS[first + 3], KEYS[first + 4])
  redis.call('ZREM', KEYS[1], key)
end
return {erased, redis.call('EXISTS', KEYS[1])}
`,
);
