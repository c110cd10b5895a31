#!lua flags=allow-oom
-- Takes the lease of an ordered partition, if it is still as the taker saw it, and fences whoever had it: a group of the
-- next epoch gets the position and all pending entries of the old one, which is destroyed. The old owner's reads then fail,
-- and its acknowledgements count for nothing. Epochs never come back, not even when
-- a crash of the server forgets a take: each is the server's time in ms, or one more than the last.
-- KEYS: 1 commands, 2 lease, 3 beats (of the stream's members), 4 floors, 5 records, 6 recordTimes, 7 held
-- ARGV: 1 me, 2 owner seen ('' none), 3 epoch seen ('' none), 4 beat of that owner seen ('' none), 5 '1' when the caller has seen
--       this partition leased before
-- Returns: false when the lease or the beat is another; else {epoch, state, server time, whose suspects are to be charged or
--          '', ids of pending entries that are gone}; states: kept, new (a new partition), lost (its group had vanished)
-- Pairs of lost ids that are kept, from (exclusive) and to (inclusive).
local LOST_IDS_MAX = 32
local call = redis.call
local owner, epoch, charge = unpack(call('HMGET', KEYS[2], 'owner', 'epoch', 'charge'))
owner, epoch, charge = owner or '', epoch or '', charge or ''
if owner ~= ARGV[2] or epoch ~= ARGV[3] then return false end
if owner ~= '' and owner ~= ARGV[1] and (call('HGET', KEYS[3], owner) or '') ~= ARGV[4] then return false end

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function int(n) return string.format('%d', n) end
local function before(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  if seq ~= '0' then return ms .. '-' .. int(tonumber(seq) - 1) end
  if ms == '0' then return '0' end
  return int(tonumber(ms) - 1) .. '-18446744073709551615'
end

local old, last
if call('EXISTS', KEYS[1]) == 1 then
  for _, info in ipairs(call('XINFO', 'GROUPS', KEYS[1])) do
    local map = {}
    for i = 1, #info, 2 do map[info[i]] = info[i + 1] end
    if string.find(map.name, '^o%d+$') then old, last = map.name, map['last-delivered-id'] end
  end
end
local state = 'kept'
if not old then
  state = (call('HGET', KEYS[4], 'created') or ARGV[5] == '1') and 'lost' or 'new'
  local floor = call('HGET', KEYS[4], 'commands')
  last = floor and before(floor) or '0'
  -- A command stream that is not the one that was there before: what it had not finished is lost, as in `ensure-group`.
  local first, isOther = int(now) .. '-0', state == 'lost'
  if isOther and call('EXISTS', KEYS[1]) == 1 then
    local info, map = call('XINFO', 'STREAM', KEYS[1]), {}
    for i = 1, #info, 2 do map[info[i]] = info[i + 1] end
    isOther = map['entries-added'] == map.length
    if map['first-entry'] then first = map['first-entry'][1] end
  end
  if isOther then
    local ids = {}
    for id in string.gmatch(call('HGET', KEYS[4], 'lost') or '', '%S+') do ids[#ids + 1] = id end
    ids[#ids + 1], ids[#ids + 2] = floor and before(floor) or '0-0', before(first)
    while #ids > LOST_IDS_MAX do table.remove(ids, 1) end
    call('HSET', KEYS[4], 'lost', table.concat(ids, ' '))
  end
end
local next = math.max(tonumber(epoch) or 0, tonumber(string.sub(old or 'o0', 2)))
next = math.max(next + 1, now)
local group = 'o' .. int(next)
call('XGROUP', 'CREATE', KEYS[1], group, last, 'MKSTREAM')

local gone, from = {}, '-'
local function isGone(id)
  gone[#gone + 1] = id
  call('HDEL', KEYS[7], id)
  call('HSET', KEYS[5], 'e' .. id, 'L')
  call('ZADD', KEYS[6], now, 'e' .. id)
end
while old do
  local rows = call('XPENDING', KEYS[1], old, from, '+', 1000)
  if #rows == 0 then break end
  local ids, missing = {}, {}
  for i, row in ipairs(rows) do
    ids[i] = row[1]
    missing[row[1]] = true
  end
  from = '(' .. ids[#ids]
  ids[#ids + 1] = 'RETRYCOUNT'
  ids[#ids + 1] = '1'
  ids[#ids + 1] = 'FORCE'
  ids[#ids + 1] = 'JUSTID'
  for _, id in ipairs(call('XCLAIM', KEYS[1], group, ARGV[1], 0, unpack(ids))) do missing[id] = nil end
  for _, row in ipairs(rows) do
    if missing[row[1]] then isGone(row[1]) end
  end
end
if old then call('XGROUP', 'DESTROY', KEYS[1], old) end
-- Without the group nobody knows what was pending, but what was retried in place was.
if not old then
  for _, id in ipairs(call('HKEYS', KEYS[7])) do
    if #call('XRANGE', KEYS[1], id, id) == 0 then isGone(id) end
  end
end
-- An owner that never charged has run nothing: those before it are still to be charged.
if charge == '' and owner ~= ARGV[1] then charge = owner end
call('HSET', KEYS[2], 'owner', ARGV[1], 'epoch', int(next), 'charge', charge)
call('HDEL', KEYS[2], 'wanted')
call('HSET', KEYS[4], 'created', '1')
return { int(next), state, int(now), charge, gone }
