#!lua flags=allow-oom
-- Counts again what each tenant has waiting, if so little waits that this holds nobody up, and mends what was wrong.
-- KEYS: 1 commands, 2 ready (the same for an ordered partition), 3 dueBodies, 4 tenantLoads
-- ARGV: 1 group, 2 most entries to look at
-- Returns: false when more waits; else per tenant whose load was wrong {tenant, count, bytes, true count, true bytes}
local BYTES_MAX, PAGE, STEP = 4194304, 100, 25
local call, left, bytesLeft = redis.call, tonumber(ARGV[2]), BYTES_MAX
if call('EXISTS', KEYS[4]) == 0 then return {} end
local counts, bytes = {}, {}
local function take(blob)
  left, bytesLeft = left - 1, bytesLeft - #blob
  if #blob < 13 or string.byte(blob, 1) > 2 or bit.band(string.byte(blob, 3), 32) == 0 then return end
  local at = 13 + string.byte(blob, 12)
  local tenant = string.sub(blob, at + 1, at + (string.byte(blob, at) or 0))
  counts[tenant], bytes[tenant] = (counts[tenant] or 0) + 1, (bytes[tenant] or 0) + #blob
end
local function isTooMuch() return left < 0 or bytesLeft < 0 end

-- What is pending, and what was not delivered yet.
local function walk(key)
  if call('EXISTS', key) == 0 then return end
  local group, last = nil, '0-0'
  for _, info in ipairs(call('XINFO', 'GROUPS', key)) do
    local map = {}
    for i = 1, #info, 2 do map[info[i]] = info[i + 1] end
    if map.name == ARGV[1] or string.find(map.name, '^o%d+$') then group, last = map.name, map['last-delivered-id'] end
  end
  local from = '-'
  while group and not isTooMuch() do
    local rows = call('XPENDING', key, group, from, '+', PAGE)
    for _, row in ipairs(rows) do
      local entry = call('XRANGE', key, row[1], row[1])[1]
      if entry then take(entry[2][2]) end
      if isTooMuch() then return end
    end
    if #rows < PAGE then break end
    from = '(' .. rows[#rows][1]
  end
  from = '(' .. last
  while not isTooMuch() do
    local entries = call('XRANGE', key, from, '+', 'COUNT', STEP)
    for _, entry in ipairs(entries) do take(entry[2][2]) end
    if #entries < STEP then break end
    from = '(' .. entries[#entries][1]
  end
end
for source = 1, KEYS[1] == KEYS[2] and 1 or 2 do walk(KEYS[source]) end
if call('HLEN', KEYS[3]) > math.max(0, left) then return false end
for _, token in ipairs(call('HKEYS', KEYS[3])) do
  if not isTooMuch() then take(call('HGET', KEYS[3], token)) end
end
if isTooMuch() then return false end

local known, wrong = {}, {}
local fields = call('HGETALL', KEYS[4])
for i = 1, #fields, 2 do known[fields[i]] = fields[i + 1] end
for i = 1, #fields, 2 do
  local tenant = fields[i]
  if tenant ~= '!' and string.sub(tenant, -2) ~= '/b' and not counts[tenant] then counts[tenant], bytes[tenant] = 0, 0 end
end
call('DEL', KEYS[4])
for tenant, count in pairs(counts) do
  local kept, keptBytes = tonumber(known[tenant] or '0'), tonumber(known[tenant .. '/b'] or '0')
  if kept ~= count or keptBytes ~= bytes[tenant] then
    wrong[#wrong + 1] = { tenant, kept, keptBytes, count, bytes[tenant] }
  end
  if count > 0 then
    call('HSET', KEYS[4], tenant, string.format('%d', count), tenant .. '/b', string.format('%d', bytes[tenant]))
  end
end
return wrong
