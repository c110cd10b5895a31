#!lua flags=allow-oom
-- Takes a lease that is free, or whose holder's state is still what the caller judged silent: compare-and-set on all of it.
-- No clock decides: the server's (in microseconds) only lifts the epoch, so that it grows even when takes were lost with it.
-- Asking again after a lost answer finds the lease taken already, and beats once, because trust runs from this request.
-- KEYS: 1 lease
-- ARGV: 1 me, 2 my takeover time in ms, 3 owner, 4 epoch and 5 beat that fell silent ('' take only what is free)
-- Returns: {'1' mine or '0', owner, epoch, beat, takeover time of the owner}
local call = redis.call
local function int(n) return string.format('%d', n) end
local owner, epoch, beat, takeover = unpack(call('HMGET', KEYS[1], 'owner', 'epoch', 'beat', 'takeover'))
if owner == ARGV[1] then
  return { '1', owner, epoch, int(call('HINCRBY', KEYS[1], 'beat', 1)), takeover }
end
local free = not owner or owner == ''
if not free and not (owner == ARGV[3] and epoch == ARGV[4] and beat == ARGV[5]) then
  return { '0', owner, epoch, beat, takeover }
end
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
epoch = int(math.max(tonumber(epoch or '0') + 1, now))
call('HSET', KEYS[1], 'owner', ARGV[1], 'epoch', epoch, 'beat', '0', 'takeover', ARGV[2])
return { '1', ARGV[1], epoch, '0', ARGV[2] }
