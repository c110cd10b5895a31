#!lua flags=no-writes
-- Reads dead letters without their payloads: the header of an entry tells its type, key and trail, and is short.
-- Entries are looked at a few at a time and up to a number of bytes, so that large payloads don't hold up the server.
-- KEYS: 1 dead
-- ARGV: 1 first entry id, 2 last entry id (both as XRANGE takes them), 3 most entries, 4 '1' newest first
-- Returns: {1 when the range has no more, per entry {entry id, token, header, bytes of the payload}}; of an unknown format
--          the header is just its first bytes
local STEP, BYTES_MAX = 25, 4194304
local function headerBytes(blob)
  if string.byte(blob, 1) > 2 or #blob < 12 then return math.min(#blob, 64) end
  local flags, at = string.byte(blob, 3), 12 + string.byte(blob, 12)
  if bit.band(flags, 32) ~= 0 then at = at + 1 + (string.byte(blob, at + 1) or 0) end
  if bit.band(flags, 1) ~= 0 then at = at + 1 + (string.byte(blob, at + 1) or 0) end
  if bit.band(flags, 2) ~= 0 then at = at + 25 end
  if bit.band(flags, 4) ~= 0 then at = at + 6 end
  if bit.band(flags, 16) ~= 0 then at = at + 6 end
  if bit.band(flags, 8) ~= 0 then
    local high, low = string.byte(blob, at + 1, at + 2)
    at = at + 2 + (high or 0) * 256 + (low or 0)
  end
  if bit.band(flags, 64) ~= 0 then
    local high, low = string.byte(blob, at + 1, at + 2)
    at = at + 2 + (high or 0) * 256 + (low or 0)
  end
  return math.min(at, #blob)
end
local newestFirst = ARGV[4] == '1'
local first, last, room, bytes = ARGV[1], ARGV[2], tonumber(ARGV[3]), 0
local found, ended = {}, 0
while room > 0 and bytes < BYTES_MAX do
  local step, entries = math.min(room, STEP)
  if newestFirst then
    entries = redis.call('XREVRANGE', KEYS[1], last, first, 'COUNT', step)
  else
    entries = redis.call('XRANGE', KEYS[1], first, last, 'COUNT', step)
  end
  for _, entry in ipairs(entries) do
    local blob = entry[2][2]
    local length = headerBytes(blob)
    found[#found + 1] = { entry[1], entry[2][1], string.sub(blob, 1, length), #blob - length }
    bytes = bytes + #blob
  end
  room = room - #entries
  if #entries < step then
    ended = 1
    break
  end
  if newestFirst then last = '(' .. entries[#entries][1] else first = '(' .. entries[#entries][1] end
end
return { ended, found }
