#!lua flags=allow-oom
-- Takes tokens of a sliding window: at most `quota` uses in any window. A use counts from the slot in which it was told until
-- that slot has wholly left the window; what processes hold in advance counts as used. So there are never too many.
-- KEYS: 1 state (hash: `used`, uses in the log; per holder `<tokens> <until µs>`), 2 log (list: `<slot> <uses>`, oldest first)
-- ARGV: 1 quota, 2 µs of a slot, 3 slots of the window, 4 holder, 5 of its tokens used since, 6 of them kept, 7 taken before
--       and not used, 8 needed now, 9 wished beside, 10 ms for which a silent holder keeps its tokens, 11 largest single need,
--       12 '1' when what is needed now counts as used, '' when the holder tells it later
-- Returns: {granted, free after, ms until the oldest uses leave (0: there are none), ms until the largest need is there}
local call = redis.call
local quota, slotUs, slots, me = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local used, kept, back = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local need, wish, holdMs, largest = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local current = math.floor(now / slotUs)

local total, mine, others, written, gone = 0, 0, 0, 0, {}
local flat = call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do
  local field, value = flat[i], flat[i + 1]
  if field == 'used' then total = tonumber(value)
  else
    local tokens, untilUs = string.match(value, '^(%d+) (%d+)$')
    tokens, untilUs = tonumber(tokens), tonumber(untilUs)
    if field == me then mine = tokens
    elseif untilUs < now then gone[#gone + 1] = field written = written + tokens
    else others = others + tokens end
  end
end
local function entryAt(index)
  local entry = call('LINDEX', KEYS[2], index)
  if not entry then return nil end
  local slot, count = string.match(entry, '^(%d+) (%d+)$')
  return tonumber(slot), tonumber(count)
end
local newest, count = entryAt(-1)
-- A clock that was set back by more than the window would hold its uses for as long: begin anew.
if newest and newest > current + slots + 1 then
  call('DEL', KEYS[2])
  newest, total = nil, 0
end
local slot = math.max(current, newest or 0)
local oldest, uses = entryAt(0)
while oldest and oldest <= current - slots - 1 do
  call('LPOP', KEYS[2])
  total = total - uses
  oldest, uses = entryAt(0)
end
if not oldest then newest, total = nil, 0 end

used = math.min(used, mine)
kept = math.min(kept, mine - used)
local free = math.max(0, quota - total - others - written - used - kept + back)
local needed = math.min(need, free)
-- One that wants all or nothing gets nothing, rather than what it would have to give back.
if need == largest and free < need then needed = 0 end
-- Beside what is waited for, only a part of the rest: when little is left, it goes to whoever uses it first.
local granted = needed + math.min(wish, math.ceil((free - needed) / 4))
local spent = 0
if ARGV[12] == '1' then spent = needed end
local entering = written + used + spent - back
total = total + entering
while entering < 0 and newest do
  call('RPOP', KEYS[2])
  if count + entering > 0 then
    call('RPUSH', KEYS[2], string.format('%d %d', newest, count + entering))
    entering = 0
  else
    entering = entering + count
    newest, count = entryAt(-1)
  end
end
if entering > 0 then
  if newest == slot then call('LSET', KEYS[2], -1, string.format('%d %d', slot, count + entering))
  else call('RPUSH', KEYS[2], string.format('%d %d', slot, entering)) end
end
total = math.max(0, total)
free = math.max(0, free - granted)

local held = kept + granted - spent
for _, field in ipairs(gone) do call('HDEL', KEYS[1], field) end
call('HSET', KEYS[1], 'used', string.format('%d', total))
if held > 0 then call('HSET', KEYS[1], me, string.format('%d %d', held, now + holdMs * 1000))
else call('HDEL', KEYS[1], me) end
local expiryMs = math.ceil((slots + 2) * slotUs / 1000) + holdMs
call('PEXPIRE', KEYS[1], expiryMs)
call('PEXPIRE', KEYS[2], expiryMs)

local function leavesMs(entrySlot) return math.max(1, math.ceil(((entrySlot + slots + 1) * slotUs - now) / 1000)) end
local nextMs, largestMs = 0, 0
oldest = entryAt(0)
if oldest then nextMs = leavesMs(oldest) end
if free < largest and largest == 1 then largestMs = nextMs
elseif free < largest then
  largestMs = math.ceil(slots * slotUs / 1000)
  local there = free
  for _, entry in ipairs(call('LRANGE', KEYS[2], 0, -1)) do
    local entrySlot, entryUses = string.match(entry, '^(%d+) (%d+)$')
    there = there + tonumber(entryUses)
    if there >= largest then
      largestMs = leavesMs(tonumber(entrySlot))
      break
    end
  end
end
return { granted, free, nextMs, largestMs }
