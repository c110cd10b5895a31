#!lua flags=allow-oom
-- Writes the crash levels of commands that may have been running when the last owner of an ordered partition died.
-- Once for each dead owner: a request that comes late or again changes nothing.
-- KEYS: 1 lease, 2 crashes, 3 running (of the dead owner)
-- ARGV: 1 my epoch, 2 the dead owner, then per command: token, level
-- Returns: 1 charged, 0 the partition is no longer mine
local epoch, charge = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'charge'))
if epoch ~= ARGV[1] then return 0 end
if charge ~= ARGV[2] then return 1 end
for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
redis.call('DEL', KEYS[3])
redis.call('HSET', KEYS[1], 'charge', '')
return 1
