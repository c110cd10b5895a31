#!lua flags=allow-oom
-- Writes the crash levels of commands that may have been running when the last owner of an ordered partition died.
-- KEYS: 1 lease, 2 crashes, 3 running (of the dead owner)
-- ARGV: 1 my epoch, then per command: token, level
-- Returns: 1 charged, 0 the partition is no longer mine
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
redis.call('DEL', KEYS[3])
redis.call('HSET', KEYS[1], 'charge', '')
return 1
