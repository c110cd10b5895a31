#!lua flags=no-writes
-- One look at a partition for people and metrics: how much waits, is in hand and is dead, and since when.
-- KEYS: 1 commands, 2 ready (of an unordered stream), 3 due, 4 dead, 5 events, 6 outbox, 7 lease, 8 held
-- ARGV: 1 group
-- Returns: {now ms, due, dead, events, outbox, commands row, ready row, consumers, owner or '', epoch or '', held, overdue}
--          row: {entries, pending, lag or -1 when Redis does not know, first entry id not yet read or '', first pending id or ''}
--          consumers: name, pending in commands, pending in ready, idle ms for each
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function fields(info)
  local map = {}
  for i = 1, #info, 2 do map[info[i]] = info[i + 1] end
  return map
end
local consumers, order = {}, {}
local function look(key, slot)
  local row = { redis.call('XLEN', key), 0, 0, '', '' }
  if redis.call('EXISTS', key) == 0 then return row end
  local last = '0-0'
  row[3] = row[1]
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    local group = fields(info)
    if group.name == ARGV[1] or string.find(group.name, '^o%d+$') then
      last = group['last-delivered-id']
      row[2], row[3] = group.pending, group.lag or -1
      row[5] = redis.call('XPENDING', key, group.name)[2] or ''
      for _, each in ipairs(redis.call('XINFO', 'CONSUMERS', key, group.name)) do
        local consumer = fields(each)
        local seen = consumers[consumer.name]
        if not seen then
          seen = { consumer.name, 0, 0, consumer.idle }
          consumers[consumer.name] = seen
          order[#order + 1] = seen
        end
        seen[slot] = consumer.pending
        seen[4] = math.min(seen[4], consumer.idle)
      end
    end
  end
  local first = redis.call('XRANGE', key, '(' .. last, '+', 'COUNT', 1)
  if first[1] then row[4] = first[1][1] end
  return row
end
return {
  now,
  redis.call('ZCARD', KEYS[3]), redis.call('XLEN', KEYS[4]), redis.call('XLEN', KEYS[5]), redis.call('XLEN', KEYS[6]),
  look(KEYS[1], 2), look(KEYS[2], 3), order,
  redis.call('HGET', KEYS[7], 'owner') or '', redis.call('HGET', KEYS[7], 'epoch') or '', redis.call('HLEN', KEYS[8]),
  redis.call('ZCOUNT', KEYS[3], '-inf', now),
}
