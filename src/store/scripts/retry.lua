-- ARGV: sweep, place to begin at, most tasks. Failed tasks can be worked on again, from nothing; those that were given up with a failed scores task wait
-- for it once more. Nothing in a cancelled sweep. Answers {tasks changed, place to go on at or -1}.
local sweep, begin, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local changed = 0
local ids = redis.call('ZRANGE', P .. 'tasks:' .. sweep, begin, begin + most - 1)
if order_of(sweep) ~= 'cancel' then
  for _, id in ipairs(ids) do
    local found = redis.call('HMGET', task_key(id), 'state', 'scores', 'order')
    if found[1] == 'failed' then
      revive(sweep)
      redis.call('HDEL', task_key(id), 'cause', 'reached')
      forget_rungs(id)
      redis.call('HSET', task_key(id), 'crashes', 0)
      -- The scores task is what all others wait for: it does not wait to be chosen.
      enqueue(id, 'enqueue', found[2] == '1')
      event(id, 'retried')
      changed = changed + 1
    elseif found[1] == 'cancelled' then
      revive(sweep)
      redis.call('HDEL', task_key(id), 'reached')
      step(id, 'restore')
      forget_rungs(id)
      if found[2] ~= '1' then redis.call('ZADD', P .. 'pending:' .. sweep, found[3], id) end
      event(id, 'retried')
      changed = changed + 1
    end
  end
end
return {changed, #ids == most and begin + most or -1}
