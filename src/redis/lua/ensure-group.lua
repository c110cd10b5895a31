#!lua flags=allow-oom
-- Creates the consumer group of a partition where it is missing.
-- A new partition starts at 0. A group that vanished from a stream that was trimmed or delivered from before is made
-- again just before the trim floor, and reported: what lay between may run twice, nothing is skipped. The floor itself may
-- be an entry that was pending.
-- A command stream that is not the one that was there before (deleted, flushed) is remembered as a range of lost ids: from
-- what had been trimmed, and so was finished, to the first id that the new stream can have.
-- KEYS: 1 commands, 2 ready, 3 floors
-- ARGV: 1 group, 2 '1' when the caller has seen this partition before
-- Returns: '' when all was there, 'new' for a new partition, 'lost' for a group that had vanished
local function has(key)
  if redis.call('EXISTS', key) == 0 then return false end
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    for i = 1, #info, 2 do
      if info[i] == 'name' and info[i + 1] == ARGV[1] then return true end
    end
  end
  return false
end
local function before(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  if seq ~= '0' then return ms .. '-' .. string.format('%d', tonumber(seq) - 1) end
  if ms == '0' then return '0' end
  return string.format('%d', tonumber(ms) - 1) .. '-18446744073709551615'
end
-- Pairs of ids, from (exclusive) and to (inclusive), oldest first.
local LOST_IDS_MAX = 32
local hasCommands, hasReady = has(KEYS[1]), has(KEYS[2])
if hasCommands and hasReady then return '' end
local known = redis.call('HGET', KEYS[3], 'created') or ARGV[2] == '1'
local floor = redis.call('HGET', KEYS[3], 'commands')
if known and not hasCommands then
  local time = redis.call('TIME')
  local first = string.format('%d-0', time[1] * 1000 + math.floor(time[2] / 1000))
  local isOther = true
  if redis.call('EXISTS', KEYS[1]) == 1 then
    local info, map = redis.call('XINFO', 'STREAM', KEYS[1]), {}
    for i = 1, #info, 2 do map[info[i]] = info[i + 1] end
    isOther = map['entries-added'] == map.length
    if map['first-entry'] then first = map['first-entry'][1] end
  end
  if isOther then
    local ids = {}
    for id in string.gmatch(redis.call('HGET', KEYS[3], 'lost') or '', '%S+') do ids[#ids + 1] = id end
    local from = floor and before(floor) or '0-0'
    ids[#ids + 1], ids[#ids + 2] = from, before(first)
    while #ids > LOST_IDS_MAX do table.remove(ids, 1) end
    redis.call('HSET', KEYS[3], 'lost', table.concat(ids, ' '))
  end
end
if not hasCommands then redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], floor and before(floor) or '0', 'MKSTREAM') end
if not hasReady then redis.call('XGROUP', 'CREATE', KEYS[2], ARGV[1], '0', 'MKSTREAM') end
redis.call('HSET', KEYS[3], 'created', '1')
return known and 'lost' or 'new'
