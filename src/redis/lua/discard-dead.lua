#!lua flags=allow-oom
-- Deletes dead letters for good. Their records stay, without the entry id, and enter the sweep of records with the present
-- time: a status says "dead" as long as any result of this moment is kept, and never a wrong "done".
-- KEYS: 1 dead, 2 records, 3 recordTimes
-- ARGV: per dead letter: token, entry id
-- Returns: per dead letter a digit: '1' deleted, '0' it is no longer there
local time = redis.call('TIME')
local now = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
local verdicts = {}
for i = 1, #ARGV, 2 do
  local token, id = ARGV[i], ARGV[i + 1]
  local record = redis.call('HGET', KEYS[2], token)
  local named = not record or string.sub(record, 1, #id + 2) == 'X' .. id .. ':'
  local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
  if named and entry and entry[2][1] == token then
    redis.call('XDEL', KEYS[1], id)
    redis.call('HSET', KEYS[2], token, 'X:' .. string.sub(record or '', #id + 3))
    redis.call('ZADD', KEYS[3], now, token)
    verdicts[#verdicts + 1] = '1'
  else
    verdicts[#verdicts + 1] = '0'
  end
end
return table.concat(verdicts)
