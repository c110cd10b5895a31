#!lua flags=allow-oom
-- Trims events that are past their retention and that every reader has read.
-- KEYS: 1 events, 2 readers, 3 floors
-- ARGV: 1 keep for ms, 2 keep at most bytes, 3 most entries
-- Returns: {trimmed, bytes before, the slowest reader or '', its position, ms since the oldest event it has not read or -1}
if redis.call('EXISTS', KEYS[1]) == 0 then return { 0, 0, '', '', -1 } end
local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-?(%d*)$')
  return tonumber(ms), tonumber(seq) or 0
end
local function older(a, b)
  local aMs, aSeq = parts(a)
  local bMs, bSeq = parts(b)
  return aMs < bMs or (aMs == bMs and aSeq < bSeq)
end
local slowest, name = '', ''
local readers = redis.call('HGETALL', KEYS[2])
for i = 2, #readers, 2 do
  if slowest == '' or older(readers[i], slowest) then slowest, name = readers[i], readers[i - 1] end
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local cut = string.format('%d-0', math.max(0, now - tonumber(ARGV[1])))
local bytes = redis.call('MEMORY', 'USAGE', KEYS[1], 'SAMPLES', 5)
if bytes > tonumber(ARGV[2]) then
  local head = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', math.min(500, tonumber(ARGV[3])))
  local last = head[#head]
  if last and older(cut, last[1]) then cut = last[1] end
end
if slowest ~= '' and older(slowest, cut) then cut = slowest end
local trimmed = redis.call('XTRIM', KEYS[1], 'MINID', '~', cut, 'LIMIT', ARGV[3])
if trimmed > 0 and older(redis.call('HGET', KEYS[3], 'events') or '0-0', cut) then
  redis.call('HSET', KEYS[3], 'events', cut)
end
local unread = slowest ~= '' and redis.call('XRANGE', KEYS[1], '(' .. slowest, '+', 'COUNT', 1)[1]
return { trimmed, bytes, name, slowest, unread and math.max(0, now - parts(unread[1])) or -1 }
