-- Creates the stream of a source and its consumer group if they are missing.
-- KEYS: crops, counts. ARGV: group, expiry in ms of a stream to which nothing is added.
group_state()
redis.call('PEXPIRE', crops, ARGV[2], 'NX')
