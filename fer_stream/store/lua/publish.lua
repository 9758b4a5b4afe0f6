-- Adds frames to the results of one source and makes the last one its latest; returns the number of new frames.
-- KEYS: results, latest, sources, lease. ARGV: lease token, source, source retention s, maximum length, maximum age s,
-- then session start in Unix ms, index, Unix time and JSON of each frame.
local results, latest, sources, lease = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local max_age = tonumber(ARGV[5])

if not owns(lease, ARGV[1]) then
  return redis.error_reply('LEASE another process writes the timeline of this source now')
end

-- Returns session start and index of the newest result ever added, even if it was trimmed or erased since.
local function newest()
  if redis.call('EXISTS', results) == 1 then
    local info = redis.call('XINFO', 'STREAM', results)
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then
        local session, index = string.match(info[i + 1], '(%d+)-(%d+)')
        return tonumber(session), tonumber(index)
      end
    end
  end
  return 0, 0
end

-- Deletes old results. MINID cannot be used, because an id contains the session start, not the age. Reads `chunk`
-- entries, and more while all of them are old.
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

local newest_session, newest_index = newest()
local added = 0
for i = 6, #ARGV, 4 do
  local session, index = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  -- Other frames were published before, by this process or by the one whose checkpoint it continues.
  if session > newest_session or (session == newest_session and index > newest_index) then
    local id = ARGV[i] .. '-' .. ARGV[i + 1]
    redis.call('XADD', results, 'MAXLEN', '~', ARGV[4], id, 'at', ARGV[i + 2], 'frame', ARGV[i + 3])
    redis.call('HSET', latest, 'id', id, 'at', ARGV[i + 2], 'frame', ARGV[i + 3])
    newest_session, newest_index, added = session, index, added + 1
  end
end
if added > 0 then
  trim(added + 1)
  redis.call('EXPIRE', results, max_age)
  redis.call('EXPIRE', latest, max_age)
  touch_source(sources, ARGV[2], tonumber(ARGV[3]))
end
return added
