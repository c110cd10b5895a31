#!lua flags=allow-oom
-- Notes that API keys were used; of those that are gone nothing is kept.
-- KEYS: 1 API keys, 2 when they were last used
-- ARGV: 1 time in ms, then ids
-- Returns: how many were noted
local noted = 0
for at = 2, #ARGV do
  if redis.call('HEXISTS', KEYS[1], ARGV[at]) == 1 then
    redis.call('HSET', KEYS[2], ARGV[at], ARGV[1])
    noted = noted + 1
  end
end
return noted
