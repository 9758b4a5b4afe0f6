-- Adds crops of one source and drops those beyond the limits of its overflow policy; returns the number dropped.
-- KEYS 3: lease. ARGV: group, lease token, id of this call, capacity (0: unlimited), maximum age in ms of waiting
-- crops (0: unlimited), maximum age in ms of crops in flight, expiry in ms of crops and of counts, then stream_id,
-- crop pairs.
local token, call_id, capacity = ARGV[2], ARGV[3], tonumber(ARGV[4])
local max_age, max_age_in_flight = tonumber(ARGV[5]), tonumber(ARGV[6])

if not owns(KEYS[3], token) then
  return redis.error_reply('LEASE another process captures this source')
end

-- A retry of the same call, because the connection was lost before the first reply arrived.
local last = redis.call('HMGET', counts, 'call', 'call:dropped', 'stream_id')
if last[1] == call_id then
  return tonumber(last[2])
end

local time = redis.call('TIME')
local function id_before(age)
  return string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) - age)
end

local function session_of(stream_id)
  return tonumber(string.match(stream_id, '@(%d+)')) or 0
end

-- Deletes the counts of all sessions before that of `stream_id`, except those with pending crops.
local function delete_counts_before(stream_id)
  local first = session_of(stream_id)
  for _, entry in ipairs(redis.call('XRANGE', crops, '-', '+', 'COUNT', 1)) do
    first = math.min(first, session_of(entry[2][2]))
  end
  for _, field in ipairs(redis.call('HKEYS', counts)) do
    if string.find(field, '@') and session_of(field) < first then
      redis.call('HDEL', counts, field)
    end
  end
end

local dropped = 0
if max_age > 0 then
  dropped = drop('-', id_before(max_age_in_flight), 1000)
end
local last_delivered, in_flight = group_state()
for i = 9, #ARGV, 2 do
  redis.call('XADD', crops, '*', 's', ARGV[i], 'c', ARGV[i + 1])
  redis.call('HINCRBY', counts, ARGV[i] .. ':enqueued', 1)
end
-- XDEL of waiting crops instead of XTRIM, which would delete the crops in flight first because they are the oldest.
if max_age > 0 then
  dropped = dropped + drop('(' .. last_delivered, id_before(max_age), 1000)
end
if capacity > 0 then
  local excess = redis.call('XLEN', crops) - in_flight - capacity
  if excess > 0 then
    dropped = dropped + drop('(' .. last_delivered, '+', excess)
  end
end
local stream_id = ARGV[#ARGV - 1]
if last[3] and last[3] ~= stream_id then
  delete_counts_before(last[3])
end
redis.call('HSET', counts, 'call', call_id, 'call:dropped', dropped, 'stream_id', stream_id)
redis.call('PEXPIRE', crops, ARGV[7])
redis.call('PEXPIRE', counts, ARGV[8])
return dropped
