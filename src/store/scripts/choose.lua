-- ARGV: tasks. Those that wait for a ticket get one in the outbox. Answers how many.
local chosen = 0
for _, id in ipairs(ARGV) do
  if redis.call('ZREM', P .. 'ready:' .. sweep_of(id), id) == 1 then
    redis.call('ZADD', P .. 'outbox', now, member(id, redis.call('HGET', task_key(id), 'generation')))
    chosen = chosen + 1
  end
end
return chosen
