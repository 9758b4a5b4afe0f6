-- Head of the scripts that write about a source.
local now = tonumber(redis.call('TIME')[1])

-- Lists the source, and strikes off those of which nothing was heard for `keep` seconds: nothing is left of them.
local function heard_of(sources, source, keep)
  redis.call('ZADD', sources, now, source)
  redis.call('ZREMRANGEBYSCORE', sources, '-inf', '(' .. now - keep)
end
