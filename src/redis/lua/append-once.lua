#!lua flags=allow-oom
-- Takes over outbox entries of one source partition, each once and without a gap.
-- KEYS: 1 commands, 2 watermarks, 3 due, 4 dueBodies, 5 records, 6 counter, 7 tenantLoads
-- ARGV: 1 source, 2 '' where no entry has a tenant, else a list (`script-lists.ts`) in a list: the tenant of each ('' none); they
--       are counted, and never refused: what caused them is done. Then per entry: id in the outbox, previous id addressed to this target, delay ms (-1 none), blob
-- Returns: {appended, watermark, 1 when an entry before these is missing}
local mark = redis.call('HGET', KEYS[2], ARGV[1]) or '0-0'
local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
local function newer(a, b)
  local aMs, aSeq = parts(a)
  local bMs, bSeq = parts(b)
  return aMs > bMs or (aMs == bMs and aSeq > bSeq)
end
local appended, gap = 0, 0
local tenants = ARGV[2] ~= '' and cmsgpack.unpack(ARGV[2])[1]
for i = 3, #ARGV, 4 do
  local id, prev, delay, blob = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if newer(id, mark) then
    if newer(prev, mark) then
      gap = 1
      break
    end
    if delay == '-1' then
      redis.call('XADD', KEYS[1], '*', '-', blob)
    else
      local time = redis.call('TIME')
      local due = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(delay)
      local token = 'x' .. string.format('%d', redis.call('INCR', KEYS[6]))
      redis.call('ZADD', KEYS[3], due, token)
      redis.call('HSET', KEYS[4], token, blob)
      redis.call('HSET', KEYS[5], token, 'S' .. string.format('%d', due))
    end
    local tenant = tenants and tenants[(i + 1) / 4] or ''
    if tenant ~= '' then
      redis.call('HINCRBY', KEYS[7], tenant, 1)
      redis.call('HINCRBY', KEYS[7], tenant .. '/b', #blob)
    end
    mark = id
    appended = appended + 1
  end
end
if appended > 0 then redis.call('HSET', KEYS[2], ARGV[1], mark) end
return { appended, mark, gap }
