-- Replaces the state of one camera. KEYS: state, sources. ARGV: source, source retention s, state TTL ms, then
-- alternating field and value.
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
touch_source(KEYS[2], ARGV[1], tonumber(ARGV[2]))
