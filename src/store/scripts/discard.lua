-- ARGV: sweep, most tasks. Removes so many tasks of a sweep, whatever their states, and with the last one what is left of the sweep. No record of it is
-- read as more than it must be. Answers the number of tasks left.
local sweep, most = ARGV[1], tonumber(ARGV[2])
guarded(leave_ended, sweep)
redis.call('ZREM', P .. 'ended', sweep)
local tasks = P .. 'tasks:' .. sweep
local ids = guarded(function() return redis.call('ZRANGE', tasks, 0, most - 1) end) or {}
for _, id in ipairs(ids) do
  local generation = guarded(function() return redis.call('HGET', task_key(id), 'generation') end)
  if generation then
    redis.call('ZREM', P .. 'outbox', member(id, generation))
    redis.call('ZREM', P .. 'outstanding', member(id, generation))
  end
  redis.call('ZREM', P .. 'leases', id)
  redis.call('ZREM', tasks, id)
  redis.call('DEL', task_key(id), P .. 'checkpoint:' .. id, P .. 'result:' .. id, P .. 'coefficients:' .. id, P .. 'events:' .. id)
end
local left = guarded(function() return redis.call('ZCARD', tasks) end) or 0
if left == 0 then
  local request = guarded(function() return redis.call('HGET', sweep_key(sweep), 'request') end)
  if request and request ~= '' then redis.call('HDEL', P .. 'requests', request) end
  redis.call('ZREM', P .. 'sweeps', sweep)
  redis.call('SREM', P .. 'live', sweep)
  redis.call('DEL', sweep_key(sweep), bodies_key(sweep), tasks, P .. 'counts:' .. sweep, P .. 'pending:' .. sweep,
    P .. 'ready:' .. sweep, P .. 'delayed:' .. sweep, P .. 'running:' .. sweep,
    P .. 'units:' .. sweep, P .. 'unit-costs:' .. sweep)
end
return left
