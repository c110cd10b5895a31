#!lua flags=no-writes
-- How far the streams of a partition have come, whatever their consumer groups are called.
-- KEYS: 1 commands, 2 ready, 3 events
-- ARGV: none
-- Returns: {server ms, then per stream {entries, entries ever added or -1 without a stream, last generated id, last id that a
--          group was given, id of the first entry that no group was given or '', entries that are not finished}}
local function fields(info)
  local map = {}
  for i = 1, #info, 2 do map[info[i]] = info[i + 1] end
  return map
end
local function newer(a, b)
  local aMs, aSeq = string.match(a, '^(%d+)-(%d+)$')
  local bMs, bSeq = string.match(b, '^(%d+)-(%d+)$')
  aMs, aSeq, bMs, bSeq = tonumber(aMs), tonumber(aSeq), tonumber(bMs), tonumber(bSeq)
  return aMs > bMs or (aMs == bMs and aSeq > bSeq)
end
local function look(key, isGrouped)
  if redis.call('EXISTS', key) == 0 then return { 0, -1, '0-0', '0-0', '', 0 } end
  local stream = fields(redis.call('XINFO', 'STREAM', key))
  local delivered, waiting, unfinished = '0-0', '', stream.length
  if isGrouped then
    for _, info in ipairs(redis.call('XINFO', 'GROUPS', key)) do
      local group = fields(info)
      local id = group['last-delivered-id']
      if newer(id, delivered) then
        -- Redis does not know the lag of a group after an entry in front of it was deleted.
        delivered, unfinished = id, stream.length
        if group.lag then unfinished = math.min(stream.length, math.max(0, group.lag) + group.pending) end
      end
    end
    if newer(stream['last-generated-id'], delivered) then
      local first = redis.call('XRANGE', key, '(' .. delivered, '+', 'COUNT', 1)[1]
      if first then waiting = first[1] end
    end
  end
  return { stream.length, stream['entries-added'] or 0, stream['last-generated-id'], delivered, waiting, unfinished }
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return { now, look(KEYS[1], true), look(KEYS[2], true), look(KEYS[3], false) }
