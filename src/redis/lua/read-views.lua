#!lua flags=no-writes
-- Reads views together with the checkpoint they belong to.
-- KEYS: 1 readers, 2 views, 3 stops
-- ARGV: 1 reader, 2… keys (at most 1 000)
-- Returns: {checkpoint or '', why the projection stopped or '', blob or false for each key…}
local out = { redis.call('HGET', KEYS[1], ARGV[1]) or '', redis.call('HGET', KEYS[3], ARGV[1]) or '' }
if #ARGV > 1 then
  local blobs = redis.call('HMGET', KEYS[2], unpack(ARGV, 2))
  for i = 1, #blobs do out[i + 2] = blobs[i] end
end
return out
