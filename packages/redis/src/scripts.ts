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
 * | `<p>{<tag>}[/c:<conversation>]:messages` | sorted set | see below; a session exists as long as this key does |
 * | `….:places` | hash | by message id: its score in `messages` |
 * | `….:staged-messages`, `….:staged-places` | | a long replacement on its way in; expires after a minute |
 *
 * Members of `messages`, in their order:
 *
 * | score | member |
 * |---|---|
 * | place in the history: from 1, never used twice; gaps are ordinary | `<digest> <createdAt> <message as JSON>\n<id>` |
 * | +inf | `details {"state":{"<entry>":"<JSON>"},"recent":"<version> <version>"}`: `recent` are the latest writes that must not happen twice |
 * | +inf | `session 1 <version> <count> <sequence> <created> <updated> <expires> <edited> <title>`, the header: format; number of messages; last place given; ms since 1970 by the engine's clock, `-` where it never expires; the write that last changed messages other than by appending; `-`, or `+` and the title |
 *
 * The header is the last member, so one command reads it and the newest messages at one instant. What an append need not
 * change is not in it.
 *
 * Both keys of a session expire at the same instant, so an expired session is gone at once and whole.
 */
import { createHash } from "node:crypto";
import { type Key, type Scope, sessionKey } from "@chatstore/core";

/** The key that lists all users. */
export function usersKey(prefix: string): string {
  return `${prefix}users`;
}

/** The hash tag of a user's keys, without its braces. */
export function tagOf(target: Key | Scope): string {
  if ("id" in target) return target.id.replace(/\/c:.*/, "");
  const { tenant, user } = target;
  return sessionKey({ tenant: tenant === "" ? undefined : tenant, user });
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
    messages: `${session}:messages`,
    places: `${session}:places`,
    stagedMessages: `${session}:staged-messages`,
    stagedPlaces: `${session}:staged-places`,
  };
}

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
 * For the scripts about one session. Errors of the data end a script before it writes anything, since what a script has
 * written stays. Numbers come and go as strings: Lua's own conversion keeps 14 digits.
 */
const common = `
local messages, places = KEYS[1], KEYS[2]

local function text(number) return string.format('%.0f', number) end
local function member(rank) return redis.call('ZRANGE', messages, rank, rank)[1] end

-- The session, or nil; second: why it cannot be used.
local function load()
  local header, found = member(-1), redis.call('HLEN', places)
  if not header then
    if found > 0 then return nil, {'corrupt', 'its messages are gone'} end
    return nil
  end
  local format, rest = string.match(header, '^session (%S+) (.*)$')
  if format ~= '1' then return nil, {'format', format or ''} end
  local version, count, sequence, created, updated, expires, edited, title =
    string.match(rest, '^(%S+) (%d+) (%d+) (%S+) (%S+) (%S+) (%S+) (.*)$')
  if tonumber(count or -1) ~= found then
    return nil, {'corrupt', 'of ' .. tostring(count) .. ' messages ' .. text(found) .. ' have a place'}
  end
  return {header = header, version = version, count = found, sequence = tonumber(sequence), created = created,
    updated = updated, expires = expires ~= '-' and expires or nil, edited = edited, title = title}
end
`;

/** For the scripts that write a session. `ARGV[1..5]`: next, ifVersion, ttl, session key, flags. */
const writing = `
local sessions = KEYS[3]
local next, required, ttl, key = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local registered = string.find(ARGV[5], 'registered', 1, true)
local replicated = string.find(ARGV[5], 'replicated', 1, true)

local function digest(message) return string.match(message, '^%S+') end

local function unchanged(session)
  if not session then return {'unchanged', '', '0'} end
  -- A write, so that WAIT waits for what an earlier attempt has written.
  if replicated then redis.call('ZADD', messages, '+inf', redis.call('ZPOPMAX', messages)[1]) end
  return {'unchanged', session.version, text(session.count)}
end

-- What a patch or a write that must not happen twice changes.
local function load_details(session)
  if not session then return {state = {}, recent = ''} end
  return cjson.decode(string.match(member(-2), '^details (.*)$'))
end

-- Whether this very write has happened already, perhaps with others after it. No details: doing it twice does no harm.
local function happened(session, details)
  return session and (session.version == next
    or details and string.find(' ' .. details.recent .. ' ', ' ' .. next .. ' ', 1, true))
end

local function conflict(session)
  if required == '' then return nil end
  local version = session and session.version or ''
  if required ~= '=' .. version then return {'conflict', version} end
end

-- Whether it becomes the user's first session: a user has to be registered before.
local function is_first(session)
  return not session and redis.call('EXISTS', sessions) == 0
end

-- Applies a patch to the details; returns the title, and whether anything changes.
local function apply(patch, session, details)
  local title, changes = session and session.title or '-', false
  if patch.title then
    local given = patch.title == cjson.null and '-' or '+' .. patch.title
    title, changes = given, given ~= title
  end
  for name, value in pairs(patch.state or {}) do
    if value == cjson.null then value = nil end
    changes = changes or details.state[name] ~= value
    details.state[name] = value
  end
  return title, changes
end

-- Writes everything. change: count, sequence; edited; title; details, when doing it twice would do harm; members to add, with
-- scores; times: created, updated, expires; write, which does the rest while there is no header; first.
local function save(session, change)
  local clock = redis.call('TIME')
  local now = clock[1] .. string.sub('00000' .. clock[2], -6, -4)
  local created, updated, expires = now, now, session and session.expires
  if session then
    created = session.created
    if tonumber(session.updated) > tonumber(now) then updated = session.updated end
  end
  if ttl ~= '' then expires = text(tonumber(now) + tonumber(ttl)) end
  local times = change.times
  if times then created, updated, expires = times[1], times[2], times[3] ~= '' and times[3] end

  -- Before anything else is written: it fails where a key of another kind is in the way. The list lives as long as the longest-lived of them.
  local left = expires and redis.call('PTTL', sessions)
  redis.call('ZADD', sessions, text(-tonumber(updated)), key)
  if not expires then
    if not session or session.expires then redis.call('PERSIST', sessions) end
  elseif left ~= -1 then
    redis.call('PEXPIREAT', sessions, text(math.max(tonumber(expires), left == -2 and 0 or tonumber(now) + left)))
  end

  if session then redis.call('ZPOPMAX', messages, change.details and 2 or 1) end
  if change.write then change.write() end
  local members, details = change.members or {}, change.details or not session and load_details()
  if details then
    if change.details then details.recent = string.sub(next .. ' ' .. details.recent, 1, 16 * (#next + 1)) end
    members[#members + 1] = '+inf'
    members[#members + 1] = 'details ' .. cjson.encode(details)
  end
  members[#members + 1] = '+inf'
  members[#members + 1] = 'session 1 ' .. table.concat({next, text(change.count), text(change.sequence), created, updated,
    expires or '-', change.edited or session and session.edited or next,
    change.title or session and session.title or '-'}, ' ')
  redis.call('ZADD', messages, unpack(members))
  for _, name in ipairs({messages, places}) do
    if expires then redis.call('PEXPIREAT', name, expires)
    elseif session and session.expires then redis.call('PERSIST', name) end
  end
  return {'applied', next, text(change.count), change.first and 'first' or ''}
end
`;

/** Add a user, `ARGV[1]`, to the key that lists all users. */
export const register = script(true, "return {redis.call('ZADD', KEYS[1], 0, ARGV[1])}");

/** `ARGV[6..]`: a patch as JSON or nothing, then id and message of each record. */
export const append = script(
  true,
  common,
  writing,
  `
local session, trouble = load()
if trouble then return trouble end
local details = ARGV[6] ~= '' and load_details(session) or nil
if happened(session, details) then return unchanged(session) end
local title, changes = nil, false
if details then title, changes = apply(cjson.decode(ARGV[6]), session, details) end

local ids = {}
for i = 7, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
local known = session and #ids > 0 and redis.call('HMGET', places, unpack(ids)) or {}
local count, sequence = session and session.count or 0, session and session.sequence or 0
local members, placed, duplicates = {}, {}, {'duplicate'}
for i, id in ipairs(ids) do
  local message, place = ARGV[6 + 2 * i], known[i]
  if not place then
    count, sequence = count + 1, sequence + 1
    place = text(sequence)
    members[#members + 1], members[#members + 2] = place, message
    placed[#placed + 1], placed[#placed + 2] = id, place
  elseif digest(redis.call('ZRANGEBYSCORE', messages, place, place)[1]) ~= digest(message) then
    duplicates[#duplicates + 1] = id
  end
end
if #duplicates > 1 then return duplicates end
if #placed == 0 and not changes then return unchanged(session) end
local refused = conflict(session)
if refused then return refused end
local first = is_first(session)
if first and not registered then return {'unregistered'} end
return save(session, {count = count, sequence = sequence, title = title, details = changes and details or nil,
  members = members, first = first, write = function()
    if #placed > 0 then redis.call('HSET', places, unpack(placed)) end
  end})
`,
);

/** `ARGV[6]`: the operation, then what it needs. */
export const edit = script(
  true,
  common,
  writing,
  `
local session, trouble = load()
if trouble then return trouble end
local details = load_details(session)
if happened(session, details) then return unchanged(session) end
local refused = conflict(session)
if refused then return refused end
local operation, id = ARGV[6], ARGV[7]
local change = {edited = next, details = details, count = session and session.count, sequence = session and session.sequence}
if operation == 'remove' then
  local found = {}
  for i = 7, #ARGV do
    local place = redis.call('HGET', places, ARGV[i])
    if place and not found[ARGV[i]] then
      found[ARGV[i]] = place
      change.count = change.count - 1
    end
  end
  if not session or change.count == session.count then return unchanged(session) end
  change.write = function()
    for id, place in pairs(found) do
      redis.call('ZREMRANGEBYSCORE', messages, place, place)
      redis.call('HDEL', places, id)
    end
  end
else
  local place = redis.call('HGET', places, id)
  if not place then return {'missing', id} end
  if operation == 'update' then
    local stored, created = redis.call('ZRANGEBYSCORE', messages, place, place)[1], ARGV[9]
    if digest(stored) == ARGV[8] then return unchanged(session) end
    if created == '' then created = string.match(stored, ' (%S+)') end
    change.members = {place, ARGV[8] .. ' ' .. created .. ' ' .. ARGV[10] .. '\\n' .. id}
    change.write = function() redis.call('ZREMRANGEBYSCORE', messages, place, place) end
  else
    local rank = redis.call('ZCOUNT', messages, '-inf', place)
    if rank == session.count then return unchanged(session) end
    change.count = rank
    change.write = function()
      for first = rank, session.count - 1, 100 do
        local ids = redis.call('ZRANGE', messages, first, first + 99)
        for i, message in ipairs(ids) do ids[i] = string.sub(message, string.find(message, '\\n', 1, true) + 1) end
        redis.call('HDEL', places, unpack(ids))
      end
      redis.call('ZREMRANGEBYRANK', messages, rank, -1)
    end
  end
end
return save(session, change)
`,
);

/** How long a replacement may pause before its staged keys vanish, and before another one may take them over. */
const stagingLife = 60_000;
const stagingLease = 10_000;

/**
 * One part of a replacement; the last one puts all of them in place. `ARGV[6..]`: place before the part's first record; how many
 * records in all when it is the last part, otherwise nothing; created, updated and expires when given; a patch as JSON or
 * nothing; records. The field without a name in the staged places says whose they are.
 */
export const replace = script(
  true,
  common,
  writing,
  `
local stagedMessages, stagedPlaces = KEYS[4], KEYS[5]
local session, trouble = load()
if trouble then return trouble end
local details = load_details(session)
local place, total = tonumber(ARGV[6]), ARGV[7]
local owner = redis.call('HGET', stagedPlaces, '')
local refused = happened(session, details) and unchanged(session) or conflict(session)
if refused then
  if owner == next then redis.call('UNLINK', stagedMessages, stagedPlaces) end
  return refused
end
local first = is_first(session)
if first and not registered then return {'unregistered'} end
if place == 0 then
  local taken = owner and owner ~= next and total == ''
  if taken and redis.call('PTTL', stagedPlaces) > ${stagingLife - stagingLease} then return {'busy'} end
  redis.call('UNLINK', stagedMessages, stagedPlaces)
elseif owner ~= next then
  return {'lost'}
end
local members, placed = {}, {}
for i = 12, #ARGV, 2 do
  place = place + 1
  members[#members + 1], members[#members + 2] = text(place), ARGV[i + 1]
  placed[#placed + 1], placed[#placed + 2] = ARGV[i], text(place)
end
if #members > 0 then
  redis.call('ZADD', stagedMessages, unpack(members))
  redis.call('HSET', stagedPlaces, unpack(placed))
end
if total == '' then
  redis.call('HSET', stagedPlaces, '', next)
  redis.call('PEXPIRE', stagedMessages, ${stagingLife})
  redis.call('PEXPIRE', stagedPlaces, ${stagingLife})
  return {'staged'}
end
redis.call('HDEL', stagedPlaces, '')
total = tonumber(total)
if redis.call('HLEN', stagedPlaces) ~= total or redis.call('ZCARD', stagedMessages) ~= total then
  redis.call('UNLINK', stagedMessages, stagedPlaces)
  return {'lost'}
end
local title = ARGV[11] ~= '' and apply(cjson.decode(ARGV[11]), session, details) or nil
local times = ARGV[8] ~= '' and {ARGV[8], ARGV[9], ARGV[10]} or nil
return save(session, {count = total, sequence = total, edited = next, title = title, details = details, times = times,
  first = first, write = function()
    redis.call('UNLINK', messages, places)
    if total > 0 then
      redis.call('RENAME', stagedMessages, messages)
      redis.call('RENAME', stagedPlaces, places)
      redis.call('PERSIST', messages)
      redis.call('PERSIST', places)
    end
  end})
`,
);

/**
 * A session and some of its messages. `ARGV`: `up` or `down`; the message to start next to, or nothing to start at that end; how
 * many messages. Returns: header, details, the rank where they begin (going up) or before which they end, messages.
 */
export const page = script(
  false,
  common,
  `
local is_up, anchor, limit = ARGV[1] == 'up', ARGV[2], tonumber(ARGV[3])
local session, trouble = load()
if trouble then return trouble end
if not session then return {'absent'} end
local rank = is_up and 0 or session.count
if anchor ~= '' then
  local place = redis.call('HGET', places, anchor)
  if not place then return {'missing'} end
  rank = redis.call('ZCOUNT', messages, '-inf', is_up and place or '(' .. place)
end
local first = is_up and rank or math.max(rank - limit, 0)
local past = is_up and math.min(rank + limit, session.count) or rank
local found = first < past and redis.call('ZRANGE', messages, first, past - 1) or {}
return {'session', session.header, member(-2), rank, found}
`,
);

/**
 * A page of a user's session keys, next to a cursor that need not exist any more. `ARGV`: `newest` or `oldest` first; score and
 * session key of the cursor, or nothing; how many. Returns keys and scores.
 */
export const list = script(
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
 * The headers of several sessions of one user, null for one that is not there. `KEYS`: the user's list of sessions, then
 * messages and places of each; `ARGV`: their session keys. Takes those that have expired off the list.
 */
export const describe = script(
  false,
  `
local found = {}
for i, key in ipairs(ARGV) do
  local messages, places = KEYS[2 * i], KEYS[2 * i + 1]
  found[i] = redis.call('ZRANGE', messages, -1, -1)[1] or false
  -- pcall: a server that takes no writes just now can still be read.
  if not found[i] and redis.call('EXISTS', places) == 0 then redis.pcall('ZREM', KEYS[1], key) end
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
  local first = 4 * i - 2
  erased = erased + redis.call('EXISTS', KEYS[first])
  redis.call('UNLINK', unpack(KEYS, first, first + 3))
  redis.call('ZREM', KEYS[1], key)
end
return {erased, redis.call('EXISTS', KEYS[1])}
`,
);
