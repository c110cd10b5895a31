#!lua flags=allow-oom
-- Writes a heartbeat, also when Redis is out of memory.
-- KEYS: beats of each partition
-- ARGV: 1 consumer, 2 value
-- Returns: 1
for i = 1, #KEYS do redis.call('HSET', KEYS[i], ARGV[1], ARGV[2]) end
return 1
