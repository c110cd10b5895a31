/**
 * Scripts that look into Redis beside the code under test. They decode entries by themselves (header, JSON, msgpack),
 * so that what is counted does not pass through what is judged. All answers are ASCII.
 */

/** Takes a blob apart: type, payload, trail. */
const DECODE = `
local function decode(blob)
  local codec, flags, length = string.byte(blob, 2), string.byte(blob, 3), string.byte(blob, 12)
  local kind, at, trail = string.sub(blob, 13, 12 + length), 13 + length, nil
  if bit.band(flags, 32) ~= 0 then at = at + 1 + string.byte(blob, at) end
  if bit.band(flags, 1) ~= 0 then at = at + 1 + string.byte(blob, at) end
  if bit.band(flags, 2) ~= 0 then at = at + 25 end
  if bit.band(flags, 4) ~= 0 then at = at + 6 end
  if bit.band(flags, 8) ~= 0 then
    local size = string.byte(blob, at) * 256 + string.byte(blob, at + 1)
    trail = cmsgpack.unpack(string.sub(blob, at + 2, at + 1 + size))
    at = at + 2 + size
  end
  local unpackPayload = codec == 2 and cjson.decode or cmsgpack.unpack
  return kind, unpackPayload(string.sub(blob, at)), trail
end
`

/**
 * A page of an event log.
 * KEYS: 1 events · ARGV: 1 from, 2 most entries
 * Returns: {last entry id, 'token type row key …' for each event}
 */
export const EVENTS: string = `${DECODE}
local out, last = {}, ''
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])) do
  last = entry[1]
  for i = 1, #entry[2], 2 do
    local kind, payload = decode(entry[2][i + 1])
    out[#out + 1] = string.format('%s %s %d %d', entry[2][i], kind, payload.n, payload.k)
  end
end
return { last, table.concat(out, ' ') }`

/**
 * A page of dead letters.
 * KEYS: 1 dead · ARGV: 1 from, 2 most entries
 * Returns: {last entry id, {token, type, row, last error} for each}
 */
export const DEAD: string = `${DECODE}
local out, last = {}, ''
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])) do
  last = entry[1]
  for i = 1, #entry[2], 2 do
    local kind, payload, trail = decode(entry[2][i + 1])
    local failures = trail and trail.failures or {}
    local newest = failures[#failures]
    out[#out + 1] = { entry[2][i], kind, string.format('%d', payload.n), newest and newest.error or '' }
  end
end
return { last, out }`

/**
 * Tokens that one consumer holds, in whatever groups there are.
 * KEYS: 1 commands, 2 ready · ARGV: 1 consumer
 * Returns: tokens, separated by spaces
 */
export const HELD: string = `
local out = {}
for source = 1, 2 do
  if redis.call('EXISTS', KEYS[source]) == 1 then
    for _, list in ipairs(redis.call('XINFO', 'GROUPS', KEYS[source])) do
      for _, row in ipairs(redis.call('XPENDING', KEYS[source], list[2], '-', '+', 10000, ARGV[1])) do
        if source == 1 then out[#out + 1] = 'e' .. row[1] else
          local entry = redis.call('XRANGE', KEYS[2], row[1], row[1])[1]
          if entry then out[#out + 1] = entry[2][1] end
        end
      end
    end
  end
end
return table.concat(out, ' ')`

/**
 * What is still to be done in a partition, and who is known there.
 * KEYS: 1 commands, 2 ready, 3 due, 4 outbox, 5 beats, 6 beats of the first partition, where members of an ordered stream beat
 * Returns: {streams with undelivered entries, pending of all groups, due, outbox, 'consumer pending beat …', length of commands}
 */
export const OPEN: string = `
local undelivered, pending, rows, seen = 0, 0, {}, {}
local function fields(list)
  local map = {}
  for i = 1, #list, 2 do map[list[i]] = list[i + 1] end
  return map
end
local function add(name, count, beat)
  seen[name] = true
  rows[#rows + 1] = name .. ' ' .. count .. ' ' .. (beat or '-')
end
for source = 1, 2 do
  if redis.call('EXISTS', KEYS[source]) == 1 then
    local groups = redis.call('XINFO', 'GROUPS', KEYS[source])
    for _, list in ipairs(groups) do
      local group = fields(list)
      pending = pending + group.pending
      undelivered = undelivered + #redis.call('XRANGE', KEYS[source], '(' .. group['last-delivered-id'], '+', 'COUNT', 1)
      for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[source], group.name)) do
        local consumer = fields(row)
        local beat = redis.call('HGET', KEYS[5], consumer.name) or redis.call('HGET', KEYS[6], consumer.name)
        add(consumer.name, consumer.pending, beat)
      end
    end
    if #groups == 0 then undelivered = undelivered + redis.call('XLEN', KEYS[source]) end
  end
end
local beats = redis.call('HGETALL', KEYS[5])
for i = 1, #beats, 2 do
  if not seen[beats[i]] then add(beats[i], 0, beats[i + 1]) end
end
return { undelivered, pending, redis.call('ZCARD', KEYS[3]), redis.call('XLEN', KEYS[4]), table.concat(rows, ' '),
  redis.call('XLEN', KEYS[1]) }`

/**
 * How many commands came in, and how many are not finished: not given out, or in somebody's hands.
 * KEYS: 1 commands
 * Returns: {ever added, not finished}
 */
export const BACKLOG: string = `
if redis.call('EXISTS', KEYS[1]) == 0 then return { 0, 0 } end
local function fields(list)
  local map = {}
  for i = 1, #list, 2 do map[list[i]] = list[i + 1] end
  return map
end
local stream, unfinished = fields(redis.call('XINFO', 'STREAM', KEYS[1])), 0
for _, list in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = fields(list)
  unfinished = math.max(unfinished, (group.lag or stream.length) + group.pending)
end
return { stream['entries-added'], unfinished }`

/**
 * How far projections are behind.
 * KEYS: 1 events, 2 readers
 * Returns: {last event id, 'reader checkpoint …'}
 */
export const READERS: string = `
local tail = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
return { tail and tail[1] or '0-0', table.concat(redis.call('HGETALL', KEYS[2]), ' ') }`
