-- ARGV: sweep, most tasks. After the scores task: pending tasks become runnable, and wait to be chosen for a ticket. Answers how many.
local sweep, released = ARGV[1], 0
if redis.call('HGET', sweep_key(sweep), 'stage') ~= 'ready' then return 0 end
for _, id in ipairs(redis.call('ZRANGE', P .. 'pending:' .. sweep, 0, ARGV[2] - 1)) do
  redis.call('ZREM', P .. 'pending:' .. sweep, id)
  if redis.call('HGET', task_key(id), 'state') == 'pending' then
    enqueue(id, 'enqueue', false)
    released = released + 1
  end
end
return released
