-- Extends a lease; returns 1, or 0 if it expired or has another owner. KEYS: lease. ARGV: token, TTL in ms.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
