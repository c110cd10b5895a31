#!lua flags=allow-oom
-- Removes a silent member of an ordered stream, unless its heartbeat moved.
-- KEYS: 1 beats (of the stream's members)
-- ARGV: 1 member, 2 beat seen
-- Returns: 1 removed, 0 not
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
