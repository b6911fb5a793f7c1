-- ARGV: sweep. Its search opens no more tasks. Answers 1; 0 if it had said so before, or there is
-- no such sweep.
local sweep = ARGV[1]
if tonumber(redis.call('HGET', sweep_key(sweep), 'task_limit') or '0') == 0 then return 0 end
redis.call('HSET', sweep_key(sweep), 'task_limit', 0)
return 1
