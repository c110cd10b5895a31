#!lua flags=no-writes
-- One look at the whole server: its clock, its memory, what it has evicted.
-- KEYS: none
-- ARGV: none
-- Returns: {seconds, microseconds, INFO memory, INFO stats}
local time = redis.call('TIME')
return { tonumber(time[1]), tonumber(time[2]), redis.call('INFO', 'memory'), redis.call('INFO', 'stats') }
