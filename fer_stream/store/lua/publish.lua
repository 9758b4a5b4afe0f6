-- Adds frames to the results of one source and makes the last one its latest; returns how many were new.
-- KEYS: results, latest, sources, lease. ARGV: lease token, source, keep source s, longest length, max age s, then
-- epoch in ms, index, Unix time and JSON of each frame.
local results, latest, sources, lease = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local max_age = tonumber(ARGV[5])

if not owns(lease, ARGV[1]) then
  return redis.error_reply('LEASE another process writes the timeline of this source now')
end

-- The id of the newest result that ever was, even if it was trimmed or erased since.
local function newest()
  if redis.call('EXISTS', results) == 1 then
    local info = redis.call('XINFO', 'STREAM', results)
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then
        local epoch, index = string.match(info[i + 1], '(%d+)-(%d+)')
        return tonumber(epoch), tonumber(index)
      end
    end
  end
  return 0, 0
end

-- Ids tell the epoch, not the age, so MINID is of no use. Looks at `chunk` entries, and at more while all are old.
local function trim(chunk)
  for _ = 1, 1000, chunk do
    local oldest = redis.call('XRANGE', results, '-', '+', 'COUNT', chunk)
    for _, entry in ipairs(oldest) do
      if tonumber(entry[2][2]) >= now - max_age then
        return
      end
      redis.call('XDEL', results, entry[1])
    end
    if #oldest < chunk then
      return
    end
  end
end

local epoch, index = newest()
local added = 0
for i = 6, #ARGV, 4 do
  local its_epoch, its_index = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  -- What is not newer was published before, by us or by the process whose checkpoint we began with.
  if its_epoch > epoch or (its_epoch == epoch and its_index > index) then
    local id = ARGV[i] .. '-' .. ARGV[i + 1]
    redis.call('XADD', results, 'MAXLEN', '~', ARGV[4], id, 'at', ARGV[i + 2], 'frame', ARGV[i + 3])
    redis.call('HSET', latest, 'id', id, 'at', ARGV[i + 2], 'frame', ARGV[i + 3])
    epoch, index, added = its_epoch, its_index, added + 1
  end
end
if added > 0 then
  trim(added + 1)
  redis.call('EXPIRE', results, max_age)
  redis.call('EXPIRE', latest, max_age)
  heard_of(sources, ARGV[2], tonumber(ARGV[3]))
end
return added
