#!lua
-- Appends commands of tenants that carry no idempotency key and no delay, as far as each tenant may have more waiting.
-- KEYS: 1 commands, 2 tenantLoads
-- ARGV: 1 for each command its length (4 bytes, big endian) and its blob, 2 most commands and 3 most bytes that a tenant may have
--       waiting here, then per group of neighbours: tenant ('' none: no limit), number of commands
-- Returns: per command its token (`e<entry id>`), or '%' where its tenant has too much waiting; in order, separated by spaces
local call, unpack, sub = redis.call, struct.unpack, string.sub
local packed, countMax, bytesMax = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local at, index, out = 1, 0, {}
for g = 4, #ARGV, 2 do
  local tenant, count, bytes, added = ARGV[g], 0, 0, 0
  if tenant ~= '' then
    local known = call('HMGET', KEYS[2], tenant, tenant .. '/b')
    count, bytes = tonumber(known[1] or '0'), tonumber(known[2] or '0')
  end
  for _ = 1, tonumber(ARGV[g + 1]) do
    local length, from = unpack('>I4', packed, at)
    at = from + length
    index = index + 1
    if tenant ~= '' and (count >= countMax or bytes + length > bytesMax) then
      out[index] = '%'
    else
      out[index] = 'e' .. call('XADD', KEYS[1], '*', '-', sub(packed, from, at - 1))
      count, bytes, added = count + 1, bytes + length, added + 1
    end
  end
  if tenant ~= '' and added > 0 then
    call('HSET', KEYS[2], tenant, string.format('%d', count), tenant .. '/b', string.format('%d', bytes))
  end
end
return table.concat(out, ' ')
