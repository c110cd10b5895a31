#!lua flags=allow-oom
-- Takes tokens from a token bucket. What processes hold in advance counts as still in the bucket when it fills, and is not
-- there to take: held and free together never exceed the burst, so the division among processes lets nothing more through.
-- KEYS: 1 bucket (hash: `level`, `at`; per holder `<tokens> <until µs>`)
-- ARGV: 1 burst, 2 tokens per µs, 3 holder, 4 of its tokens used since, 5 of them kept, 6 taken before and not used,
--       7 needed now, 8 wished beside, 9 ms for which a silent holder keeps its tokens, 10 largest single need,
--       11 '1' when what is needed now counts as used, '' when the holder tells it later
-- Returns: {granted, free after, ms until one more is there (0: full), ms until the largest need is there}
local call = redis.call
local burst, rate, me = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local used, kept, back = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local need, wish, holdMs, largest = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local time = call('TIME')
local now = time[1] * 1000000 + time[2]

local level, at, mine, others, gone = burst, now, 0, 0, {}
local flat = call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do
  local field, value = flat[i], flat[i + 1]
  if field == 'level' then level = tonumber(value)
  elseif field == 'at' then at = tonumber(value)
  else
    local tokens, untilUs = string.match(value, '^(%d+) (%d+)$')
    tokens, untilUs = tonumber(tokens), tonumber(untilUs)
    if field == me then mine = tokens
    elseif untilUs < now then gone[#gone + 1] = field
    else others = others + tokens end
  end
end
level = math.min(burst - others - mine, level + math.max(0, now - at) * rate)
used = math.min(used, mine)
kept = math.min(kept, mine - used)
level = math.min(burst - others - kept, level + (mine - used - kept) + back)

local free = math.floor(level)
local needed = math.min(need, free)
-- One that wants all or nothing gets nothing, rather than what it would have to give back.
if need == largest and free < need then needed = 0 end
-- Beside what is waited for, only a part of the rest: when little is left, it goes to whoever uses it first.
local granted = needed + math.min(wish, math.ceil((free - needed) / 4))
level = level - granted
local held = kept + granted
if ARGV[11] == '1' then held = held - needed end
for _, field in ipairs(gone) do call('HDEL', KEYS[1], field) end
call('HSET', KEYS[1], 'level', string.format('%.6f', level), 'at', string.format('%d', now))
if held > 0 then call('HSET', KEYS[1], me, string.format('%d %d', held, now + holdMs * 1000))
else call('HDEL', KEYS[1], me) end
call('PEXPIRE', KEYS[1], math.ceil((burst - level) / rate / 1000) + holdMs)

local function untilThere(tokens)
  if tokens <= level then return 0 end
  return math.ceil((tokens - level) / rate / 1000)
end
local nextMs = 0
if math.floor(level) < burst then nextMs = untilThere(math.floor(level) + 1) end
return { granted, math.floor(level), nextMs, untilThere(largest) }
