#!lua flags=no-writes,allow-oom
-- Reads all API keys, unless the caller knows this revision of them already.
-- KEYS: 1 API keys, 2 their revision
-- ARGV: 1 the revision that the caller knows ('-' none)
-- Returns: {revision} when it is known, else {revision, {id, record, ...}}; the revision of nothing is ''
local revision = redis.call('GET', KEYS[2]) or ''
if revision == ARGV[1] then return { revision } end
return { revision, redis.call('HGETALL', KEYS[1]) }
