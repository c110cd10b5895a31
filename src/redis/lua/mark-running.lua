#!lua flags=allow-oom
-- Marks the suspects that a consumer is about to run, in place of any earlier mark, also when Redis is out of memory.
-- KEYS: 1 running (of the consumer)
-- ARGV: 1… tokens (a group of suspects, at most 16)
-- Returns: 1
redis.call('DEL', KEYS[1])
redis.call('SADD', KEYS[1], unpack(ARGV))
return 1
