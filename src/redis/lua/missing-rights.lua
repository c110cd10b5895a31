#!lua flags=no-writes,allow-oom
-- Asks the server's access list which of the commands that Millrace sends this user may not send; runs none of them.
-- KEYS: none
-- ARGV: 1 a key of ours, 2 a channel of ours, 3 '1' when appends wait for replicas
-- Returns: {name, ...} of what is missing, such as 'time' or 'client|kill'
local key, channel = ARGV[1], ARGV[2]
local missing = {}
local commands = {
  { 'get', key },
  { 'set', key, '' },
  { 'xadd', key, '*', 'f', 'v' },
  { 'xreadgroup', 'GROUP', 'g', 'c', 'STREAMS', key, '>' },
  { 'publish', channel, '' },
  { 'subscribe', channel },
  { 'time' },
  { 'eval', '', '0' },
  { 'evalsha', '', '0' },
  { 'client|id', 'client', 'id' },
  { 'client|kill', 'client', 'kill', 'ID', '1' },
  { 'client|unblock', 'client', 'unblock', '1' },
}
if ARGV[3] == '1' then commands[#commands + 1] = { 'wait', '1', '1' } end
for _, command in ipairs(commands) do
  local name = command[1]
  if string.find(name, '|', 1, true) then table.remove(command, 1) end
  if not redis.acl_check_cmd(unpack(command)) then missing[#missing + 1] = name end
end
return missing
