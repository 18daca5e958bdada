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
 * | `<p>{<tag>}[/c:<conversation>]:messages` | list | the messages in their order, then the header; a session exists as long as this key does |
 * | `….:places` | hash | by message id: its place in `messages`, from 0; under the empty name details that are too long for the header |
 * | `….:staged-messages`, `….:staged-places` | | a long replacement on its way in; expires after a minute |
 *
 * A message: `<digest> <createdAt> <message as JSON>\n<id>`. The header, in two lines:
 *
 * `session 1 <version> <count> <created> <updated> <expires> <edited> <details>`: format; number of messages; ms since 1970 by the
 * engine's clock, `-` where it never expires; the write that last changed messages other than by appending; `-` for none, or
 * `{"state":{"<entry>":"<JSON>"},"recent":"<version>:<count> <version>:<count>"}`, where `recent` are the latest writes that must
 * not happen twice and the numbers of messages that they left, or `@` where that is in `places`.
 *
 * `-`, or `+` and the title.
 *
 * The header is the last element, so one command reads it and the newest messages at one instant.
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
  if ("id" in target) {
    // Not by a pattern: a conversation may hold what ends a line to some of them.
    const end = target.id.indexOf("/c:");
    return end < 0 ? target.id : target.id.slice(0, end);
  }
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

function script(writes: boolean, source: string): Script {
  return { source, sha: createHash("sha1").update(source).digest("hex"), writes };
}

/**
 * How scripts about one session begin: with the session, or with why it cannot be used. Errors of the data end a script before it
 * writes anything, since what a script has written stays. Numbers come and go as strings: Lua's own conversion keeps 14 digits.
 *
 * What scripts have in common is text, not functions: to make a dozen functions takes Lua as long as an append.
 */
const load = `
local call, match, format = redis.call, string.match, string.format
local messages, places = KEYS[1], KEYS[2]
local header, count = call('LINDEX', messages, -1), call('HLEN', places)
local version, counted, created, updated, expires, edited, inline, title
if header then
  version, counted, created, updated, expires, edited, inline, title =
    match(header, '^session 1 (%S+) (%d+) (%S+) (%S+) (%S+) (%S+) ([^\\n]*)\\n(.*)$')
  if inline == '@' then count = count - 1 end
  if tonumber(counted or -1) ~= count then
    local form = match(header, '^session (%S+)')
    if form ~= '1' then return {'format', form or ''} end
    return {'corrupt', 'of ' .. tostring(counted) .. ' messages ' .. format('%.0f', count) .. ' have a place'}
  end
elseif count > 0 then
  return {'corrupt', 'its messages are gone'}
end
`;

/** The same for scripts that write. `ARGV[1..5]`: next, ifVersion, ttl, session key, flags. */
const loadToWrite = `${load}
local sessions = KEYS[3]
local next, required, ttl, key, flags = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
`;

/** Details of so many bytes are in the header: an append writes them anew. */
const maxInline = 1_024;

/** What a patch or a write that must not happen twice changes. */
const loadDetails = `
if inline == '@' then details = cjson.decode(call('HGET', places, ''))
elseif inline and inline ~= '-' then details = cjson.decode(inline)
else details = {state = {}, recent = ''} end
`;

/** Of so many writes that must not happen twice it is known that they have happened. */
const maxRecent = 16;

/**
 * Who repeats a write that has happened, perhaps with others after it, is told what it left, not what they did. No
 * details: doing it twice does no harm.
 */
const returnIfHappened = (before = "") => `
local left_behind
if header and version == next then
  left_behind = format('%.0f', count)
elseif header and details then
  local _, at = string.find(' ' .. details.recent, ' ' .. next .. ':', 1, true)
  left_behind = at and match(details.recent, '^%d+', at)
end
${before}
if left_behind then
  ${repeatHeader}
  return {'unchanged', next, left_behind}
end
`;

/** A write, so that WAIT waits for what an earlier attempt has written; one that a full server takes, since it begins by removing. */
const repeatHeader = `
if string.find(flags, 'replicated', 1, true) then
  call('RPOP', messages)
  call('RPUSH', messages, header)
end
`;

/** The end of a block. */
const returnUnchanged = `
if not header then return {'unchanged', '', '0'} end
${repeatHeader}
return {'unchanged', version, format('%.0f', count)}
`;

/**
 * A full server refuses a script whose first write may take memory, and nothing of a script that has begun with another. So what
 * frees memory begins with this, which fails, as that other one does, where a key of another kind is in the way.
 */
const allowWhenFull = "call('ZREM', sessions, '')";

/** By how much the records from `ARGV[first]` are longer than the messages from a place on, as far as they are longer. */
const weigh = (first: number, place: string) => `
local more = 0
for i = ${first}, #ARGV, 2 do more = more + #ARGV[i] end
for begin = ${place}, count - 1, 100 do
  if more <= 0 then break end
  for _, message in ipairs(call('LRANGE', messages, begin, math.min(begin + 99, count - 1))) do
    more = more - #message
  end
end
`;

const refuseConflict = `
if required ~= '' and required ~= '=' .. (version or '') then return {'conflict', version or ''} end
`;

/** Before a user's first session comes to be, the user has to be registered. */
const refuseUnregistered = `
local first = not header and call('EXISTS', sessions) == 0
if first and not string.find(flags, 'registered', 1, true) then return {'unregistered'} end
`;

/**
 * Applies a patch as JSON to details and title, and finds out whether that `changes` anything, and whether it is more than a removal
 * (`grows`).
 */
const apply = (patch: string) => `
local given = cjson.decode(${patch})
if given.title then
  local before = title or '-'
  title = given.title == cjson.null and '-' or '+' .. given.title
  if title ~= '-' then grows = true end
  changes = title ~= before
end
for name, value in pairs(given.state or {}) do
  if value == cjson.null then value = nil else grows = true end
  changes = changes or details.state[name] ~= value
  details.state[name] = value
end
`;

/**
 * The first half of a write: times, the user's list, and the header is taken off. Details that change have to be in `changed`.
 *
 * @param setTimes What else there is to say of `created`, `updated` and `expires`.
 */
const beginWriting = (setTimes = "") => `
local clock = call('TIME')
local now = clock[1] .. string.sub('00000' .. clock[2], -6, -4)
local expired = header and expires ~= '-'
if not header then
  created, updated, expires = now, now, '-'
elseif tonumber(updated) < tonumber(now) then
  updated = now
end
if ttl ~= '' then expires = format('%.0f', tonumber(now) + tonumber(ttl)) end
${setTimes}
-- Before anything else is written: it fails where a key of another kind is in the way. The list lives as long as the longest-lived of them.
local left = expires ~= '-' and call('PTTL', sessions)
call('ZADD', sessions, format('%.0f', -tonumber(updated)), key)
if not left then
  if not header or expired then call('PERSIST', sessions) end
elseif left ~= -1 then
  call('PEXPIREAT', sessions, format('%.0f', math.max(tonumber(expires), left == -2 and 0 or tonumber(now) + left)))
end
if header then call('RPOP', messages) end
`;

/** The second half: adds `elements`, and the header as `count`, `edited` and `title` are now. */
const endWriting = `
if changed then
  local recent = {next .. ':' .. format('%.0f', count)}
  for one in string.gmatch(changed.recent, '%S+') do
    if #recent < ${maxRecent} then recent[#recent + 1] = one end
  end
  changed.recent = table.concat(recent, ' ')
  local encoded, outside = cjson.encode(changed), inline == '@'
  inline = #encoded > ${maxInline} and '@' or encoded
  if inline == '@' then call('HSET', places, '', encoded)
  elseif outside then call('HDEL', places, '') end
end
count = format('%.0f', count)
elements[#elements + 1] = 'session 1 ' .. next .. ' ' .. count .. ' ' .. created .. ' ' .. updated .. ' ' .. expires
  .. ' ' .. (edited or next) .. ' ' .. (inline or '-') .. '\\n' .. (title or '-')
call('RPUSH', messages, unpack(elements))
if left then
  call('PEXPIREAT', messages, expires)
  call('PEXPIREAT', places, expires)
elseif expired then
  call('PERSIST', messages)
  call('PERSIST', places)
end
return {'applied', next, count, first and 'first' or ''}
`;

/** Add a user, `ARGV[1]`, to the key that lists all users. */
export const register = script(true, "return {redis.call('ZADD', KEYS[1], 0, ARGV[1])}");

/** `ARGV[6..]`: a patch as JSON or nothing; `fresh` when no id can be there yet; then id and message of each record. */
export const append = script(
  true,
  `${loadToWrite}
local details, changes = nil, false
if ARGV[6] ~= '' then ${loadDetails} end
${returnIfHappened()}
local grows = #ARGV > 7
if details then ${apply("ARGV[6]")} end

local ids, known, elements, placed, duplicates = {}, {}, {}, {}, {'duplicate'}
for i = 8, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
if header and ARGV[7] ~= 'fresh' and #ids > 0 then known = call('HMGET', places, unpack(ids)) end
for i, id in ipairs(ids) do
  local message, place = ARGV[7 + 2 * i], known[i]
  if not place then
    local added = #elements
    placed[2 * added + 1], placed[2 * added + 2] = id, format('%.0f', count + added)
    elements[added + 1] = message
  elseif match(call('LINDEX', messages, place), '^%S+') ~= match(message, '^%S+') then
    duplicates[#duplicates + 1] = id
  end
end
if #duplicates > 1 then return duplicates end
if #elements == 0 and not changes then ${returnUnchanged} end
${refuseConflict}
${refuseUnregistered}
count = count + #elements
local changed = changes and details
if not grows then ${allowWhenFull} end
${beginWriting()}
if #placed > 0 then call('HSET', places, unpack(placed)) end
${endWriting}
`,
);

/** `ARGV[6]`: the operation, then what it needs. */
export const edit = script(
  true,
  `${loadToWrite}
local details ${loadDetails}
${returnIfHappened()}
${refuseConflict}
local operation, id = ARGV[6], ARGV[7]
local elements, found, place, replacement, changes, grows = {}, {}, nil, nil, false, false
if operation == 'remove' then
  place = count
  for i = 7, #ARGV do
    local one = tonumber(call('HGET', places, ARGV[i]))
    if one then
      found[ARGV[i]] = one
      place = math.min(place, one)
    end
  end
  if place == count then ${returnUnchanged} end
else
  place = tonumber(call('HGET', places, id))
  if not place then return {'missing', id} end
  if operation == 'update' then
    local stored, created = call('LINDEX', messages, place), ARGV[9]
    if match(stored, '^%S+') == ARGV[8] then ${returnUnchanged} end
    if created == '' then created = match(stored, ' (%S+)') end
    replacement = ARGV[8] .. ' ' .. created .. ' ' .. ARGV[10] .. '\\n' .. id
    grows = #replacement > #stored
  else
    local kept = {'duplicate'}
    for i = 9, #ARGV, 2 do
      local one = tonumber(call('HGET', places, ARGV[i]))
      if one and one <= place then kept[#kept + 1] = ARGV[i] end
    end
    if #kept > 1 then return kept end
    if ARGV[8] ~= '' then ${apply("ARGV[8]")} end
    if place == count - 1 and #ARGV == 8 and not changes then ${returnUnchanged} end
    ${weigh(10, "place + 1")}
    grows = grows or more > 0
  end
end
local changed, first = details, false
edited = next
if not grows then ${allowWhenFull} end
${beginWriting()}
local function idsFrom(first)
  local ids = call('LRANGE', messages, first, first + 99)
  for i, message in ipairs(ids) do ids[i] = string.sub(message, string.find(message, '\\n', 1, true) + 1) end
  return ids
end
if operation == 'remove' then
  local removed = 0
  for id, one in pairs(found) do
    call('LSET', messages, one, '')
    call('HDEL', places, id)
    removed = removed + 1
  end
  call('LREM', messages, -removed, '')
  count = count - removed
  for first = place, count - 1, 100 do
    local placed = {}
    for i, id in ipairs(idsFrom(first)) do placed[2 * i - 1], placed[2 * i] = id, format('%.0f', first + i - 1) end
    call('HSET', places, unpack(placed))
  end
elseif operation == 'update' then
  call('LSET', messages, place, replacement)
else
  for first = place + 1, count - 1, 100 do call('HDEL', places, unpack(idsFrom(first))) end
  call('LTRIM', messages, 0, place)
  count = place + 1
  local placed = {}
  for i = 9, #ARGV, 2 do
    placed[#placed + 1], placed[#placed + 2] = ARGV[i], format('%.0f', count)
    elements[#elements + 1] = ARGV[i + 1]
    count = count + 1
  end
  if #placed > 0 then call('HSET', places, unpack(placed)) end
end
${endWriting}
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
  `${loadToWrite}
local details ${loadDetails}
local stagedMessages, stagedPlaces = KEYS[4], KEYS[5]
local place, total = tonumber(ARGV[6]), ARGV[7]
local owner = call('HGET', stagedPlaces, '')
${returnIfHappened(`
if owner == next and (left_behind or required ~= '' and required ~= '=' .. (version or '')) then
  call('UNLINK', stagedMessages, stagedPlaces)
end
`)}
${refuseConflict}
${refuseUnregistered}
if place == 0 then
  -- Changes nothing, and tells whether the server is full: it may be, where what comes is no longer than what goes.
  local probe = redis.pcall('ZADD', sessions, 'XX', 0, '')
  if type(probe) == 'table' then
    ${weigh(13, "0")}
    if more > 0 or total == '' or not header then call('ZADD', sessions, 'XX', 0, '') else ${allowWhenFull} end
  end
  local taken = owner and owner ~= next and total == ''
  if taken and call('PTTL', stagedPlaces) > ${stagingLife - stagingLease} then return {'busy'} end
  call('UNLINK', stagedMessages, stagedPlaces)
elseif owner ~= next then
  return {'lost'}
end
local elements, placed = {}, {}
for i = 12, #ARGV, 2 do
  placed[#placed + 1], placed[#placed + 2] = ARGV[i], format('%.0f', place + #elements)
  elements[#elements + 1] = ARGV[i + 1]
end
if #elements > 0 then
  call('RPUSH', stagedMessages, unpack(elements))
  call('HSET', stagedPlaces, unpack(placed))
end
if total == '' then
  call('HSET', stagedPlaces, '', next)
  call('PEXPIRE', stagedMessages, ${stagingLife})
  call('PEXPIRE', stagedPlaces, ${stagingLife})
  return {'staged'}
end
call('HDEL', stagedPlaces, '')
total = tonumber(total)
if call('HLEN', stagedPlaces) ~= total or call('LLEN', stagedMessages) ~= total then
  call('UNLINK', stagedMessages, stagedPlaces)
  return {'lost'}
end
local changed, changes, grows = details, false, false
if ARGV[11] ~= '' then ${apply("ARGV[11]")} end
elements, count, edited = {}, total, next
${beginWriting(`
if ARGV[8] ~= '' then created, updated, expires = ARGV[8], ARGV[9], ARGV[10] ~= '' and ARGV[10] or '-' end
`)}
call('UNLINK', messages, places)
inline = '-'
if total > 0 then
  call('RENAME', stagedMessages, messages)
  call('RENAME', stagedPlaces, places)
  call('PERSIST', messages)
  call('PERSIST', places)
end
${endWriting}
`,
);

/**
 * A session and some of its messages. `ARGV`: `up` or `down`; the message to start next to, or nothing to start at that end; how
 * many messages. Returns: header, details that are not in it, the rank where they begin (going up) or before which they end,
 * messages.
 */
export const page = script(
  false,
  `${load}
if not header then return {'absent'} end
local isUp, anchor, limit = ARGV[1] == 'up', ARGV[2], tonumber(ARGV[3])
local rank = isUp and 0 or count
if anchor ~= '' then
  local place = tonumber(call('HGET', places, anchor))
  if not place then return {'missing'} end
  rank = isUp and place + 1 or place
end
local first = isUp and rank or math.max(rank - limit, 0)
local past = isUp and math.min(rank + limit, count) or rank
local found = first < past and call('LRANGE', messages, first, past - 1) or {}
return {'session', header, inline == '@' and call('HGET', places, '') or '', rank, found}
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
  found[i] = redis.call('LINDEX', messages, -1)
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
