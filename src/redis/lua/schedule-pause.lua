#!lua flags=allow-oom
-- Pauses a schedule, or resumes it from now on: ticks of the pause never run, and fires under way are refused.
-- KEYS: 1 homes, 2 schedule
-- ARGV: 1 name, 2 home as the caller knows it, 3 '1' pause, '0' resume
-- Returns: {'1' changed, '0' it was so already or 'moved', present home}
local call = redis.call
local home = call('HGET', KEYS[1], ARGV[1]) or ARGV[2]
if home ~= ARGV[2] then return { 'moved', home } end
local epoch, mark, paused = unpack(call('HMGET', KEYS[2], 'epoch', 'watermark', 'paused'))
if ARGV[3] == '1' then
  if paused then return { '0', home } end
  call('HSET', KEYS[2], 'paused', '1')
  call('HSET', KEYS[1], ARGV[1], home)
  return { '1', home }
end
if not paused then return { '0', home } end
call('HDEL', KEYS[2], 'paused')
if epoch then
  local time = call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local from = string.format('%d', math.max(tonumber(mark), now))
  call('HSET', KEYS[2], 'epoch', string.format('%d', tonumber(epoch) + 1), 'watermark', from)
end
return { '1', home }
