#!lua flags=allow-oom
-- Records that a projection can't go on from its checkpoint, unless somebody else has gone on meanwhile.
-- KEYS: 1 readers, 2 stops
-- ARGV: 1 reader, 2 expected checkpoint, 3 reason, 4 channel, 5 announcement
-- Returns: 1 recorded, 0 the checkpoint is another
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('PUBLISH', ARGV[4], ARGV[5])
return 1
