#!lua
-- Sends dead letters back as the same commands: out of the dead-letter stream and into the ready stream, each at once or not
-- at all. Only the dead letter that the caller saw is taken: one that was redriven meanwhile, and perhaps died again, has
-- another entry id. New bytes replace the head of the stored entry, so a payload that stays never leaves Redis.
-- KEYS: 1 dead, 2 ready, 3 records, 4 crashes, 5 tenantLoads
-- ARGV: 1 '' where none has a tenant, else a list (`script-lists.ts`) in a list: the tenant of each ('' none); per dead letter: token, entry id, new bytes, first stored byte (from 1) to keep behind them or 0, record
-- Returns: per dead letter a digit: '1' redriven, '0' it is no longer there
local verdicts = {}
local tenants = ARGV[1] ~= '' and cmsgpack.unpack(ARGV[1])[1]
for i = 2, #ARGV, 5 do
  local token, id, keepFrom = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 3])
  local record = redis.call('HGET', KEYS[3], token)
  local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
  local named = not record or string.sub(record, 1, #id + 2) == 'X' .. id .. ':'
  if named and entry and entry[2][1] == token then
    local blob = ARGV[i + 2]
    if keepFrom > 0 then blob = blob .. string.sub(entry[2][2], keepFrom) end
    redis.call('XDEL', KEYS[1], id)
    local copy = redis.call('XADD', KEYS[2], '*', token, blob)
    redis.call('HSET', KEYS[3], token, 'R' .. copy .. ':' .. ARGV[i + 4])
    redis.call('HDEL', KEYS[4], token)
    local tenant = tenants and tenants[(i + 3) / 5] or ''
    if tenant ~= '' then
      redis.call('HINCRBY', KEYS[5], tenant, 1)
      redis.call('HINCRBY', KEYS[5], tenant .. '/b', #blob)
    end
    verdicts[#verdicts + 1] = '1'
  else
    verdicts[#verdicts + 1] = '0'
  end
end
return table.concat(verdicts)
