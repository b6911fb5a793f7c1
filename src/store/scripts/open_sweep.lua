-- ARGV: sweep. All tasks are there: the scores task gets its ticket. Answers its generation; 0 if the sweep was open, or if its scores task was
-- cancelled while tasks were added (by its owner, or because its time is over); -1 without it.
local sweep = ARGV[1]
local found = redis.call('HMGET', sweep_key(sweep), 'stage', 'scores')
if not found[1] or not found[2] then return -1 end
if found[1] ~= 'creating' then return 0 end
redis.call('HSET', sweep_key(sweep), 'stage', 'scoring')
if redis.call('HGET', task_key(found[2]), 'state') ~= 'pending' then return 0 end
return enqueue(found[2], 'enqueue', true)
