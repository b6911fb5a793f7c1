-- ARGV: sweep, 'cancel' | 'pause' | 'resume'. Answers 1; 0 without the sweep, -1 if it is cancelled.
local sweep, what = ARGV[1], ARGV[2]
local cancelled = redis.call('HGET', sweep_key(sweep), 'cancelled')
if not cancelled then return 0 end
if what == 'cancel' then
  redis.call('HSET', sweep_key(sweep), 'cancelled', '1')
elseif cancelled == '1' then
  return -1
else
  redis.call('HSET', sweep_key(sweep), 'paused', what == 'pause' and '1' or '0')
end
return 1
