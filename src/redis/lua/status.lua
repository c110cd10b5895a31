#!lua flags=no-writes
-- Tells from positions and side records what became of a command, in one look.
-- KEYS: 1 commands, 2 ready, 3 records, 4 floors, 5 counter, 6 events
-- An ordered partition has one group too, named by its epoch, and keeps ready commands among the others.
-- ARGV: 1 group, 2 token
-- Returns: {state, detail, last event id}; states: scheduled, retrying, accepted, processing, done, dead, cancelled,
--          expired (the record is no longer kept), lost; detail is the record after its letter
local token = ARGV[2]
local record = redis.call('HGET', KEYS[3], token) or ''
local letter, detail = string.sub(record, 1, 1), string.sub(record, 2)

local function fields(info)
  local map = {}
  for i = 1, #info, 2 do map[info[i]] = info[i + 1] end
  return map
end
local function lastId(key)
  if redis.call('EXISTS', key) == 0 then return '0-0' end
  return fields(redis.call('XINFO', 'STREAM', key))['last-generated-id']
end
local function groupOf(key)
  if redis.call('EXISTS', key) == 0 then return nil end
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    local group = fields(info)
    if group.name == ARGV[1] or string.find(group.name, '^o%d+$') then return group end
  end
end
local function newer(a, b)
  local aMs, aSeq = string.match(a, '^(%d+)-(%d+)$')
  local bMs, bSeq = string.match(b, '^(%d+)-(%d+)$')
  aMs, aSeq, bMs, bSeq = tonumber(aMs), tonumber(aSeq), tonumber(bMs), tonumber(bSeq)
  return aMs > bMs or (aMs == bMs and aSeq > bSeq)
end
local function isThere(key, id) return #redis.call('XRANGE', key, id, id) > 0 end
local function byPosition(key, id)
  local group = groupOf(key)
  if newer(id, lastId(key)) then return 'lost' end
  if not group or newer(id, group['last-delivered-id']) then return isThere(key, id) and 'accepted' or 'lost' end
  if #redis.call('XPENDING', key, group.name, id, id, 1) > 0 then return isThere(key, id) and 'processing' or 'lost' end
  return 'done'
end
-- Ranges of ids that a crash or a failover took away: pairs of from (exclusive) and to (inclusive).
local function wasLost(id)
  for from, to in string.gmatch(redis.call('HGET', KEYS[4], 'lost') or '', '(%S+) (%S+)') do
    if newer(id, from) and not newer(id, to) then return true end
  end
  return false
end

local state
if letter == 'D' then state = 'done'
elseif letter == 'X' then state = 'dead'
elseif letter == 'C' then state = 'cancelled'
elseif letter == 'S' then state = 'scheduled'
elseif letter == 'T' then state = 'retrying'
elseif letter == 'L' then state = 'lost'
elseif letter == 'R' then
  -- Whoever settles a copy replaces this record: one that names a copy nobody has any more tells of a loss.
  local copies = redis.call('EXISTS', KEYS[2]) == 1 and KEYS[2] or KEYS[1]
  state = byPosition(copies, string.match(detail, '^(%d+%-%d+)'))
  if state == 'done' then state = 'lost' end
elseif string.sub(token, 1, 1) == 'x' then
  local number = tonumber(string.sub(token, 2))
  if number <= tonumber(redis.call('HGET', KEYS[4], 'counter') or '0') then state = 'expired'
  else state = 'lost' end
else
  local id = string.sub(token, 2)
  local floor = redis.call('HGET', KEYS[4], 'records') or '0'
  state = byPosition(KEYS[1], id)
  if state == 'done' and wasLost(id) then state = 'lost' end
  -- What still waits or runs is no older than its end; of the others, the record may have been dropped.
  local isOpen = state == 'accepted' or state == 'processing'
  if not isOpen and tonumber(string.match(id, '^%d+')) < tonumber(floor) then state = 'expired' end
end
return { state, detail, lastId(KEYS[6]) }
