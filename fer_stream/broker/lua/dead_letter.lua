-- Moves a crop to the dead letters, without its pixels; returns 1, or 0 if it was acknowledged or dropped before.
-- KEYS: crops, counts, dead. ARGV: group, entry id, stream_id, maximum length, then metadata as field, value pairs.
local id = ARGV[2]
if redis.call('XACK', KEYS[1], ARGV[1], id) == 0 then
  return 0
end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[4], '*', unpack(ARGV, 5))
redis.call('XDEL', KEYS[1], id)
redis.call('HINCRBY', KEYS[2], ARGV[3] .. ':dead', 1)
return 1
