-- Makes room at the memory limit: drops the older half of what waits, at least ARGV 2 crops; returns how many.
local delivered, in_work = taken()
local half = math.ceil((redis.call('XLEN', crops) - in_work) / 2)
return drop('(' .. delivered, '+', math.max(half, tonumber(ARGV[2])))
