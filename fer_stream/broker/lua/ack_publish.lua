-- Publishes predictions, and acknowledges and deletes their crops; returns the number published.
-- KEYS: crops, predictions, counts of each source. ARGV: group, then for each delivery the index of its source
-- (from 0), entry id, stream_id, prediction.
local published = 0
for i = 2, #ARGV, 4 do
  local source, id, stream_id = 3 * tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
  -- XACK returns 1 exactly once per crop, whichever consumer calls it, so nothing is published twice.
  if redis.call('XACK', KEYS[source + 1], ARGV[1], id) == 1 then
    redis.call('XADD', KEYS[source + 2], '*', 'm', ARGV[i + 3])
    redis.call('XDEL', KEYS[source + 1], id)
    redis.call('HINCRBY', KEYS[source + 3], stream_id .. ':acked', 1)
    published = published + 1
  end
end
return published
