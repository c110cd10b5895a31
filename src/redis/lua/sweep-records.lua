#!lua flags=allow-oom
-- Drops terminal records past their retention, and remembers the floor below which a status is no longer known. The floor
-- is raised first: a reader that comes in between says "expired", never a wrong "done".
-- KEYS: 1 records, 2 recordTimes, 3 floors
-- ARGV: 1 keep for ms, 2 most records
-- Returns: number dropped
local time = redis.call('TIME')
local floor = math.max(0, time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[1]))
if floor > tonumber(redis.call('HGET', KEYS[3], 'records') or '0') then
  redis.call('HSET', KEYS[3], 'records', string.format('%d', floor))
end
local tokens = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. string.format('%d', floor), 'LIMIT', 0, tonumber(ARGV[2]))
local highest = tonumber(redis.call('HGET', KEYS[3], 'counter') or '0')
for _, token in ipairs(tokens) do
  redis.call('HDEL', KEYS[1], token)
  redis.call('ZREM', KEYS[2], token)
  if string.sub(token, 1, 1) == 'x' then highest = math.max(highest, tonumber(string.sub(token, 2))) end
end
if #tokens > 0 then redis.call('HSET', KEYS[3], 'counter', string.format('%d', highest)) end
return #tokens
