#!lua flags=allow-oom
-- Deletes finished entries that one old pending entry keeps from being trimmed: what lies between the oldest pending entry and
-- the last delivered one, and is itself not pending. Only what the group was given and has acknowledged is touched.
-- KEYS: 1 commands or ready
-- ARGV: 1 group (an ordered partition has one named by its epoch), 2 go on after this pending id ('' from the oldest), 3 delete nothing while the stream has at most so many
--       finished entries, 4 most entries to delete
-- Returns: {deleted, pending id to go on after, or '' when the last delivered entry was reached}
local PAGE, STEP, BYTES_MAX = 100, 50, 4194304
local key, group = KEYS[1], ARGV[1]
if redis.call('EXISTS', key) == 0 then return { 0, '' } end
local delivered
for _, info in ipairs(redis.call('XINFO', 'GROUPS', key)) do
  local map = {}
  for i = 1, #info, 2 do map[info[i]] = info[i + 1] end
  if map.name == ARGV[1] or string.find(map.name, '^o%d+$') then group, delivered = map.name, map['last-delivered-id'] end
end
if not delivered then return { 0, '' } end
local pendingCount = redis.call('XPENDING', key, group)[1]
if pendingCount == 0 then return { 0, '' } end
if redis.call('XLEN', key) - pendingCount <= tonumber(ARGV[3]) then return { 0, '' } end
local most, deleted, bytes = tonumber(ARGV[4]), 0, 0
local from = ARGV[2] == '' and '-' or ARGV[2]
local page = redis.call('XPENDING', key, group, from, '+', PAGE)
local isLast = #page < PAGE
local after
for i = 1, #page do
  after = page[i][1]
  local to = page[i + 1] and '(' .. page[i + 1][1] or delivered
  -- What lies behind the last pending entry of a full page belongs to the next page.
  if i == #page and not isLast then return { deleted, after } end
  while true do
    local entries = redis.call('XRANGE', key, '(' .. after, to, 'COUNT', STEP)
    if #entries == 0 then break end
    local ids = {}
    for j, entry in ipairs(entries) do
      ids[j] = entry[1]
      bytes = bytes + #entry[2][2]
    end
    redis.call('XDEL', key, unpack(ids))
    deleted = deleted + #ids
    if deleted >= most or bytes >= BYTES_MAX then return { deleted, after } end
    if #entries < STEP then break end
  end
end
return { deleted, '' }
