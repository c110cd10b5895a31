#!lua flags=allow-oom
-- Removes a consumer that holds nothing and whose heartbeat is still what the observer saw. XGROUP DELCONSUMER would
-- drop pending entries without a word, so both counts are checked here, in the same script.
-- KEYS: 1 commands, 2 ready, 3 beats, 4 running
-- ARGV: 1 group, 2 consumer, 3 beat seen ('' none)
-- Returns: 1 removed, 0 not
if (redis.call('HGET', KEYS[3], ARGV[2]) or '') ~= ARGV[3] then return 0 end
for source = 1, 2 do
  if #redis.call('XPENDING', KEYS[source], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return 0 end
end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
redis.call('XGROUP', 'DELCONSUMER', KEYS[2], ARGV[1], ARGV[2])
redis.call('HDEL', KEYS[3], ARGV[2])
redis.call('DEL', KEYS[4])
return 1
