-- Replaces the checkpoint of one source and adds segments and gaps, or does nothing if the lease is lost.
-- KEYS: checkpoint, segments, gaps, sources, lease. ARGV: lease token, source, source retention s, id of this commit,
-- position, state, files, checkpoint TTL s, segment retention s, number of segments, then start and end in Unix s and
-- JSON of each segment and of each gap.
local checkpoint, segments, gaps, sources, lease = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local retention = tonumber(ARGV[9])

-- A retry of the same commit, whose reply was lost with the connection.
if redis.call('HGET', checkpoint, 'commit') == ARGV[4] then
  return 0
end
if not owns(lease, ARGV[1]) then
  return redis.error_reply('LEASE another process writes the timeline of this source now')
end

-- The score of a span is its end. The longest duration, in whole seconds, limits the search for spans that overlap a
-- time range.
local function add(spans, longest, first, last)
  local seconds = tonumber(redis.call('HGET', checkpoint, longest) or 0)
  for i = first, last, 3 do
    redis.call('ZADD', spans, ARGV[i + 1], ARGV[i + 2])
    seconds = math.max(seconds, math.ceil(ARGV[i + 1] - ARGV[i]))
  end
  redis.call('HSET', checkpoint, longest, seconds)
  redis.call('ZREMRANGEBYSCORE', spans, '-inf', '(' .. now - retention)
  redis.call('EXPIRE', spans, retention)
end

local first_gap = 11 + 3 * tonumber(ARGV[10])
add(segments, 'longest_segments_s', 11, first_gap - 1)
add(gaps, 'longest_gaps_s', first_gap, #ARGV)
redis.call('HSET', checkpoint, 'commit', ARGV[4], 'position', ARGV[5], 'state', ARGV[6], 'files', ARGV[7])
redis.call('EXPIRE', checkpoint, ARGV[8])
touch_source(sources, ARGV[2], tonumber(ARGV[3]))
return 1
