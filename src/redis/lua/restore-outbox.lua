#!lua flags=allow-oom
-- Compares the outbox of a partition with what the others have taken over from it. An outbox that ends before that has
-- lost entries; its next ids go on after it, else the others would take new entries for ones that they have.
-- KEYS: 1 outbox
-- ARGV: 1 newest id that anybody has taken over
-- Returns: '' when nothing is missing, else the id that the outbox ended with
local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-?(%d*)$')
  return tonumber(ms), tonumber(seq) or 0
end
local exists = redis.call('EXISTS', KEYS[1]) == 1
local last = '0-0'
if exists then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] end
  end
end
local takenMs, takenSeq = parts(ARGV[1])
local lastMs, lastSeq = parts(last)
if takenMs < lastMs or (takenMs == lastMs and takenSeq <= lastSeq) then return '' end
if not exists then
  redis.call('XGROUP', 'CREATE', KEYS[1], 'moved', '0', 'MKSTREAM')
  redis.call('XGROUP', 'DESTROY', KEYS[1], 'moved')
end
redis.call('XSETID', KEYS[1], ARGV[1])
return last
