#!lua flags=allow-oom
-- Cancels a command that no worker has been given yet, or that waits for its time.
-- KEYS: 1 commands, 2 records, 3 recordTimes, 4 due, 5 dueBodies, 6 tenantLoads
-- ARGV: 1 group, 2 token, 3 record, 4 tenant ('' none)
-- Returns: 1 cancelled, 0 too late
local token, tenant, bytes = ARGV[2], ARGV[4], 0
local letter = string.sub(redis.call('HGET', KEYS[2], token) or '', 1, 1)
if letter == 'S' or letter == 'T' then
  -- What an ordered partition retries in place is in its owner's hands.
  if redis.call('ZREM', KEYS[4], token) == 0 then return 0 end
  if tenant ~= '' then bytes = #(redis.call('HGET', KEYS[5], token) or '') end
  redis.call('HDEL', KEYS[5], token)
elseif letter == '' and string.sub(token, 1, 1) == 'e' then
  local id = string.sub(token, 2)
  local deliveredMs, deliveredSeq = 0, 0
  if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local map = {}
    for i = 1, #info, 2 do map[info[i]] = info[i + 1] end
    if map.name == ARGV[1] or string.find(map.name, '^o%d+$') then
      local ms, seq = string.match(map['last-delivered-id'], '^(%d+)-(%d+)$')
      deliveredMs, deliveredSeq = tonumber(ms), tonumber(seq)
    end
  end
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  ms, seq = tonumber(ms), tonumber(seq)
  if ms < deliveredMs or (ms == deliveredMs and seq <= deliveredSeq) then return 0 end
  local entry = tenant ~= '' and redis.call('XRANGE', KEYS[1], id, id)[1]
  if entry then bytes = #entry[2][2] end
  if redis.call('XDEL', KEYS[1], id) == 0 then return 0 end
else
  return 0
end
if tenant ~= '' then
  local count = redis.call('HINCRBY', KEYS[6], tenant, -1)
  local left = redis.call('HINCRBY', KEYS[6], tenant .. '/b', -bytes)
  if count <= 0 or left <= 0 then
    redis.call('HDEL', KEYS[6], tenant, tenant .. '/b')
    if count ~= 0 or left ~= 0 then redis.call('HSET', KEYS[6], '!', '1') end
  end
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[2], token, 'C' .. ARGV[3])
redis.call('ZADD', KEYS[3], time[1] * 1000 + math.floor(time[2] / 1000), token)
return 1
