#!lua flags=allow-oom
-- Where a projection stands in an event log, and whether the log still holds what comes next. A new reader starts at the
-- beginning, or where events were trimmed from then on.
-- KEYS: 1 readers, 2 events, 3 floors
-- ARGV: 1 reader
-- Returns: {checkpoint, state, last id of the log, trim floor or ''}
--          states: known, new, trimmed (new, but earlier events are gone), gap (events after the checkpoint are gone),
--          behind (the log ends before the checkpoint: it lost entries; its next ids were moved past the checkpoint)
local function newer(a, b)
  local aMs, aSeq = string.match(a, '^(%d+)-?(%d*)$')
  local bMs, bSeq = string.match(b, '^(%d+)-?(%d*)$')
  aMs, aSeq, bMs, bSeq = tonumber(aMs), tonumber(aSeq) or 0, tonumber(bMs), tonumber(bSeq) or 0
  return aMs > bMs or (aMs == bMs and aSeq > bSeq)
end
local last = '0-0'
if redis.call('EXISTS', KEYS[2]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[2])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] end
  end
end
local floor = redis.call('HGET', KEYS[3], 'events') or ''
local checkpoint = redis.call('HGET', KEYS[1], ARGV[1])
if not checkpoint then
  checkpoint = floor == '' and '0-0' or floor
  redis.call('HSET', KEYS[1], ARGV[1], checkpoint)
  return { checkpoint, floor == '' and 'new' or 'trimmed', last, floor }
end
if floor ~= '' and newer(floor, checkpoint) then return { checkpoint, 'gap', last, floor } end
if newer(checkpoint, last) and checkpoint ~= floor then
  if last == '0-0' then
    redis.call('XGROUP', 'CREATE', KEYS[2], 'moved', '0', 'MKSTREAM')
    redis.call('XGROUP', 'DESTROY', KEYS[2], 'moved')
  end
  redis.call('XSETID', KEYS[2], checkpoint)
  return { checkpoint, 'behind', checkpoint, floor }
end
return { checkpoint, 'known', last, floor }
