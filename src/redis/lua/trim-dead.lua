#!lua flags=allow-oom
-- Deletes dead letters that are older than they are kept, oldest first. Their records lose the entry id and enter the sweep
-- of records with the time of death: they go in its next round, or live on as long as results do, should those be kept
-- longer. Dropping them here could turn a status into a wrong "done".
-- At most so many, and so many bytes, at once: ask again until the answer is 0.
-- KEYS: 1 dead, 2 records, 3 recordTimes
-- ARGV: 1 keep for ms, 2 most dead letters
-- Returns: number deleted
local STEP, BYTES_MAX = 25, 4194304
local time = redis.call('TIME')
local last = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[1]) - 1
if last < 0 then return 0 end
last = string.format('%d', last)
local most, deleted, bytes = tonumber(ARGV[2]), 0, 0
while deleted < most and bytes < BYTES_MAX do
  local entries = redis.call('XRANGE', KEYS[1], '-', last, 'COUNT', math.min(STEP, most - deleted))
  if #entries == 0 then break end
  for _, entry in ipairs(entries) do
    local id, token = entry[1], entry[2][1]
    local record = redis.call('HGET', KEYS[2], token)
    redis.call('XDEL', KEYS[1], id)
    if record and string.sub(record, 1, #id + 2) == 'X' .. id .. ':' then
      redis.call('HSET', KEYS[2], token, 'X:' .. string.sub(record, #id + 3))
      redis.call('ZADD', KEYS[3], string.match(id, '^%d+'), token)
    end
    bytes = bytes + #entry[2][2]
  end
  deleted = deleted + #entries
end
return deleted
