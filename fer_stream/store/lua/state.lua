-- Replaces the state of one camera. KEYS: state, sources. ARGV: source, keep source s, keep state ms, then field and
-- value in turn.
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
heard_of(KEYS[2], ARGV[1], tonumber(ARGV[2]))
