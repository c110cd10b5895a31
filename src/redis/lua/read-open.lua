#!lua flags=no-writes
-- Tells of many commands of a partition at once whether they still wait or run. A cheap look: where it says no, the status
-- script has the last word.
-- KEYS: 1 commands, 2 ready, 3 records
-- ARGV: 1 group, then the tokens
-- Returns: for each token 1 when it is open, 0 when it seems to be over
local groups = {}
local function groupOf(key)
  if groups[key] ~= nil then return groups[key] end
  local found = false
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    local map = {}
    for i = 1, #info, 2 do map[info[i]] = info[i + 1] end
    if map.name == ARGV[1] or string.find(map.name, '^o%d+$') then
      local ms, seq = string.match(map['last-delivered-id'], '^(%d+)-(%d+)$')
      found = { map.name, tonumber(ms), tonumber(seq) }
    end
  end
  groups[key] = found
  return found
end
-- Not given to a worker yet, or in the hands of one.
local function isOpen(key, id)
  if redis.call('EXISTS', key) == 0 then return 0 end
  local group = groupOf(key)
  if not group then return 1 end
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  ms, seq = tonumber(ms), tonumber(seq)
  if ms > group[2] or (ms == group[2] and seq > group[3]) then return 1 end
  return #redis.call('XPENDING', key, group[1], id, id, 1)
end

local reply = {}
for i = 2, #ARGV do
  local token = ARGV[i]
  local record = redis.call('HGET', KEYS[3], token) or ''
  local letter = string.sub(record, 1, 1)
  if letter == 'S' or letter == 'T' then reply[i - 1] = 1
  elseif letter == 'R' then
    local copies = redis.call('EXISTS', KEYS[2]) == 1 and KEYS[2] or KEYS[1]
    reply[i - 1] = isOpen(copies, string.match(record, '^R(%d+%-%d+)') or '0-0')
  elseif letter == '' and string.sub(token, 1, 1) == 'e' then reply[i - 1] = isOpen(KEYS[1], string.sub(token, 2))
  else reply[i - 1] = 0 end
end
return reply
