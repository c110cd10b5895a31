#!lua flags=allow-oom
-- Makes a deployment's idea of a schedule the valid one, and shows that a scheduler with this idea is alive.
-- The same idea changes nothing. Another one gets the next epoch, so fires of the old one are refused; but an idea that was
-- replaced before comes back only when the caller has seen the present one's beat stand still, and it still does: two
-- deployments don't flap, and no clock that is set decides between them.
-- A new timetable starts at the server's time; everything else keeps the watermark, so nothing due is forgotten.
-- KEYS: 1 homes, 2 schedule in its new home, 3 schedule in its present home (the same key when it does not move)
-- ARGV: 1 name, 2 new home, 3 present home as the caller knows it ('' none), 4 spec, 5 timetable, 6 beat at which the present idea fell silent ('' none)
-- Returns: {verdict, epoch, watermark, '1' when paused, server time, present home, beat}
--          verdicts: moved (the caller's home is out of date, nothing happened), kept, started, changed, superseded
local PAST_KEPT = 16
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function int(n) return string.format('%d', n) end
local home = call('HGET', KEYS[1], ARGV[1]) or ''
if home ~= ARGV[3] then return { 'moved', '0', '0', '', int(now), home, '' } end

local present = home == '' and KEYS[2] or KEYS[3]
local epoch, spec, timetable, mark, count, past, paused =
  unpack(call('HMGET', present, 'epoch', 'spec', 'timetable', 'watermark', 'beat', 'past', 'paused'))
local function answer(verdict)
  return { verdict, epoch, mark, paused or '', int(now), ARGV[2], '' }
end
if epoch and spec == ARGV[4] then
  call('HSET', present, 'seen', int(now))
  call('HINCRBY', present, 'beat', 1)
  return answer('kept')
end
local beat = (epoch or '') .. '.' .. (count or '0')
local earlier = {}
for known in string.gmatch(past or '', '%S+') do
  if known == ARGV[4] then
    if beat ~= ARGV[6] then
      return { 'superseded', epoch, mark, paused or '', int(now), home, beat }
    end
  elseif #earlier < PAST_KEPT then
    earlier[#earlier + 1] = known
  end
end
if spec then table.insert(earlier, 1, spec) end

local verdict = epoch and 'changed' or 'started'
if present ~= KEYS[2] then
  local fields = call('HGETALL', present)
  if #fields > 0 then call('HSET', KEYS[2], unpack(fields)) end
  call('HDEL', KEYS[2], 'run')
  call('DEL', present)
end
if not mark or timetable ~= ARGV[5] then mark = int(math.max(tonumber(mark or '0'), now)) end
epoch = epoch and int(tonumber(epoch) + 1) or int(now)
call('HSET', KEYS[2], 'epoch', epoch, 'spec', ARGV[4], 'timetable', ARGV[5], 'watermark', mark, 'seen', int(now),
  'past', table.concat(earlier, ' '))
call('HSET', KEYS[1], ARGV[1], ARGV[2])
return answer(verdict)
