#!lua flags=allow-oom
-- Moves what is due, by the server's clock, to the ready stream.
-- KEYS: 1 due, 2 dueBodies, 3 ready, 4 records
-- ARGV: 1 most to move
-- Returns: {moved, tokens whose body is missing, ms until the next is due or -1}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local tokens = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, tonumber(ARGV[1]))
local moved, missing = 0, {}
for _, token in ipairs(tokens) do
  local blob = redis.call('HGET', KEYS[2], token)
  redis.call('ZREM', KEYS[1], token)
  if blob then
    local copy = redis.call('XADD', KEYS[3], '*', token, blob)
    redis.call('HDEL', KEYS[2], token)
    local record = redis.call('HGET', KEYS[4], token)
    local detail = record and string.match(record, '^T%d+:(.*)$') or ''
    redis.call('HSET', KEYS[4], token, 'R' .. copy .. ':' .. detail)
    moved = moved + 1
  else
    missing[#missing + 1] = token
  end
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local wait = -1
if first[2] then wait = math.max(0, tonumber(first[2]) - now) end
return { moved, missing, wait }
