-- ARGV: id, generation of each ticket that the broker has confirmed. From the outbox to outstanding, if the task still waits for it.
local moved = 0
for i = 1, #ARGV, 2 do
  local id, generation = ARGV[i], ARGV[i + 1]
  if redis.call('ZREM', P .. 'outbox', member(id, generation)) == 1 then
    local found = redis.call('HMGET', task_key(id), 'state', 'generation')
    if found[1] == 'queued' and found[2] == generation then
      redis.call('ZADD', P .. 'outstanding', now, member(id, generation))
      moved = moved + 1
    end
  end
end
return moved
