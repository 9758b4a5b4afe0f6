-- Include of the scripts that change the crops of one source. KEYS 1 and 2: crops, counts; ARGV 1: group.
local crops, counts, group = KEYS[1], KEYS[2], ARGV[1]

-- Returns the last delivered id and the number of crops in flight. Creates the stream and the group if missing.
local function group_state()
  if redis.call('EXISTS', crops) == 1 then
    for _, pairs_of_group in ipairs(redis.call('XINFO', 'GROUPS', crops)) do
      local info = {}
      for i = 1, #pairs_of_group, 2 do
        info[pairs_of_group[i]] = pairs_of_group[i + 1]
      end
      if info.name == group then
        return info['last-delivered-id'], info.pending
      end
    end
  end
  redis.call('XGROUP', 'CREATE', crops, group, '0', 'MKSTREAM')
  return '0-0', 0
end

-- Drops up to `limit` crops of a range of ids. Crops in flight are acknowledged too, so that a later
-- acknowledgement finds nothing: a crop is counted here or there, never twice.
local function drop(first, last, limit)
  local dropped = redis.call('XRANGE', crops, first, last, 'COUNT', limit)
  for _, entry in ipairs(dropped) do
    redis.call('XACK', crops, group, entry[1])
    redis.call('XDEL', crops, entry[1])
    redis.call('HINCRBY', counts, entry[2][2] .. ':dropped', 1)
  end
  return #dropped
end
