#!lua flags=allow-oom
-- Settles a batch: acknowledgements, events, follow-ups, results, retries and dead letters of one partition, all or nothing.
--
-- A success counts once: XACK == 1 gates everything that it causes, whoever delivers it first. A failure counts only from
-- the consumer that holds the pending entry. Reading and checking come before the first write of each command.
--
-- In an ordered partition everything counts only under the epoch of its lease, and a retry stays in its place: the entry
-- remains pending, and what it has been through is kept beside it under a turn that only grows.
--
-- KEYS: 1 commands, 2 ready, 3 events, 4 dead, 5 records, 6 recordTimes, 7 due, 8 dueBodies, 9 outbox, 10 outboxLast,
--       11 crashes, 12 counter, 13 lease, 14 held, 15 tenantLoads, 16… aggregates
-- ARGV: group, consumer, epoch ('' when the partition is not ordered),
--       n, entry ids of `commands` done without effects…,
--       n, packed: fresh commands of `commands` done with events alone; of each the length of its entry id (1 byte), the id,
--          the number of events (2 bytes, big endian), and each event behind its length (4 bytes),
--       n, per other command done with effects: source (1 commands, 2 ready; 2 also for an ordered one that has a record),
--          entry id, token,
--          index in KEYS of its aggregate (0 none), expected version, token of the command behind it,
--          events to append there…: n, blobs…,
--          n, event blobs…, record ('' none),
--          n, per follow-up: target ('' here, or `<stream>.<partition>`), delay ms (-1 none), blob
--       n, per failure: 'T' retry, 'X' dead letter or the turn of a retry in place, source, entry id, token,
--          delay ms, blob (its trail when in place), record,
--          index in KEYS of its aggregate (0 none), expected version, token of the command behind it
--       '' where no command has a tenant, else two lists (`script-lists.ts`): tenants; and five values for each change of what they
--          have waiting: which verdict it goes with ('e' with events alone, 's' other success, 'f' failure) and its number, number
--          of the tenant, commands, bytes
-- Returns: {acknowledged without effects, per other command with effects a letter, per failure a letter, last event id or '',
--          per command with events alone a letter}
--          letters: '1' applied, '0' was settled before or belongs to another, 'c' version conflict;
--          or 'fenced' when the lease has another epoch: nothing was written
local call, arg, at = redis.call, ARGV, 4
local group, consumer, epoch = arg[1], arg[2], arg[3]
if epoch ~= '' and call('HGET', KEYS[13], 'epoch') ~= epoch then return 'fenced' end
local now
local function nowMs()
  if not now then
    local time = call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return now
end
local function int(n) return string.format('%d', n) end

local function later(delay, token, blob)
  local due = nowMs() + delay
  call('ZADD', KEYS[7], due, token)
  call('HSET', KEYS[8], token, blob)
  return int(due)
end

local function send(target, delay, blob)
  if target ~= '' then
    local id = call('XADD', KEYS[9], '*', 't', target, 'p', call('HGET', KEYS[10], target) or '0-0', 'd', delay, 'b', blob)
    call('HSET', KEYS[10], target, id)
  elseif delay == '-1' then
    call('XADD', KEYS[1], '*', '-', blob)
  else
    local token = 'x' .. int(call('INCR', KEYS[12]))
    call('HSET', KEYS[5], token, 'S' .. later(tonumber(delay), token, blob))
  end
end

-- A race is lost when the aggregate is not what the decision was made on, and the command is still to be settled.
local function isConflict(source, id, aggregate, version, token)
  if aggregate == 0 then return false end
  local tail = call('XREVRANGE', KEYS[aggregate], '+', '-', 'COUNT', 1)[1]
  local same = tail and tail[1] == int(version) .. '-0' and tail[2][1] == token
  if not tail then same = version == 0 end
  return not same and #call('XPENDING', KEYS[source], group, id, id, 1) > 0
end

-- A command may have a crash level that this worker does not know: it was thought dead, and whoever took over may be dead
-- too. So levels go with whatever ends the command; one that is retried keeps its own.
local hasLevels = call('EXISTS', KEYS[11]) == 1
local function forgetLevel(source, id, token)
  if #call('XPENDING', KEYS[source], group, id, id, 1) > 0 then return end
  local record = string.sub(call('HGET', KEYS[5], token) or '', 1, 1)
  if record ~= 'T' and record ~= 'R' then call('HDEL', KEYS[11], token) end
end

local plain, acked = tonumber(arg[at]), 0
if plain > 0 then acked = call('XACK', KEYS[1], group, unpack(arg, at + 1, at + plain)) end
if hasLevels then
  for i = at + 1, at + plain do forgetLevel(1, arg[i], 'e' .. arg[i]) end
end
at = at + 1 + plain

local events, eventCount, lastEvent = {}, 0, ''
local function flushEvents()
  if eventCount > 0 then
    lastEvent = call('XADD', KEYS[3], '*', unpack(events, 1, eventCount))
    events, eventCount = {}, 0
  end
end

local eventful, packed, cut = {}, arg[at + 1], 1
local byte, sub, size = string.byte, string.sub, struct.unpack
for i = 1, tonumber(arg[at]) do
  local idEnd = cut + byte(packed, cut)
  local id = sub(packed, cut + 1, idEnd)
  local token, count = 'e' .. id, byte(packed, idEnd + 1) * 256 + byte(packed, idEnd + 2)
  local isOurs = call('XACK', KEYS[1], group, id) == 1
  cut = idEnd + 3
  for _ = 1, count do
    local length, from = size('>I4', packed, cut)
    cut = from + length
    if isOurs then
      events[eventCount + 1], events[eventCount + 2] = token, sub(packed, from, cut - 1)
      eventCount = eventCount + 2
    end
  end
  eventful[i] = isOurs and '1' or '0'
  if eventCount > 3000 then flushEvents() end
  if hasLevels then forgetLevel(1, id, token) end
end
at = at + 2

local successes, done = {}, tonumber(arg[at])
at = at + 1
for i = 1, done do
  local source, id, token = tonumber(arg[at]), arg[at + 1], arg[at + 2]
  local aggregate, expected, appends = tonumber(arg[at + 3]), tonumber(arg[at + 4]), tonumber(arg[at + 6])
  local conflict = isConflict(source, id, aggregate, expected, arg[at + 5])
  local appendAt = at + 7
  local eventAt = appendAt + appends + 1
  local count = tonumber(arg[eventAt - 1])
  local record = arg[eventAt + count]
  local sends = tonumber(arg[eventAt + count + 1])
  at = eventAt + count + 2
  local sendAt = at
  at = at + 3 * sends
  if conflict then
    successes[i] = 'c'
  elseif call('XACK', KEYS[source], group, id) == 1 then
    successes[i] = '1'
    for j = 0, appends - 1 do
      call('XADD', KEYS[aggregate], int(expected + 1 + j) .. '-0', token, arg[appendAt + j])
    end
    for j = 0, count - 1 do
      events[eventCount + 1], events[eventCount + 2] = token, arg[eventAt + j]
      eventCount = eventCount + 2
    end
    if eventCount > 3000 then flushEvents() end
    if record ~= '' then
      call('HSET', KEYS[5], token, record)
      call('ZADD', KEYS[6], nowMs(), token)
    elseif source == 2 then
      call('HDEL', KEYS[5], token)
    end
    if source == 2 and epoch ~= '' then call('HDEL', KEYS[14], id) end
    for j = 0, sends - 1 do send(arg[sendAt + 3 * j], arg[sendAt + 3 * j + 1], arg[sendAt + 3 * j + 2]) end
    if hasLevels then call('HDEL', KEYS[11], token) end
  else
    successes[i] = '0'
    if hasLevels then forgetLevel(source, id, token) end
  end
end
flushEvents()

local failures, moves = {}, tonumber(arg[at])
at = at + 1
for i = 1, moves do
  local move, source, id, token = arg[at], tonumber(arg[at + 1]), arg[at + 2], arg[at + 3]
  local delay, blob, record = tonumber(arg[at + 4]), arg[at + 5], arg[at + 6]
  local conflict = isConflict(source, id, tonumber(arg[at + 7]), tonumber(arg[at + 8]), arg[at + 9])
  at = at + 10
  local pending = call('XPENDING', KEYS[source], group, id, id, 1)
  local mine = pending[1] and pending[1][2] == consumer
  if conflict then
    failures[i] = 'c'
  elseif mine and move ~= 'T' and move ~= 'X' then
    failures[i] = '1'
    local kept = call('HGET', KEYS[14], id)
    if not kept or tonumber(string.match(kept, '^%d+:(%d+)')) < tonumber(move) then
      local due = int(nowMs() + delay)
      call('HSET', KEYS[14], id, due .. ':' .. move .. ':' .. blob)
      call('HSET', KEYS[5], token, 'T' .. due .. ':' .. record)
    end
  elseif mine and call('XACK', KEYS[source], group, id) == 1 then
    failures[i] = '1'
    if move == 'T' then
      call('HSET', KEYS[5], token, 'T' .. later(delay, token, blob) .. ':' .. record)
    else
      local letter = call('XADD', KEYS[4], '*', token, blob)
      call('HSET', KEYS[5], token, 'X' .. letter .. ':' .. record)
      if epoch ~= '' then call('HDEL', KEYS[14], id) end
      if hasLevels then call('HDEL', KEYS[11], token) end
    end
  else
    failures[i] = '0'
  end
end
if arg[at] ~= '' then
  local names, rows = unpack(cmsgpack.unpack(arg[at]))
  local verdicts, changes = { e = eventful, s = successes, f = failures }, {}
  for i = 1, #rows, 5 do
    if verdicts[rows[i]][tonumber(rows[i + 1])] == '1' then
      local tenant = names[tonumber(rows[i + 2])]
      local change = changes[tenant] or { 0, 0 }
      change[1], change[2] = change[1] + tonumber(rows[i + 3]), change[2] + tonumber(rows[i + 4])
      changes[tenant] = change
    end
  end
  -- Nobody has less than nothing, nor bytes without commands: then it was wrong before, and is counted again.
  for tenant, change in pairs(changes) do
    local count = call('HINCRBY', KEYS[15], tenant, change[1])
    local bytes = call('HINCRBY', KEYS[15], tenant .. '/b', change[2])
    if count <= 0 or bytes <= 0 then
      call('HDEL', KEYS[15], tenant, tenant .. '/b')
      if count ~= 0 or bytes ~= 0 then call('HSET', KEYS[15], '!', '1') end
    end
  end
end
return { acked, table.concat(successes), table.concat(failures), lastEvent, table.concat(eventful) }
