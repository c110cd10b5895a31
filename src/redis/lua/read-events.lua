#!lua flags=no-writes,allow-oom
-- A page of an event log, and whether the log still holds everything that came after a position.
-- KEYS: 1 events, 2 floors
-- ARGV: 1 entry id, 2 '1' when the page begins with that entry itself ('0': with the one after it), 3 most entries
-- Returns: {state, last id that the log gave out ('' when the page tells), entries, '1' when that last id is an entry}
--          states: known; trimmed (entries after the position were trimmed, or may have been);
--          lost (the entry at the position is gone, and was not trimmed: the server lost the end of its log)
local function newer(a, b)
  local aMs, aSeq = string.match(a, '^(%d+)-?(%d*)$')
  local bMs, bSeq = string.match(b, '^(%d+)-?(%d*)$')
  aMs, aSeq, bMs, bSeq = tonumber(aMs), tonumber(aSeq) or 0, tonumber(bMs), tonumber(bSeq) or 0
  return aMs > bMs or (aMs == bMs and aSeq > bSeq)
end
local id, count = ARGV[1], tonumber(ARGV[3])
local entries = {}
if count > 0 then
  entries = redis.call('XRANGE', KEYS[1], ARGV[2] == '1' and id or '(' .. id, '+', 'COUNT', count)
end
local floor = redis.call('HGET', KEYS[2], 'events') or ''
local start = id == '0-0'
local present = start or #redis.call('XRANGE', KEYS[1], id, id) > 0
local state = start and floor ~= '' and 'trimmed' or 'known'
if present and #entries > 0 then return { state, '', entries, '' } end
local last, deleted, isEntry = '0-0', '0-0', ''
if redis.call('EXISTS', KEYS[1]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] end
    if info[i] == 'max-deleted-entry-id' then deleted = info[i + 1] end
    if info[i] == 'last-entry' and info[i + 1] and info[i + 1][1] == last then isEntry = '1' end
  end
end
if not present then
  if floor ~= '' and newer(floor, id) then
    if newer(last, id) or ARGV[2] == '1' then state = 'trimmed' end
  elseif newer(id, deleted) then
    state = 'lost'
  end
end
return { state, last, entries, isEntry }
