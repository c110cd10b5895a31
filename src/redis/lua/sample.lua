#!lua flags=no-writes
-- One look at all consumers of a partition: what they hold and how they beat.
-- KEYS: 1 commands, 2 ready, 3 beats
-- ARGV: 1 group
-- Returns: {consumer, pending in commands, pending in ready, beat or ''} for each
local seen, order = {}, {}
local function row(name)
  if not seen[name] then
    seen[name] = { name, 0, 0, '' }
    order[#order + 1] = seen[name]
  end
  return seen[name]
end
for k = 1, 2 do
  for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[k], ARGV[1])) do
    local name, pending
    for i = 1, #info, 2 do
      if info[i] == 'name' then name = info[i + 1] elseif info[i] == 'pending' then pending = info[i + 1] end
    end
    row(name)[1 + k] = pending
  end
end
local beats = redis.call('HGETALL', KEYS[3])
for i = 1, #beats, 2 do row(beats[i])[4] = beats[i + 1] end
return order
