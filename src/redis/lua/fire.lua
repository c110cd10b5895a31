#!lua
-- Decides one tick of a schedule, at most once across the fleet and never early by the server's clock: appends its command
-- to the ready stream, or leaves it out, and moves the watermark. Compare-and-set on the watermark, so no leader is needed.
-- Without an expected watermark the command runs now, beside the timetable: nothing moves.
-- KEYS: 1 schedule, 2 ready, 3 records, 4 counter, 5 tenantLoads
-- ARGV: 1 spec epoch, 2 expected watermark ('' run now), 3 tick, 4 ticks left out before it, 5 blob ('' leave this one out
--       too; it is counted in 4), 6 '1' when runs must not overlap, 7 group, 8 where runs go: `<stream>.<partition>`, behind
--       `<tenant>/` where they are a tenant's,
--       9 first and 10 last of the ticks left out, 11 tenant ('' none)
-- Returns: {verdict, watermark, server time, token or ''}; verdicts: fired, left-out, overlap (left out, an earlier run is
--          still open), and without any change: stale, clock, paused, behind, early
local RUNS_KEPT, RANGES_KEPT = 10, 32
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local epoch, mark, paused, run, runs = unpack(call('HMGET', KEYS[1], 'epoch', 'watermark', 'paused', 'run', 'runs'))
local tick, missed = tonumber(ARGV[3]), tonumber(ARGV[4])
local scheduled = ARGV[2] ~= ''

local function answer(verdict, token)
  return { verdict, mark or '0', string.format('%d', now), token or '' }
end
if scheduled then
  if epoch ~= ARGV[1] or not mark then return answer('stale') end
  if now < tonumber(mark) - 1000 then return answer('clock') end
  if paused then return answer('paused') end
  if mark ~= ARGV[2] or tick <= tonumber(mark) then return answer('behind') end
  if tick > now then return answer('early') end
end

-- Section "status" in small: what is retrying or scheduled is open; a ready copy by its position; all else has ended.
local function newer(a, b)
  local aMs, aSeq = string.match(a, '^(%d+)-(%d+)$')
  local bMs, bSeq = string.match(b, '^(%d+)-(%d+)$')
  aMs, aSeq, bMs, bSeq = tonumber(aMs), tonumber(aSeq), tonumber(bMs), tonumber(bSeq)
  return aMs > bMs or (aMs == bMs and aSeq > bSeq)
end
local function isOpen(token)
  local record = call('HGET', KEYS[3], token) or ''
  local letter = string.sub(record, 1, 1)
  if letter == 'S' or letter == 'T' then return true end
  if letter ~= 'R' then return false end
  local copy = string.match(record, '^R(%d+%-%d+)')
  if #call('XRANGE', KEYS[2], copy, copy) == 0 then return false end
  for _, info in ipairs(call('XINFO', 'GROUPS', KEYS[2])) do
    local map = {}
    for i = 1, #info, 2 do map[info[i]] = info[i + 1] end
    if map.name == ARGV[7] or string.find(map.name, '^o%d+$') then
      return newer(copy, map['last-delivered-id']) or #call('XPENDING', KEYS[2], map.name, copy, copy, 1) > 0
    end
  end
  return true
end
local overlaps = ARGV[6] == '1' and ARGV[5] ~= '' and run and isOpen(run)

if overlaps and not scheduled then return answer('overlap') end
-- What may fail comes first: a ready stream that takes nothing leaves the tick to be fired again.
local token, copy
if ARGV[5] ~= '' and not overlaps then
  token = 'x' .. string.format('%d', call('INCR', KEYS[4]))
  copy = call('XADD', KEYS[2], '*', token, ARGV[5])
  if ARGV[11] ~= '' then
    call('HINCRBY', KEYS[5], ARGV[11], 1)
    call('HINCRBY', KEYS[5], ARGV[11] .. '/b', #ARGV[5])
  end
end
-- Counts ticks left out and keeps their newest ranges, newest first, as `first-last*count`; what directly follows the
-- newest range (`follows` is its last tick) joins it.
local function leftOut(field, first, last, count, follows)
  call('HINCRBY', KEYS[1], field, count)
  local kept = {}
  for range in string.gmatch(call('HGET', KEYS[1], field .. '-ranges') or '', '%S+') do
    local from, to, times = string.match(range, '^(%d+)-(%d+)%*(%d+)$')
    if #kept == 0 and to == follows then first, count = from, count + tonumber(times)
    elseif #kept < RANGES_KEPT - 1 then kept[#kept + 1] = range end
  end
  table.insert(kept, 1, first .. '-' .. last .. '*' .. string.format('%d', count))
  call('HSET', KEYS[1], field .. '-ranges', table.concat(kept, ' '))
end
if scheduled then
  mark = ARGV[3]
  call('HSET', KEYS[1], 'watermark', mark)
  if missed > 0 then leftOut('missed', ARGV[9], ARGV[10], missed, ARGV[2]) end
end
if overlaps then
  leftOut('overlapped', mark, mark, 1, missed == 0 and ARGV[2])
  return answer('overlap')
end
if not token then return answer('left-out') end
local kept = { ARGV[8] .. '.' .. token .. '@' .. ARGV[3] }
for earlier in string.gmatch(runs or '', '%S+') do
  if #kept < RUNS_KEPT then kept[#kept + 1] = earlier end
end
call('HSET', KEYS[1], 'run', token, 'runs', table.concat(kept, ' '))
call('HINCRBY', KEYS[1], 'fired', 1)
call('HSET', KEYS[3], token, 'R' .. copy .. ':')
return answer('fired', token)
