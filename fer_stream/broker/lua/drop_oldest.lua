-- Frees memory: drops the older half of the waiting crops, but at least `minimum`; returns the number dropped.
-- KEYS: crops, counts. ARGV: group, minimum.
local last_delivered, in_flight = group_state()
local half = math.ceil((redis.call('XLEN', crops) - in_flight) / 2)
return drop('(' .. last_delivered, '+', math.max(half, tonumber(ARGV[2])))
