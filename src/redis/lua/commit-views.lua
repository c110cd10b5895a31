#!lua flags=allow-oom
-- Commits one fold batch of one projection: its view changes and its checkpoint, all or nothing, if the checkpoint is
-- still what the batch was folded from. Then tells everyone who caches these views.
-- KEYS: 1 readers, 2 views, 3 viewKeys, 4 stops, 5 skipped
-- ARGV: 1 reader, 2 expected checkpoint, 3 new checkpoint, 4 channel, 5 announcement,
--       6 most skipped events to keep, 7 four lists (`script-lists.ts`):
--       views written (key, blob), keys of those that are new, keys of views deleted, events skipped (position, error, blob)
-- Returns: 1 committed, 0 the checkpoint is another: nothing was written
local written, created, deleted, skipped = unpack(cmsgpack.unpack(ARGV[7]))
if #written % 2 ~= 0 or #skipped % 3 ~= 0 then return redis.error_reply('ERR commit-views: half a change') end
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end

local CHUNK = 2000
for from = 1, #written, CHUNK do
  redis.call('HSET', KEYS[2], unpack(written, from, math.min(from + CHUNK - 1, #written)))
end
for _, key in ipairs(created) do redis.call('ZADD', KEYS[3], 0, key) end
for from = 1, #deleted, CHUNK do
  local to = math.min(from + CHUNK - 1, #deleted)
  redis.call('HDEL', KEYS[2], unpack(deleted, from, to))
  redis.call('ZREM', KEYS[3], unpack(deleted, from, to))
end
for i = 1, #skipped, 3 do
  local position, error, event = unpack(skipped, i, i + 2)
  redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[6], '*', 'position', position, 'error', error, 'event', event)
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('HDEL', KEYS[4], ARGV[1])
redis.call('PUBLISH', ARGV[4], ARGV[5])
return 1
