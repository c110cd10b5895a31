#!lua flags=allow-oom
-- Adds, replaces or deletes one API key, if it is still what the caller saw, and gives all of them a new revision. Sending it
-- again after a lost answer changes nothing more.
-- KEYS: 1 API keys, 2 their revision, 3 when they were last used
-- ARGV: 1 id, 2 record that was seen ('' none), 3 new record ('' deletes it), 4 new revision, 5 most keys there may be
-- Returns: 'stored', 'changed' (somebody else wrote meanwhile) or 'full'
local call = redis.call
local present = call('HGET', KEYS[1], ARGV[1]) or ''
if present == ARGV[3] then return 'stored' end
if present ~= ARGV[2] then return 'changed' end
if present == '' and call('HLEN', KEYS[1]) >= tonumber(ARGV[5]) then return 'full' end
if ARGV[3] == '' then
  call('HDEL', KEYS[1], ARGV[1])
  call('HDEL', KEYS[3], ARGV[1])
else
  call('HSET', KEYS[1], ARGV[1], ARGV[3])
end
call('SET', KEYS[2], ARGV[4])
return 'stored'
