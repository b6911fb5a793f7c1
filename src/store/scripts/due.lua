-- ARGV: sweep, most tasks. Tasks whose wait after a crash is over wait to be chosen for a ticket. Answers how many.
local sweep, due = ARGV[1], 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'delayed:' .. sweep, '-inf', now, 'LIMIT', 0, ARGV[2])) do
  redis.call('ZREM', P .. 'delayed:' .. sweep, id)
  if redis.call('HGET', task_key(id), 'state') == 'queued' then
    redis.call('ZADD', P .. 'ready:' .. sweep, redis.call('HGET', task_key(id), 'order'), id)
    due = due + 1
  end
end
return due
