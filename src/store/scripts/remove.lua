-- ARGV: sweep, most tasks. Removes so many tasks of a sweep whose tasks are all final, and the sweep with the last one.
-- Answers the number of tasks left; -1 if some are not final, or its search may open more.
local sweep = ARGV[1]
local counts = redis.call('HGETALL', P .. 'counts:' .. sweep)
if redis.call('HGET', sweep_key(sweep), 'stage') == 'creating' or takes_tasks(sweep) then return -1 end
for i = 1, #counts, 2 do
  local state = counts[i]
  if not FINAL[state] and tonumber(counts[i + 1]) > 0 then return -1 end
end
leave_ended(sweep)
for _, id in ipairs(redis.call('ZRANGE', P .. 'tasks:' .. sweep, 0, ARGV[2] - 1)) do
  local state = redis.call('HGET', task_key(id), 'state')
  redis.call('HINCRBY', P .. 'counts:' .. sweep, state, -1)
  redis.call('ZREM', P .. 'tasks:' .. sweep, id)
  redis.call('HDEL', bodies_key(sweep), id)
  redis.call('DEL', task_key(id), P .. 'checkpoint:' .. id, P .. 'result:' .. id, P .. 'coefficients:' .. id, P .. 'events:' .. id)
end
local left = redis.call('ZCARD', P .. 'tasks:' .. sweep)
if left == 0 then
  local request = redis.call('HGET', sweep_key(sweep), 'request')
  if request and request ~= '' then redis.call('HDEL', P .. 'requests', request) end
  redis.call('ZREM', P .. 'sweeps', sweep)
  redis.call('SREM', P .. 'live', sweep)
  redis.call('DEL', sweep_key(sweep), P .. 'counts:' .. sweep, P .. 'pending:' .. sweep, P .. 'ready:' .. sweep, P .. 'delayed:' .. sweep, P .. 'running:' .. sweep, P .. 'units:' .. sweep, P .. 'unit-costs:' .. sweep)
end
return left
