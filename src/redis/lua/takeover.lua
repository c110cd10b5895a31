#!lua flags=allow-oom
-- Claims entries of a consumer whose heartbeat is still what the observer saw when it judged.
-- Each claimed token is charged: one level more if it was running as a suspect, else at least level 1. Entries of the
-- `free` consumer were handed back in good order and are not charged. XCLAIM drops what has no body: that command is lost.
-- KEYS: 1 commands, 2 ready, 3 beats, 4 crashes, 5 running (of the dead consumer), 6 records,
--       7 recordTimes
-- ARGV: 1 group, 2 dead consumer, 3 me, 4 beat seen ('' none), 5 most entries, 6 '1' to charge
-- Returns: false when the heartbeat moved; else {per entry {source, id, token, blob, level}, {ids whose entry is gone}}
if (redis.call('HGET', KEYS[3], ARGV[2]) or '') ~= ARGV[4] then return false end
local claimed, gone, room = {}, {}, tonumber(ARGV[5])
for source = 2, 1, -1 do
  if room > 0 then
    local ids, wanted = {}, {}
    for _, row in ipairs(redis.call('XPENDING', KEYS[source], ARGV[1], '-', '+', room, ARGV[2])) do
      ids[#ids + 1] = row[1]
      wanted[row[1]] = true
    end
    if #ids > 0 then
      for _, entry in ipairs(redis.call('XCLAIM', KEYS[source], ARGV[1], ARGV[3], 0, unpack(ids))) do
        local id = entry[1]
        wanted[id] = nil
        local token = source == 1 and 'e' .. id or entry[2][1]
        local level = tonumber(redis.call('HGET', KEYS[4], token) or '0')
        if ARGV[6] == '1' then
          if redis.call('SISMEMBER', KEYS[5], token) == 1 then level = level + 1 else level = math.max(level, 1) end
          redis.call('HSET', KEYS[4], token, level)
        end
        claimed[#claimed + 1] = { source, id, token, entry[2][2], level }
      end
      for id in pairs(wanted) do
        gone[#gone + 1] = id
        if source == 1 then
          local time = redis.call('TIME')
          redis.call('HSET', KEYS[6], 'e' .. id, 'L')
          redis.call('ZADD', KEYS[7], time[1] * 1000 + math.floor(time[2] / 1000), 'e' .. id)
        end
      end
      room = room - #ids
    end
  end
end
return { claimed, gone }
