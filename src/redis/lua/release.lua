#!lua flags=allow-oom
-- Hands entries that were read but not started to the `free` consumer; only those that are still mine.
-- KEYS: 1 commands, 2 ready, 3 beats
-- ARGV: 1 group, 2 me, 3 free consumer, 4 '1' to drop my heartbeat, n, ids of commands…, n, ids of ready…
-- Returns: number released
local at, released = 5, 0
for source = 1, 2 do
  local count = tonumber(ARGV[at])
  for i = at + 1, at + count do
    local id = ARGV[i]
    local pending = redis.call('XPENDING', KEYS[source], ARGV[1], id, id, 1)
    if pending[1] and pending[1][2] == ARGV[2] then
      released = released + #redis.call('XCLAIM', KEYS[source], ARGV[1], ARGV[3], 0, id, 'JUSTID')
    end
  end
  at = at + 1 + count
end
if ARGV[4] == '1' then redis.call('HDEL', KEYS[3], ARGV[2]) end
return released
