#!lua flags=no-writes
-- Finds the dead letter of one command, and what its record says, in one look.
-- KEYS: 1 dead, 2 records
-- ARGV: 1 token
-- Returns: {record or '', dead-letter entry id or '', blob or ''}; the last two only while the dead letter is there
local record = redis.call('HGET', KEYS[2], ARGV[1]) or ''
local id = string.match(record, '^X(%d+%-%d+):')
if not id then return { record, '', '' } end
local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
if not entry or entry[2][1] ~= ARGV[1] then return { record, '', '' } end
return { record, id, entry[2][2] }
