#!lua flags=allow-oom
-- Gives the lease of an ordered partition back. What is pending stays where it is, for the next owner.
-- KEYS: 1 lease
-- ARGV: 1 me, 2 my epoch
-- Returns: 1 released, 0 it was no longer mine
local owner, epoch = unpack(redis.call('HMGET', KEYS[1], 'owner', 'epoch'))
if owner ~= ARGV[1] or epoch ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'owner', '')
return 1
