-- Appends messages to the journal of one source.
-- KEYS: predictions, lease. ARGV: lease token, expiry in ms, then one message each.
if not owns(KEYS[2], ARGV[1]) then
  return redis.error_reply('LEASE another process captures this source')
end
for i = 3, #ARGV do
  redis.call('XADD', KEYS[1], '*', 'm', ARGV[i])
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
