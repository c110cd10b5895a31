#!lua flags=allow-oom
-- Acknowledges pending entries whose bodies are gone, and keeps for their commands that they are lost. An entry of `ready`
-- can't tell its command any more: there the command's own record names a copy that nobody has.
-- KEYS: 1 stream that they were read from, 2 records, 3 recordTimes, 4 held
-- ARGV: 1 group, 2 '1' when the stream is `commands`, 3… entry ids
-- Returns: number that were still pending
local time, count = redis.call('TIME'), 0
local now = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
for i = 3, #ARGV do
  if redis.call('XACK', KEYS[1], ARGV[1], ARGV[i]) == 1 then
    count = count + 1
    redis.call('HDEL', KEYS[4], ARGV[i])
    if ARGV[2] == '1' then
      redis.call('HSET', KEYS[2], 'e' .. ARGV[i], 'L')
      redis.call('ZADD', KEYS[3], now, 'e' .. ARGV[i])
    end
  end
end
return count
