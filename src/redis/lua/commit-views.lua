#!lua flags=allow-oom
-- Commits one fold batch of one projection: its view changes and its checkpoint, all or nothing, if the checkpoint is
-- still what the batch was folded from. Then tells everyone who caches these views.
-- KEYS: 1 readers, 2 views, 3 viewKeys, 4 stops, 5 skipped
-- ARGV: 1 reader, 2 expected checkpoint, 3 new checkpoint, 4 channel, 5 announcement,
--       6 most skipped events to keep, 7 views written, 8 of these new, 9 views deleted, 10 events skipped,
--       then per written view: key, blob · per new view: key · per deleted view: key
--       · per skipped event: position, error, blob
-- Returns: 1 committed, 0 the checkpoint is another: nothing was written
local written, created = tonumber(ARGV[7]), tonumber(ARGV[8])
local deleted, skipped = tonumber(ARGV[9]), tonumber(ARGV[10])
local createdAt = 11 + 2 * written
local deletedAt = createdAt + created
local skippedAt = deletedAt + deleted
if #ARGV ~= skippedAt + 3 * skipped - 1 then return redis.error_reply('ERR commit-views: counts and values differ') end
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end

local CHUNK = 2000
for from = 11, createdAt - 1, CHUNK do
  redis.call('HSET', KEYS[2], unpack(ARGV, from, math.min(from + CHUNK, createdAt) - 1))
end
for i = createdAt, deletedAt - 1 do redis.call('ZADD', KEYS[3], 0, ARGV[i]) end
for from = deletedAt, skippedAt - 1, CHUNK do
  local to = math.min(from + CHUNK, skippedAt) - 1
  redis.call('HDEL', KEYS[2], unpack(ARGV, from, to))
  redis.call('ZREM', KEYS[3], unpack(ARGV, from, to))
end
for i = skippedAt, #ARGV, 3 do
  redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[6], '*', 'position', ARGV[i], 'error', ARGV[i + 1], 'event', ARGV[i + 2])
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('HDEL', KEYS[4], ARGV[1])
redis.call('PUBLISH', ARGV[4], ARGV[5])
return 1
