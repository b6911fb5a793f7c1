-- ARGV: sweep, place of the first task in the sweep, then id, body and '1' for the scores task or '0', of each task.
-- Tasks that are there already are left as they are. Answers the number of tasks that are new; -1 without the sweep, -2 once it is open.
local sweep, order, new = ARGV[1], tonumber(ARGV[2]), 0
local stage = redis.call('HGET', sweep_key(sweep), 'stage')
if not stage then return -1 end
if stage ~= 'creating' then return -2 end
for i = 3, #ARGV, 3 do
  local id = sweep .. '/' .. ARGV[i]
  if redis.call('HSETNX', task_key(id), 'body', ARGV[i + 1]) == 1 then
    redis.call('HSET', task_key(id), 'state', 'pending', 'generation', 0, 'epoch', 0, 'attempts', 0, 'crashes', 0,
      'sequence', 0, 'order', order, 'scores', ARGV[i + 2], 'updated', now)
    redis.call('ZADD', P .. 'tasks:' .. sweep, order, id)
    if ARGV[i + 2] == '1' then
      redis.call('HSET', sweep_key(sweep), 'scores', id)
    else
      redis.call('ZADD', P .. 'pending:' .. sweep, order, id)
    end
    new = new + 1
  end
  order = order + 1
end
redis.call('HINCRBY', P .. 'counts:' .. sweep, 'pending', new)
return new
