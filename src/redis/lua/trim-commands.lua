#!lua flags=allow-oom
-- Trims what every command of a partition has behind it: entries older than the first pending one, or, when nothing is
-- pending, older than the last delivered one. An ordered partition has one stream, given twice.
-- KEYS: 1 commands, 2 ready, 3 floors
-- ARGV: 1 group, 2 most entries per stream
-- Returns: {trimmed from commands, trimmed from ready, oldest pending id of commands or ''}
local function safePoint(key)
  if redis.call('EXISTS', key) == 0 then return nil, '' end
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    local map = {}
    for i = 1, #info, 2 do map[info[i]] = info[i + 1] end
    if map.name == ARGV[1] or string.find(map.name, '^o%d+$') then
      local first = redis.call('XPENDING', key, map.name, '-', '+', 1)
      if first[1] then return first[1][1], first[1][1] end
      return map['last-delivered-id'], ''
    end
  end
  return nil, ''
end
local result, oldest = {}, ''
for source = 1, KEYS[1] == KEYS[2] and 1 or 2 do
  local safe, pending = safePoint(KEYS[source])
  local trimmed = 0
  if safe and safe ~= '0-0' then
    trimmed = redis.call('XTRIM', KEYS[source], 'MINID', '~', safe, 'LIMIT', ARGV[2])
    if trimmed > 0 and source == 1 then redis.call('HSET', KEYS[3], 'commands', safe) end
  end
  if source == 1 then oldest = pending end
  result[source] = trimmed
end
return { result[1], result[2] or 0, oldest }
