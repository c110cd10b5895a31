#!lua flags=no-writes
-- Reads dead letters without their payloads: the header of an entry tells its type, key and trail, and is short.
-- KEYS: 1 dead
-- ARGV: 1 first entry id, 2 last entry id (both as XRANGE takes them), 3 most entries, 4 '1' newest first
-- Returns: per entry {entry id, token, header, bytes of the payload}; of an unknown format only its first bytes
local function headerBytes(blob)
  if string.byte(blob, 1) ~= 1 or #blob < 12 then return math.min(#blob, 64) end
  local flags, at = string.byte(blob, 3), 12 + string.byte(blob, 12)
  if bit.band(flags, 1) ~= 0 then at = at + 1 + (string.byte(blob, at + 1) or 0) end
  if bit.band(flags, 2) ~= 0 then at = at + 25 end
  if bit.band(flags, 4) ~= 0 then at = at + 6 end
  if bit.band(flags, 8) ~= 0 then
    local high, low = string.byte(blob, at + 1, at + 2)
    at = at + 2 + (high or 0) * 256 + (low or 0)
  end
  return math.min(at, #blob)
end
local entries
if ARGV[4] == '1' then
  entries = redis.call('XREVRANGE', KEYS[1], ARGV[2], ARGV[1], 'COUNT', ARGV[3])
else
  entries = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[2], 'COUNT', ARGV[3])
end
local found = {}
for i, entry in ipairs(entries) do
  local blob = entry[2][2]
  local length = headerBytes(blob)
  found[i] = { entry[1], entry[2][1], string.sub(blob, 1, length), #blob - length }
end
return found
