-- Adds crops of one source and drops what its policy does not keep; returns how many were dropped.
-- KEYS 3: lease. ARGV: group, lease token, push, capacity (0: drop nothing), max age ms (0: any age),
-- max age in work ms, crops expire ms, counts expire ms, then stream_id and crop in turn.
local token, push, capacity = ARGV[2], ARGV[3], tonumber(ARGV[4])
local max_age, max_age_in_work = tonumber(ARGV[5]), tonumber(ARGV[6])

if not owns(KEYS[3], token) then
  return redis.error_reply('LEASE another process captures this source now')
end

-- The same push again: the reply to the first one was lost with the connection.
local last = redis.call('HMGET', counts, 'push', 'push:dropped', 'stream')
if last[1] == push then
  return tonumber(last[2])
end

local time = redis.call('TIME')
local function id_before(age)
  return string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) - age)
end

local function epoch_of(stream)
  return tonumber(string.match(stream, '@(%d+)')) or 0
end

-- Forgets the counts of the epochs before that of `stream` of which nothing is open.
local function forget_epochs_before(stream)
  local first = epoch_of(stream)
  for _, entry in ipairs(redis.call('XRANGE', crops, '-', '+', 'COUNT', 1)) do
    first = math.min(first, epoch_of(entry[2][2]))
  end
  for _, field in ipairs(redis.call('HKEYS', counts)) do
    if string.find(field, '@') and epoch_of(field) < first then
      redis.call('HDEL', counts, field)
    end
  end
end

local dropped = 0
if max_age > 0 then
  dropped = drop('-', id_before(max_age_in_work), 1000)
end
local delivered, in_work = taken()
for i = 9, #ARGV, 2 do
  redis.call('XADD', crops, '*', 's', ARGV[i], 'c', ARGV[i + 1])
  redis.call('HINCRBY', counts, ARGV[i] .. ':put', 1)
end
-- XDEL of what waits instead of XTRIM: that would take the crops in work first, being the oldest.
if max_age > 0 then
  dropped = dropped + drop('(' .. delivered, id_before(max_age), 1000)
end
if capacity > 0 then
  local excess = redis.call('XLEN', crops) - in_work - capacity
  if excess > 0 then
    dropped = dropped + drop('(' .. delivered, '+', excess)
  end
end
local stream = ARGV[#ARGV - 1]
if last[3] and last[3] ~= stream then
  forget_epochs_before(last[3])
end
redis.call('HSET', counts, 'push', push, 'push:dropped', dropped, 'stream', stream)
redis.call('PEXPIRE', crops, ARGV[7])
redis.call('PEXPIRE', counts, ARGV[8])
return dropped
