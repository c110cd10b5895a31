#!lua flags=allow-oom
-- Compares the logs of a partition with the newest ids that a process was told of, and sees to it that ids which were given
-- out are never given out again: a log that ends before such an id goes on after it. Any number of processes may ask.
-- What is lost of the commands is remembered as ranges, so that their status does not turn into done.
-- KEYS: 1 commands, 2 ready, 3 events, 4 counter, 5 floors
-- ARGV: newest id seen of 1 commands, 2 ready, 3 events, 4 the counter ('' none)
-- Returns: per log {state, id before what is missing}; states: '' nothing is known to be missing,
--          moved (the log ended there; its next ids now come after the newest seen),
--          overtaken (the newest seen is missing, and newer entries came after it)
local RANGES_MAX = 16
local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-?(%d*)$')
  return tonumber(ms), tonumber(seq) or 0
end
local function newer(a, b)
  local aMs, aSeq = parts(a)
  local bMs, bSeq = parts(b)
  return aMs > bMs or (aMs == bMs and aSeq > bSeq)
end
local function look(key)
  local map = {}
  if redis.call('EXISTS', key) == 0 then return map end
  local info = redis.call('XINFO', 'STREAM', key)
  for i = 1, #info, 2 do map[info[i]] = info[i + 1] end
  return map
end
-- Entries behind the floor were trimmed; at or below the newest deleted one, an entry may have been deleted in good order.
local function isMissing(key, seen, floor, deleted)
  if floor and not newer(seen, floor) then return false end
  if deleted and not newer(seen, deleted) then return false end
  return #redis.call('XRANGE', key, seen, seen) == 0
end
-- Pairs of ids, from (exclusive) and to (inclusive), oldest first.
local function remember(from, to)
  local ids = {}
  for id in string.gmatch(redis.call('HGET', KEYS[5], 'lost') or '', '%S+') do ids[#ids + 1] = id end
  local last = #ids
  if last > 1 and not newer(from, ids[last]) and not newer(ids[last - 1], to) then
    if newer(ids[last - 1], from) then ids[last - 1] = from end
    if newer(to, ids[last]) then ids[last] = to end
  else
    ids[#ids + 1], ids[#ids + 2] = from, to
  end
  while #ids > 2 * RANGES_MAX do
    table.remove(ids, 1)
    table.remove(ids, 1)
  end
  redis.call('HSET', KEYS[5], 'lost', table.concat(ids, ' '))
end
local floors = { redis.call('HGET', KEYS[5], 'commands'), nil, redis.call('HGET', KEYS[5], 'events') }
local out = {}
for i = 1, 3 do
  local key, seen = KEYS[i], ARGV[i]
  out[i] = { '', '' }
  if seen ~= '' then
    local log = look(key)
    local last = log['last-generated-id'] or '0-0'
    if newer(seen, last) then
      if last == '0-0' and redis.call('EXISTS', key) == 0 then
        redis.call('XGROUP', 'CREATE', key, 'moved', '0', 'MKSTREAM')
        redis.call('XGROUP', 'DESTROY', key, 'moved')
      end
      redis.call('XSETID', key, seen)
      out[i] = { 'moved', last }
    elseif i ~= 2 and isMissing(key, seen, floors[i], log['max-deleted-entry-id']) then
      local before = redis.call('XREVRANGE', key, '(' .. seen, '-', 'COUNT', 1)[1]
      out[i] = { 'overtaken', before and before[1] or floors[i] or '0-0' }
    end
    if i == 1 and out[1][1] ~= '' then remember(out[1][2], seen) end
  end
end
local count = redis.call('GET', KEYS[4]) or '0'
out[4] = { '', '' }
if ARGV[4] ~= '' and tonumber(ARGV[4]) > tonumber(count) then
  redis.call('SET', KEYS[4], ARGV[4])
  out[4] = { 'moved', count }
end
return out
