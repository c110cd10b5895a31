#!lua
-- Appends commands that carry no idempotency key and no delay.
-- KEYS: 1 commands
-- ARGV: blobs
-- Returns: entry ids, in order
local ids = {}
for i = 1, #ARGV do
  ids[i] = redis.call('XADD', KEYS[1], '*', '-', ARGV[i])
end
return ids
