-- Acquires or extends a lease; returns 1, or 0 if another owner holds it. A later generation of the same owner
-- replaces an earlier one. KEYS: lease. ARGV: token NAME:GENERATION:UNIQUE, TTL in ms, owner name, generation.
local token = redis.call('GET', KEYS[1])
if token and token ~= ARGV[1] then
  local name, generation = string.match(token, '^(.+):(%d+):')
  if name ~= ARGV[3] or tonumber(generation) >= tonumber(ARGV[4]) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
