-- Include of all scripts that write under a lease. The token '' stands for no lease. A script replies
-- error_reply('LEASE …') if `owns` is false, which RedisClient raises as LeaseLost.
local function owns(lease, token)
  return token == '' or redis.call('GET', lease) == token
end
