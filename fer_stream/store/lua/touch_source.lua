-- Include of all scripts that write data of a source.
local now = tonumber(redis.call('TIME')[1])

-- Registers the source, and removes those not updated for `retention` seconds, of which no data is left.
local function touch_source(sources, source, retention)
  redis.call('ZADD', sources, now, source)
  redis.call('ZREMRANGEBYSCORE', sources, '-inf', '(' .. now - retention)
end
