#!lua
-- Appends commands, each at most once per idempotency key, at once or later.
-- A record is written after its entry: a script is isolated, and an entry without a record is only a lost optimisation.
-- KEYS: 1 commands, 2 due, 3 dueBodies, 4 records, 5 counter, 6 tenantLoads, 7… idempotency buckets and their counters
-- ARGV: 1 window, 2 window length ms, 3 records allowed per counter, 4 '1' for all or none,
--       5 '' where no command has a tenant, else two lists (`script-lists.ts`): most commands and most bytes that a tenant may have
--       waiting here; the tenant of each command ('' none); then per command seven values:
--       index in KEYS of this window's bucket ('0': no key), of the last window's bucket, of the counter,
--       digest, fingerprint, when ('' now, 'd<ms>' after a delay, 'a<ms>' at a time), blob
-- Returns: separated by spaces, per command '=<token>' stored, '~<token>' known already, '!' key used with another body, '#' no room for keys, '%' its tenant has too much waiting,
--          '-' held back because another one of all-or-none was refused;
--          or the single value 'W<window>' when the caller's window is not the server's: nothing was written
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local windowMs = tonumber(ARGV[2])
local window = math.floor(now / windowMs)
if window ~= tonumber(ARGV[1]) then return 'W' .. string.format('%d', window) end
local countMax = tonumber(ARGV[3])
local out = {}
local owned = ARGV[5] ~= '' and cmsgpack.unpack(ARGV[5])
-- What tenants have waiting is read once and written at the end; a new command is added if its tenant may have one more.
local loads = {}
local function admits(i)
  local tenant = owned and owned[2][(i - 6) / 7 + 1] or ''
  if tenant == '' then return true end
  if not loads[tenant] then
    local known = redis.call('HMGET', KEYS[6], tenant, tenant .. '/b')
    loads[tenant] = { tonumber(known[1] or '0'), tonumber(known[2] or '0'), false }
  end
  local load, size = loads[tenant], #ARGV[i + 6]
  if load[1] >= tonumber(owned[1][1]) or load[2] + size > tonumber(owned[1][2]) then return false end
  load[1], load[2], load[3] = load[1] + 1, load[2] + size, true
  return true
end
if ARGV[4] == '1' then
  local refused, added, mine = false, {}, {}
  for i = 6, #ARGV, 7 do
    local current, last, counter = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
    local digest, fingerprint, mark = ARGV[i + 3], ARGV[i + 4], '-'
    local isNew = true
    if current > 0 then
      local known = mine[digest] or redis.call('HGET', KEYS[current], digest) or redis.call('HGET', KEYS[last], digest)
      if known then
        isNew = false
        if string.sub(known, 1, 8) ~= fingerprint then mark = '!' end
      else
        local count = added[counter] or tonumber(redis.call('GET', KEYS[counter]) or '0')
        if count >= countMax then mark = '#' end
        added[counter], mine[digest] = count + 1, fingerprint
      end
    end
    if isNew and mark == '-' and not admits(i) then mark = '%' end
    refused = refused or mark ~= '-'
    out[#out + 1] = mark
  end
  if refused then return table.concat(out, ' ') end
  out, loads = {}, {}
end
for i = 6, #ARGV, 7 do
  local current, last, counter = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local digest, fingerprint, when, blob = ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6]
  local known = false
  if current > 0 then
    known = redis.call('HGET', KEYS[current], digest) or redis.call('HGET', KEYS[last], digest)
  end
  if known then
    if string.sub(known, 1, 8) == fingerprint then out[#out + 1] = '~' .. string.sub(known, 9) else out[#out + 1] = '!' end
  elseif current > 0 and tonumber(redis.call('GET', KEYS[counter]) or '0') >= countMax then
    out[#out + 1] = '#'
  elseif not admits(i) then
    out[#out + 1] = '%'
  else
    local token
    if when == '' then
      token = 'e' .. redis.call('XADD', KEYS[1], '*', '-', blob)
    else
      local at = tonumber(string.sub(when, 2))
      if string.sub(when, 1, 1) == 'd' then at = now + at end
      token = 'x' .. string.format('%d', redis.call('INCR', KEYS[5]))
      redis.call('ZADD', KEYS[2], at, token)
      redis.call('HSET', KEYS[3], token, blob)
      redis.call('HSET', KEYS[4], token, 'S' .. string.format('%d', at))
    end
    if current > 0 then
      if redis.call('HSET', KEYS[current], digest, fingerprint .. token) == 1 and redis.call('HLEN', KEYS[current]) == 1 then
        redis.call('PEXPIRE', KEYS[current], windowMs * 2)
      end
      if redis.call('INCR', KEYS[counter]) == 1 then redis.call('PEXPIRE', KEYS[counter], windowMs * 2) end
    end
    out[#out + 1] = '=' .. token
  end
end
for tenant, load in pairs(loads) do
  if load[3] then
    redis.call('HSET', KEYS[6], tenant, string.format('%d', load[1]), tenant .. '/b', string.format('%d', load[2]))
  end
end
return table.concat(out, ' ')
