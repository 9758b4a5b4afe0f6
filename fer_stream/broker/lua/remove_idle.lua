-- Removes idle consumers without crops in flight (XGROUP DELCONSUMER would discard those); returns how many.
-- KEYS: crops. ARGV: group, minimum idle time in ms, name of the only consumer to remove ('': any).
local removed = 0
for _, pairs_of_consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local info = {}
  for i = 1, #pairs_of_consumer, 2 do
    info[pairs_of_consumer[i]] = pairs_of_consumer[i + 1]
  end
  if info.pending == 0 and info.idle >= tonumber(ARGV[2]) and (ARGV[3] == '' or ARGV[3] == info.name) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], info.name)
    removed = removed + 1
  end
end
return removed
