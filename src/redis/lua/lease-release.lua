#!lua flags=allow-oom
-- Frees a lease, if it is still the caller's. The epoch stays, so that the next one is higher.
-- KEYS: 1 lease
-- ARGV: 1 owner, 2 epoch
-- Returns: 1, or 0 when it was somebody else's
local owner, epoch = unpack(redis.call('HMGET', KEYS[1], 'owner', 'epoch'))
if owner ~= ARGV[1] or epoch ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'owner', '')
return 1
