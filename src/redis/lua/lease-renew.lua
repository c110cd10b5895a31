#!lua flags=allow-oom
-- Shows that the holder of a lease is alive, if it still is the holder.
-- KEYS: 1 lease
-- ARGV: 1 owner, 2 epoch
-- Returns: 'held', 'taken' (somebody else has it, or had it), 'gone' (the lease has vanished from Redis)
local owner, epoch = unpack(redis.call('HMGET', KEYS[1], 'owner', 'epoch'))
if not epoch then return 'gone' end
if owner ~= ARGV[1] or epoch ~= ARGV[2] then return 'taken' end
redis.call('HINCRBY', KEYS[1], 'beat', 1)
return 'held'
