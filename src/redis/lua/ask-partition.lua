#!lua flags=allow-oom
-- Asks the owner of an ordered partition to hand it over, unless somebody else asked or the owner changed meanwhile.
-- KEYS: 1 lease
-- ARGV: 1 me, 2 owner seen, 3 epoch seen, 4 who was seen to ask ('' nobody)
-- Returns: 1 asked, 0 the lease is another
local owner, epoch, wanted = unpack(redis.call('HMGET', KEYS[1], 'owner', 'epoch', 'wanted'))
if owner ~= ARGV[2] or epoch ~= ARGV[3] or (wanted or '') ~= ARGV[4] then return 0 end
redis.call('HSET', KEYS[1], 'wanted', ARGV[1])
return 1
