#!lua flags=no-writes
-- One look at an ordered stream: who is there, and who owns which partition.
-- KEYS: 1 beats (of the stream's members), 2… lease of each partition
-- ARGV: none
-- Returns: {members and their beats in turn, {owner or '', epoch or '', wanted or ''} for each partition}
local leases = {}
for i = 2, #KEYS do
  local fields = redis.call('HMGET', KEYS[i], 'owner', 'epoch', 'wanted')
  leases[i - 1] = { fields[1] or '', fields[2] or '', fields[3] or '' }
end
return { redis.call('HGETALL', KEYS[1]), leases }
